"""The revisions of an event in the ledger, and how today's translation differs from the last of them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct, json, to_builtins
from msgspec.structs import replace

from service.core.delivery import Proof
from service.core.differences import FieldDifference, field_differences
from service.core.events import (
    SUPERSEDED_SUFFIX,
    Event,
    Superseded,
    original_id,
    revision_id,
    superseding_event,
)
from service.core.moments import rfc3339
from service.intake.translation import is_rendered, processor_of
from service.ledger.draft import EventKey, Incoming
from service.ledger.reader import LedgerReader, RecordedEvent


class Change(Struct, frozen=True, kw_only=True):
    """An event that today's translators give otherwise; `kind` is "changed", "added" or "dropped".

    `position` is that of the event in the ledger; for an added event that of its delivery, or 0 if the
    delivery is in quarantine.
    """

    kind: str
    cause: str
    type: str
    position: int
    differences: list[FieldDifference]


class RawDelivery(Struct, frozen=True, kw_only=True):
    """A delivery as stored, with the content digests of the events that it brought first.

    `digests` are keyed by the processor's own event ids, and are as stored. `body` is None once erased.
    `is_altered` is set where the stored bytes are not those that the chain covers.
    """

    position: int
    headers: bytes
    body: bytes | None
    proof: Proof
    digests: dict[EventKey, bytes]
    is_altered: bool = False


class EventRevisions(Struct, frozen=True, kw_only=True):
    """The revisions of one event in the ledger: the first, the effective one, and how many there are.

    `effective` is None if the last revision was superseded without a replacement. `others` count besides it,
    and `is_rendered_again` is set, where an older version recorded an event once for each account that its
    renderings name.
    """

    first: RecordedEvent
    effective: RecordedEvent | None
    others: tuple[RecordedEvent, ...] = ()
    count: int
    is_rendered_again: bool = False


class Retranslation(Struct, frozen=True, kw_only=True):
    """The changes in one delivery, the events to append for them, and the delivery that brings the events."""

    changes: list[Change]
    events: list[Event]
    incoming: Incoming


def compare(
    delivery: RawDelivery, translated: Incoming, known: Mapping[EventKey, EventRevisions]
) -> Retranslation:
    """Compare a delivery as translated today with the effective events that it brought. Pure.

    Only the delivery that first brought an event is compared. Events that the ledger holds already are in
    `incoming` all the same, so that its body is sealed for their customers; they are not appended again.
    """
    changes: list[Change] = []
    recorded: list[Event] = []
    appended: list[Event] = []
    own_digests = set(delivery.digests.values())
    for event in translated.events:
        revisions = known.get(event_key(event))
        if revisions and revisions.first.delivery != delivery.position:
            recorded += [revisions.first.event] if revisions.first.content_digest in own_digests else []
        elif revisions is None or revisions.effective is None:
            if revisions or not records_only_changes(delivery.proof):
                number = revisions.count + 1 if revisions else 1
                appended.append(replace(event, event_id=revision_id(event.event_id, number)))
                changes.append(change_of("added", event, delivery.position, []))
        elif event_differences := list(
            field_differences(_as_json(revisions.effective.event), _as_json(event))
        ):
            revised = replace(event, event_id=revision_id(event.event_id, revisions.count + 1))
            old_events = [row.event for row in (revisions.effective, *revisions.others)]
            appended += [*(superseding_event(old, revised.event_id) for old in old_events), revised]
            effective = revisions.effective
            changes.append(change_of("changed", effective.event, effective.position, event_differences))
        else:
            recorded.append(revisions.effective.event)
            for other in revisions.others:
                appended.append(superseding_event(other.event, revisions.effective.event.event_id))
                changes.append(change_of("dropped", other.event, other.position, []))
    for old in _dropped(delivery, translated, known):
        appended.append(superseding_event(old.event, None))
        changes.append(change_of("dropped", old.event, old.position, []))
    incoming = replace(translated, events=[*recorded, *appended], reason=None, detail="")
    return Retranslation(changes=changes, events=appended, incoming=incoming)


def _dropped(
    delivery: RawDelivery, translated: Incoming, known: Mapping[EventKey, EventRevisions]
) -> Iterator[RecordedEvent]:
    """The effective events that a delivery no longer gives, although it can be read whole."""
    if translated.reason:
        return
    translated_keys = {event_key(event) for event in translated.events}
    for key in delivery.digests:
        effective = known[key].effective
        if key not in translated_keys and effective:
            yield effective


def records_only_changes(proof: Proof) -> bool:
    """Whether only changed data of such a delivery are recorded; then a missing event is no difference."""
    processor = processor_of(proof.processor)
    return proof.method == "fetch" and processor is not None and processor.records_only_changes


def event_key(event: Event) -> EventKey:
    """The key of an event; without its account where ids are unique over all accounts."""
    return event.processor, account_of_key(event.processor, event.account), event.event_id


def account_of_key(processor: str, account: str) -> str:
    """The account in the key of an event: none where ids are unique over all accounts."""
    return "" if is_rendered(processor) else account


def change_of(kind: str, event: Event, position: int, event_differences: list[FieldDifference]) -> Change:
    """A change of an event, or of one that is added or dropped."""
    return Change(
        kind=kind, cause=event.cause, type=event.type, position=position, differences=event_differences
    )


def _as_json(value: Any) -> Any:
    """An event, or a part of one, as JSON values including those that equal their defaults."""
    match value:
        case Event():
            before = value.before and json.decode(value.before, type=type(value.data))
            fields = {name: getattr(value, name) for name in ("type", "account", "rank", "trust")}
            occurred_at = rfc3339(value.occurred_at)
            return {
                **fields,
                "occurred_at": occurred_at,
                "data": _as_json(value.data),
                "before": _as_json(before),
            }
        case Struct():
            return {name: _as_json(getattr(value, name)) for name in value.__struct_fields__}
        case tuple():
            return [_as_json(part) for part in value]
    return to_builtins(value)


async def read_revisions(reader: LedgerReader, event_ids: Iterable[str]) -> dict[EventKey, EventRevisions]:
    """The events in the ledger with these ids and all their revisions, by (processor, account, id)."""
    revisions_by_key: dict[EventKey, EventRevisions] = {}
    ids, number = set(event_ids), 0
    while ids:
        number += 1
        revision_ids = [revision_id(event_id, number) for event_id in ids]
        rows = await reader.recorded_events(
            [*revision_ids, *(event_id + SUPERSEDED_SUFFIX for event_id in revision_ids)]
        )
        superseded = {
            (row.event.processor, row.event.account, old_id)
            for row in rows
            if (old_id := _superseded_id(row))
        }
        for row in sorted(rows, key=lambda row: row.position):
            if not _superseded_id(row):
                key = (*event_key(row.event)[:2], original_id(row.event.event_id))
                is_superseded = (row.event.processor, row.event.account, row.event.event_id) in superseded
                revisions_by_key[key] = _with_revision(
                    revisions_by_key.get(key), row, number, is_superseded=is_superseded
                )
        ids = {original_id(event_id) for _, _, event_id in superseded}
    return revisions_by_key


def _with_revision(
    revisions: EventRevisions | None, row: RecordedEvent, number: int, *, is_superseded: bool
) -> EventRevisions:
    """The revisions of an event with one more; the effective one is the last that is not superseded."""
    first = revisions.first if revisions else row
    effective = (revisions.effective, *revisions.others) if revisions else ()
    counting = [*filter(None, effective), *([] if is_superseded else [row])]
    return EventRevisions(
        first=first,
        effective=counting[-1] if counting else None,
        others=tuple(counting[:-1]),
        count=number,
        is_rendered_again=revisions is not None and (revisions.is_rendered_again or number == 1),
    )


def _superseded_id(row: RecordedEvent) -> str | None:
    """The id of the event that a `Superseded` event supersedes; None for any other event."""
    return row.event.data.event_id if isinstance(row.event.data, Superseded) else None
