"""Retranslation: read the stored deliveries with today's translators, and correct the events that differ.

The ledger is never changed. For a delivery with differing events another one is appended, with the same
bytes and proof: for each such event it holds an event that supersedes the old one, and a revision of it.
Canonical order (service.core.order), and so every book, replay and look back, sees the revision alone.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from typing import Any

import structlog
from msgspec import Struct, json
from msgspec.structs import replace

from service.core.delivery import ModeOf, Processor, Proof
from service.core.errors import Erased, Integrity, Unreadable
from service.core.events import (
    REVISION_MARK,
    Event,
    join_key,
)
from service.core.limits import check_limits
from service.core.progress import Advance
from service.intake import quarantine, versions
from service.intake.revisions import (
    Change,
    EventRevisions,
    RawDelivery,
    account_of_key,
    change_of,
    compare,
    event_key,
    read_revisions,
    records_only_changes,
)
from service.intake.translation import can_read_again, is_rendered, processor_of, read_delivery
from service.ledger.draft import EventKey, Incoming
from service.ledger.reader import LedgerReader
from service.ledger.renderings import NO_RANK, Rank, named_account, rank
from service.ledger.store import Ledger
from service.settings import Settings

log = structlog.get_logger()

_PAGE = 100  # deliveries read, and appended, at once
MAX_PREVIEW_EVENTS = 20_000  # more are not kept in memory, and their impact on figures is not previewed


class Impact(Struct, frozen=True, kw_only=True):
    """A figure that would change. "mrr_cents" is that of today, the others are those of this month."""

    figure: str
    currency: str
    before_cents: int
    after_cents: int


class RetranslationReport(Struct, kw_only=True):
    """The result of a retranslation. `changes` lists the first changes; the counts are of all.

    `deliveries` were read; `left_out` counts those that were not, by the reason. `refused` ones can't be
    read any more, or only in part, and keep their events. `released` ones are in quarantine and can be
    read now. `figures` are those that would change, None without a preview.
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


async def retranslate_delivery(
    reader: LedgerReader, delivery: RawDelivery, mode_of: ModeOf, *, is_rendered_again: bool = False
) -> Incoming | None:
    """A delivery as today's translators read it; None if it was erased or has no translator.

    Of an event that others brought, too, it is the rendering that the books should read, in the account that
    any rendering names.
    """
    processor, proof, body = processor_of(delivery.proof.processor), delivery.proof, delivery.body
    if body is None or processor is None or not can_read_again(processor, proof):
        return None
    if records_only_changes(proof):
        translated = await _retranslate_fetched(reader, processor, delivery, body, mode_of)
        return replace(translated, content_digest=sha256(body).digest())
    if is_rendered_again:
        event_id = next(iter(delivery.digests))[2]
        renderings = await _read_renderings(reader, processor, event_id, mode_of)
        return _best_rendering(renderings) if renderings else None
    return read_delivery(processor, delivery.headers, body, proof, mode_of)


async def _read_renderings(
    reader: LedgerReader, processor: Processor, event_id: str, mode_of: ModeOf
) -> list[Incoming] | None:
    """The renderings of an event that can be read, or one; None if one was erased: they can't be compared."""
    deliveries = (await reader.deliveries_of(processor.name, event_id)).values()
    raws = [raw for raw in deliveries if raw]
    if len(raws) < len(deliveries):
        return None
    renderings = [
        read_delivery(processor, raw.headers, raw.body, json.decode(raw.proof, type=Proof), mode_of)
        for raw in raws
    ]
    return [rendering for rendering in renderings if rendering.rendered_event] or renderings[:1]


def _best_rendering(renderings: Sequence[Incoming]) -> Incoming:
    """The rendering with the highest rank, with its event in the account that any of them names."""
    best = max(renderings, key=_rank)
    account = named_account(event.account for rendering in renderings for event in rendering.events)
    return replace(best, events=[replace(event, account=account) for event in best.events])


def _rank(rendering: Incoming) -> Rank:
    rendered = rendering.render(rendering.body) if rendering.render else None
    return rank(rendering.proof.trust, rendered) if rendered else NO_RANK


async def _retranslate_fetched(
    reader: LedgerReader, processor: Processor, delivery: RawDelivery, body: bytes, mode_of: ModeOf
) -> Incoming:
    """A delivery that was fetched: an observed object, or one that confirms a notification or was listed."""
    translated = read_delivery(processor, delivery.headers, body, delivery.proof, mode_of)
    confirmations = processor.confirmations
    if confirmations is None:
        return translated
    notification_ids = {key: confirmations.notification_id(key[2]) for key in delivery.digests}
    key = next((key for key, notification_id in notification_ids.items() if notification_id), None)
    if key is None:
        return translated
    notification_key = (*key[:2], notification_ids[key] or "")
    notification = await _read_notification(reader, delivery.position, notification_key, mode_of)
    try:
        events = confirmations.read_again(json.decode(body), delivery.proof, key[2], notification)
        return replace(translated, events=list(map(check_limits, events)), reason=None, detail="")
    except Unreadable as error:
        return replace(translated, events=[], reason="unreadable", detail=str(error))


async def _read_notification(
    reader: LedgerReader, before: int, key: EventKey, mode_of: ModeOf
) -> Event | None:
    """The notification under a key, as translated today; None if none came before the position `before`."""
    revisions = (await read_revisions(reader, [key[2]])).get(key)
    if revisions is None or revisions.first.position > before:
        return None
    with suppress(Erased, Integrity):
        stored = await reader.delivery(revisions.first.delivery)
        proof = json.decode(stored["proof"], type=Proof)
        processor = processor_of(proof.processor)
        if processor:
            translated = read_delivery(processor, stored["headers"], stored["body"], proof, mode_of)
            return next(
                (event for event in translated.events if event.event_id == key[2]), revisions.first.event
            )
    return revisions.first.event


async def _read_rendered_again(reader: LedgerReader, known: Mapping[EventKey, EventRevisions]) -> set[int]:
    """The positions of those deliveries whose event others brought, too."""
    deliveries = {
        join_key("rendering", key[0], "", key[2]): revisions.first.delivery
        for key, revisions in known.items()
        if is_rendered(key[0])
    }
    rendered = {deliveries[name] for name, _ in await reader.indexed_subjects(deliveries)}
    return rendered | {
        revisions.first.delivery for revisions in known.values() if revisions.is_rendered_again
    }


async def read_deliveries(reader: LedgerReader, after: int, until: int) -> tuple[list[RawDelivery], int]:
    """The next page of deliveries after a position, and the position up to which the page is complete."""
    rows = await reader.deliveries(after, _PAGE + 1)
    rows = [row for row in rows if row["position"] <= until]
    end = rows[_PAGE]["position"] - 1 if len(rows) > _PAGE else until
    event_rows = await reader.rows(after, end - after)
    digests: dict[int, dict[EventKey, bytes]] = defaultdict(dict)
    delivery_digests = {row["delivery"]: row["delivery_digest"] for row in event_rows}
    for row in event_rows:
        if REVISION_MARK not in row["event_id"]:
            account = account_of_key(row["processor"], row["account"])
            key = row["processor"], account, row["event_id"]
            digests[row["delivery"]][key] = row["content_digest"]
    page = [
        RawDelivery(
            position=row["position"],
            headers=row["headers"],
            body=row["body"],
            proof=json.decode(row["proof"], type=Proof),
            digests=digests[row["position"]],
            is_altered=row["stored_digest"] != delivery_digests[row["position"]],
        )
        for row in rows[:_PAGE]
    ]
    return page, end


# Running


class Retranslator:
    """One run over a ledger: finds the changes and, with `apply`, appends the corrections.

    The report lists `max_changes` changes at most. For `by_chain` see `quarantine.find_fault`.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], datetime],
        settings: Settings,
        *,
        processor: str | None = None,
        apply: bool = False,
        by_chain: bool = False,
        max_changes: int = 100,
    ) -> None:
        self._ledger = ledger
        self._by_chain = by_chain
        self._clock = clock
        self._settings = settings
        self._mode_of = settings.mode_of
        self._processor = processor
        self._max_changes = max_changes
        self._added_keys: set[EventKey] = set()  # of the events that this run adds
        self._rendered_keys: set[EventKey] = set()  # of those of which quarantine has another rendering
        self.report = RetranslationReport(left_out=Counter(), changes=[], applied=apply)
        self.events: list[Event] = []  # to append: MAX_PREVIEW_EVENTS at most, and one more if there are more

    async def run(self, after: int, advance: Advance) -> RetranslationReport:
        """Retranslate quarantine, then all deliveries after `after`, up to the end that the ledger has then.

        What arrives meanwhile is translated by today's translators anyway. Once all that the ledger holds of
        a processor is applied, that is recorded. A run that was interrupted may be repeated. `advance` is
        called with the numbers of deliveries in quarantine, and of positions, that were read.
        """
        is_whole = self.report.applied and not after
        await self._retranslate_quarantine(advance)
        async with self._ledger.reading() as reader:
            until = (await reader.head()).position
        while after < until:
            async with self._ledger.reading() as reader:
                page, end = await read_deliveries(reader, after, until)
                incoming = await self._retranslate_page(reader, page)
            if self.report.applied and incoming:
                await self._ledger.append(incoming, self._clock())
            advance(end - after)
            after = end
        if is_whole:
            chosen = filter(self._is_chosen, versions.VERSIONS)
            await versions.record_retranslated(self._ledger, chosen, self._clock())
        return self.report

    def _is_chosen(self, processor: str) -> bool:
        """Whether this run is for a processor; "standard" stands for all in-house billers."""
        return self._processor in (None, processor, processor.partition(".")[0])

    async def _retranslate_quarantine(self, advance: Advance) -> None:
        """Retry the deliveries in quarantine, which may be readable now."""
        for quarantine_id, reason in (await quarantine.retryable_entries(self._ledger)).items():
            async with self._ledger.reading() as reader:
                try:
                    row = await quarantine.read_row(reader, quarantine_id)
                except Integrity as error:
                    self._note_refused(str(error), id=quarantine_id)
                    continue
                is_chosen = self._is_chosen(row["processor"])
                if row["body"] is not None and is_chosen:
                    await self._note_quarantined(reader, row, reason)
            if self.report.applied and is_chosen:
                await self._retry(quarantine_id)
            advance(1)

    async def _retry(self, quarantine_id: int) -> None:
        now = self._clock()
        await quarantine.retry(self._ledger, quarantine_id, now, self._settings, by_chain=self._by_chain)

    def _note_refused(self, fault: str, **entry: Any) -> None:
        log.warning("quarantine_refused", **entry, reason=fault)
        self.report.left_out["refused in quarantine"] += 1

    async def _note_quarantined(self, reader: LedgerReader, row: dict[str, Any], reason: str) -> None:
        """Note what a retry of a delivery in quarantine appends."""
        if fault := await quarantine.find_fault(reader, row, self._settings, by_chain=self._by_chain):
            self._note_refused(fault, id=row["id"], processor=row["processor"])
            return
        incoming = quarantine.read_again(row, self._mode_of)
        if reason == quarantine.CONFLICT:
            await self._note_rendering(reader, incoming)
        else:
            await self._note_new_events(reader, incoming)

    async def _note_new_events(self, reader: LedgerReader, incoming: Incoming) -> None:
        known = await read_revisions(reader, [event.event_id for event in incoming.events])
        new = [event for event in incoming.events if event_key(event) not in known.keys() | self._added_keys]
        self.report.released += bool(new) or not incoming.reason
        self._note([change_of("added", event, 0, []) for event in new], new)

    async def _note_rendering(self, reader: LedgerReader, incoming: Incoming) -> None:
        """Note a conflict that is another rendering by today's rules, and how it changes its event."""
        event = incoming.rendered_event
        if event is None or not await reader.is_rendering(incoming):
            return
        self.report.released += 1
        known = await read_revisions(reader, [event.event_id])
        key, processor = event_key(event), processor_of(event.processor)
        if processor is None or key in self._rendered_keys:
            return
        first = known[key].first
        delivery = RawDelivery(
            position=first.delivery,
            headers=incoming.headers,
            body=incoming.body,
            proof=incoming.proof,
            digests={key: first.content_digest},
        )
        others = await _read_renderings(reader, processor, event.event_id, self._mode_of)
        retranslation = compare(delivery, _best_rendering([*(others or ()), incoming]), known)
        self._note(retranslation.changes, retranslation.events)
        self._rendered_keys.add(key)

    async def _retranslate_page(self, reader: LedgerReader, page: list[RawDelivery]) -> list[Incoming]:
        """The deliveries to append for the changes in a page of deliveries."""
        noted = set() if self.report.applied else self._rendered_keys
        chosen = [
            delivery
            for delivery in page
            if self._is_chosen(delivery.proof.processor) and delivery.digests.keys() - noted
        ]
        self.report.left_out += Counter("altered" for delivery in chosen if delivery.is_altered)
        chosen = [delivery for delivery in chosen if not delivery.is_altered]
        ids = {key[2] for delivery in chosen for key in delivery.digests}
        known = await read_revisions(reader, ids)
        rendered_again = await _read_rendered_again(reader, known)
        readings = [
            (
                delivery,
                await retranslate_delivery(
                    reader, delivery, self._mode_of, is_rendered_again=delivery.position in rendered_again
                ),
            )
            for delivery in chosen
        ]
        translated_ids = {event.event_id for _, each in readings if each for event in each.events}
        known |= await read_revisions(reader, translated_ids - ids)
        incoming = []
        for delivery, translated in readings:
            if translated is None:
                is_erased = delivery.body is None or delivery.position in rendered_again
                self.report.left_out["erased" if is_erased else delivery.proof.method] += 1
                continue
            self.report.deliveries += 1
            added_before = self._added_keys - known.keys()
            events = [event for event in translated.events if event_key(event) not in added_before]
            self.report.refused += bool(translated.reason) and not delivery.digests.keys() <= set(
                map(event_key, events)
            )
            retranslation = compare(delivery, replace(translated, events=events), known)
            self._note(retranslation.changes, retranslation.events)
            incoming += [retranslation.incoming] if retranslation.changes else []
        return incoming

    def _note(self, changes: list[Change], events: list[Event]) -> None:
        for kind, count in Counter(change.kind for change in changes).items():
            setattr(self.report, kind, getattr(self.report, kind) + count)
        self.report.changes += changes[: self._max_changes - len(self.report.changes)]
        self._added_keys |= {event_key(event) for event in events if REVISION_MARK not in event.event_id}
        self.events += events[: MAX_PREVIEW_EVENTS + 1 - len(self.events)]
