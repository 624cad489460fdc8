"""Retranslate: today's translators over the deliveries as they came, and what they tell otherwise.

The ledger is never changed. Where an event is told otherwise one delivery is appended, with the bytes and
the proof of the first: an event that supersedes the old one, and a revision of it. So canonical order
(service.core.order) and with it every book, replay and look back see the revision alone.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from typing import Any

from msgspec import Struct, json, to_builtins
from msgspec.structs import replace

from handlers import mxmerchant
from service.core.delivery import Endpoint, Proof
from service.core.differences import Difference, differences
from service.core.errors import Erased, Integrity, Unreadable
from service.core.events import (
    MARK,
    SUPERSEDED,
    Event,
    Superseded,
    original_id,
    revision,
    superseding,
)
from service.core.limits import check_limits
from service.core.moments import rfc3339
from service.intake import quarantine
from service.intake.translation import endpoint_of, read_delivery
from service.ledger.draft import EventKey, Incoming
from service.ledger.store import Ledger, LedgerReader, RecordedEvent

_PAGE = 100  # deliveries read, and written, at once
MOST_EVENTS = 20_000  # of a run, that are held in memory to preview their impact on figures
_FETCHED = ":fetched"  # ends the id of a payment that was asked for
_METHODS = ("stripe-signature", "standard-webhooks", "url-token", "import", "fetch")


class Impact(Struct, frozen=True, kw_only=True):
    """A figure that would change: "mrr_cents" is as of today, the others are this month's."""

    figure: str
    currency: str
    before_cents: int
    after_cents: int


class Change(Struct, frozen=True, kw_only=True):
    """An event that is told otherwise: "changed", "added" or "dropped".

    `position` is where it stands; of an added one where its delivery does, 0 while that is in quarantine.
    """

    kind: str
    cause: str
    type: str
    position: int
    differences: list[Difference]


class Report(Struct, kw_only=True):
    """What retranslating found. `changes` holds the first of them, `changed` and the others count all.

    `refused` deliveries can't be read any more, or only in part, and keep the events that they have.
    `left_out` ones were not read, by the reason. `released` ones are in quarantine and can be read now.
    `figures` are those that would change; None where that was not looked at.
    """

    deliveries: int = 0
    left_out: Counter[str]
    refused: int = 0
    released: int = 0
    changed: int = 0
    added: int = 0
    dropped: int = 0
    changes: list[Change]
    applied: bool = False
    figures: list[Impact] | None = None

    @property
    def differs(self) -> bool:
        """Whether there is anything to apply."""
        return bool(self.released or self.changed or self.added or self.dropped)


class Delivery(Struct, frozen=True, kw_only=True):
    """A raw delivery, and the events that were first told by it: their ids as the processor gave them."""

    position: int
    headers: bytes
    body: bytes | None
    proof: Proof
    own: dict[EventKey, bytes]  # with their content digests, as they stand


class Told(Struct, frozen=True, kw_only=True):
    """What the ledger holds of one event: its first telling, the one that counts, and how many there are."""

    first: RecordedEvent
    standing: RecordedEvent | None
    tellings: int


class Retranslation(Struct, frozen=True, kw_only=True):
    """What differs in one delivery, the events that set it right, and the delivery that brings them."""

    changes: list[Change]
    events: list[Event]
    incoming: Incoming


# Comparing


def compare(delivery: Delivery, read: Incoming, known: Mapping[EventKey, Told]) -> Retranslation:
    """What today's reading of a delivery tells otherwise than what counts of it. Pure.

    An event is judged by the delivery that first told it. The others are in `incoming` all the same: the
    ledger holds them, and takes nothing of them but whose the body is.
    """
    changes: list[Change] = []
    held: list[Event] = []
    new: list[Event] = []
    digests = set(delivery.own.values())
    for event in read.events:
        told = known.get(_key(event))
        if told and told.first.delivery != delivery.position:
            held += [told.first.event] if told.first.content_digest in digests else []
        elif told is None or told.standing is None:
            if told or not _is_partial(delivery.proof):
                number = told.tellings + 1 if told else 1
                new.append(replace(event, event_id=revision(event.event_id, number)))
                changes.append(_change("added", event, delivery.position, []))
        elif found := list(differences(_plain(told.standing.event), _plain(event))):
            revised = replace(event, event_id=revision(event.event_id, told.tellings + 1))
            new += [superseding(told.standing.event, revised.event_id), revised]
            changes.append(_change("changed", told.standing.event, told.standing.position, found))
        else:
            held.append(told.standing.event)
    for old in _dropped(delivery, read, known):
        new.append(superseding(old.event, None))
        changes.append(_change("dropped", old.event, old.position, []))
    incoming = replace(read, events=[*held, *new], reason=None, detail="")
    return Retranslation(changes=changes, events=new, incoming=incoming)


def _dropped(delivery: Delivery, read: Incoming, known: Mapping[EventKey, Told]) -> Iterator[RecordedEvent]:
    """The events that count, and that a delivery which can be read whole does not tell any more."""
    if read.reason:
        return
    told = {_key(event) for event in read.events}
    for key in delivery.own:
        standing = known[key].standing
        if key not in told and standing:
            yield standing


def _is_partial(proof: Proof) -> bool:
    """Whether only what was new of a delivery was recorded, so that what is not there lacks nothing."""
    return proof.method == "fetch" and proof.processor == mxmerchant.PROCESSOR


def _key(event: Event) -> EventKey:
    return event.processor, event.account, event.event_id


def _change(kind: str, event: Event, position: int, found: list[Difference]) -> Change:
    return Change(kind=kind, cause=event.cause, type=event.type, position=position, differences=found)


def _plain(value: Any) -> Any:
    """All that an event tells, or a part of it, as JSON values, defaults too."""
    match value:
        case Event():
            before = value.before and json.decode(value.before, type=type(value.data))
            told = {name: getattr(value, name) for name in ("type", "rank", "trust")}
            at = rfc3339(value.occurred_at)
            return {**told, "occurred_at": at, "data": _plain(value.data), "before": _plain(before)}
        case Struct():
            return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
        case tuple():
            return [_plain(part) for part in value]
    return to_builtins(value)


# Reading


async def read(reader: LedgerReader, delivery: Delivery) -> Incoming | None:
    """A delivery as today's translators read it; None where nothing reads it."""
    endpoint, proof, body = endpoint_of(delivery.proof.processor), delivery.proof, delivery.body
    if body is None or endpoint is None or proof.method not in _METHODS:
        return None
    if _is_partial(proof):
        again = await _fetched(reader, endpoint, delivery, body)
        return replace(again, content_digest=sha256(body).digest())
    return read_delivery(endpoint, delivery.headers, body, proof)


async def _fetched(reader: LedgerReader, endpoint: Endpoint, delivery: Delivery, body: bytes) -> Incoming:
    """What was asked for: a contract as it was observed, or a payment, told by a notification or listed."""
    again = read_delivery(endpoint, delivery.headers, body, delivery.proof)
    key = next((key for key in delivery.own if key[2].endswith(_FETCHED)), None)
    if key is None:
        return again
    told = await _notification(reader, delivery.position, key)
    record, observed_at = json.decode(body), delivery.proof.received_at
    try:
        if told:
            event: Event | None = mxmerchant.confirmation(record, told, observed_at)
        else:
            event = mxmerchant.listed(record, key[1], observed_at)
        return replace(again, events=[check_limits(event)] if event else [], reason=None, detail="")
    except Unreadable as error:
        return replace(again, events=[], reason="unreadable", detail=str(error))


async def _notification(reader: LedgerReader, before: int, key: EventKey) -> Event | None:
    """What was told, before a position, of the payment that was asked for then; as it is read today."""
    event_id = key[2].removesuffix(_FETCHED) + ":unsigned"
    told = (await told_of(reader, [event_id])).get((*key[:2], event_id))
    if told is None or told.first.position > before:
        return None
    with suppress(Erased, Integrity):
        raw = await reader.delivery(told.first.delivery)
        proof = json.decode(raw["proof"], type=Proof)
        endpoint = endpoint_of(proof.processor)
        if endpoint:
            again = read_delivery(endpoint, raw["headers"], raw["body"], proof)
            return next((event for event in again.events if event.event_id == event_id), told.first.event)
    return told.first.event


async def told_of(reader: LedgerReader, event_ids: Iterable[str]) -> dict[EventKey, Told]:
    """What the ledger holds under these ids, by (processor, account, id), revisions and all."""
    found: dict[EventKey, Told] = {}
    ids, number = set(event_ids), 0
    while ids:
        number += 1
        names = [revision(each, number) for each in ids]
        rows = await reader.recorded_events([*names, *(name + SUPERSEDED for name in names)])
        gone = {(*_key(row.event)[:2], _superseded(row)) for row in rows if _superseded(row)}
        for row in rows:
            if not _superseded(row):
                key = row.event.processor, row.event.account, original_id(row.event.event_id)
                first = found[key].first if key in found else row
                standing = None if _key(row.event) in gone else row
                found[key] = Told(first=first, standing=standing, tellings=number)
        ids = {original_id(event_id) for _, _, event_id in gone if event_id}
    return found


def _superseded(row: RecordedEvent) -> str | None:
    """The id of the event that this one supersedes, if it does."""
    return row.event.data.event_id if isinstance(row.event.data, Superseded) else None


async def deliveries(reader: LedgerReader, after: int, until: int) -> tuple[list[Delivery], int]:
    """The next raw deliveries after a position, and the position up to which these are all."""
    raw = await reader.deliveries(after, _PAGE + 1)
    raw = [each for each in raw if each["position"] <= until]
    end = raw[_PAGE]["position"] - 1 if len(raw) > _PAGE else until
    rows = await reader.rows(after, end - after)
    own: dict[int, dict[EventKey, bytes]] = defaultdict(dict)
    for row in rows:
        if MARK not in row["event_id"]:
            key = row["processor"], row["account"], row["event_id"]
            own[row["delivery"]][key] = row["content_digest"]
    found = [
        Delivery(
            position=each["position"],
            headers=each["headers"],
            body=each["body"],
            proof=json.decode(each["proof"], type=Proof),
            own=own[each["position"]],
        )
        for each in raw[:_PAGE]
    ]
    return found, end


# The whole


class Retranslator:
    """One run over a ledger: finds what differs and, if it is to be applied, appends what sets it right."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], datetime],
        *,
        processor: str | None = None,
        apply: bool = False,
        shown: int = 100,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._processor = processor
        self._shown = shown
        self._coming: set[EventKey] = set()  # what is to be appended already
        self.report = Report(left_out=Counter(), changes=[], applied=apply)
        self.events: list[Event] = []  # to be appended: the first MOST_EVENTS, and one more if there are more

    async def run(self, after: int, done: Callable[[int], None]) -> Report:
        """Read quarantine, then all deliveries after a position, again. `done` is told of positions."""
        await self._quarantine()
        async with self._ledger.reading() as reader:
            until = (await reader.head()).position
        while after < until:
            async with self._ledger.reading() as reader:
                page, end = await deliveries(reader, after, until)
                found = await self._page(reader, page)
            if self.report.applied and found:
                await self._ledger.append(found, self._clock())
            done(end - after)
            after = end
        return self.report

    async def _quarantine(self) -> None:
        """What can be read now that could not be, by the ordinary way out of quarantine."""
        for waiting in await quarantine.unread(self._ledger):
            async with self._ledger.reading() as reader:
                row = await quarantine.found(reader, waiting)
                if row["body"] is None or self._processor not in (None, row["processor"]):
                    continue
                again = quarantine.read_again(row)
                known = await told_of(reader, [event.event_id for event in again.events])
            new = [event for event in again.events if _key(event) not in known.keys() | self._coming]
            self.report.released += bool(new) or not again.reason
            self._take([_change("added", event, 0, []) for event in new], new)
            if self.report.applied:
                await quarantine.retry(self._ledger, waiting, self._clock())

    async def _page(self, reader: LedgerReader, page: list[Delivery]) -> list[Incoming]:
        """What to append so that these deliveries tell what they do today."""
        of = [each for each in page if each.own and self._processor in (None, each.proof.processor)]
        readings = [(delivery, await read(reader, delivery)) for delivery in of]
        ids = {key[2] for delivery in of for key in delivery.own}
        ids |= {event.event_id for _, again in readings if again for event in again.events}
        known = await told_of(reader, ids)
        incoming = []
        for delivery, again in readings:
            if again is None:
                self.report.left_out["erased" if delivery.body is None else delivery.proof.method] += 1
                continue
            self.report.deliveries += 1
            taken = self._coming - known.keys()
            events = [event for event in again.events if _key(event) not in taken]
            self.report.refused += bool(again.reason) and not delivery.own.keys() <= set(map(_key, events))
            found = compare(delivery, replace(again, events=events), known)
            self._take(found.changes, found.events)
            incoming += [found.incoming] if found.changes else []
        return incoming

    def _take(self, changes: list[Change], events: list[Event]) -> None:
        for kind, count in Counter(change.kind for change in changes).items():
            setattr(self.report, kind, getattr(self.report, kind) + count)
        self.report.changes += changes[: self._shown - len(self.report.changes)]
        self._coming |= {_key(event) for event in events if MARK not in event.event_id}
        self.events += events[: MOST_EVENTS + 1 - len(self.events)]
