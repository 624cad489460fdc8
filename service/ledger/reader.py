"""Reading the ledger: one consistent view of its events, deliveries and quarantine."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.delivery import Confirmations
from service.core.errors import Erased, Integrity
from service.core.events import (
    REVISION_MARK,
    SUPERSEDED_SUFFIX,
    TYPE_OF,
    CustomerErased,
    Event,
    named_id,
    original_id,
    revision_id,
)
from service.core.moments import to_us
from service.core.order import effective_events
from service.ledger import chain, tables
from service.ledger.append import is_rendering, read_head
from service.ledger.cursors import read_cursors
from service.ledger.draft import Head, Incoming
from service.ledger.fetches import PendingFetches, read_pending_fetches
from service.ledger.history import EVENT_COLUMNS, READING_TYPES, to_event, unseal_rows
from service.ledger.personal_data import has_sealed_fields, unseal_data
from service.ledger.quarantine_chain import check_entry, read_end, read_records
from service.ledger.renderings import Raw, read_deliveries_of
from service.ledger.set_aside import SetAsideSubject, read_set_aside
from service.ledger.vault import StoredBody, Vault
from service.storage.statements import any_of

_events = tables.Event.__table__  # type: ignore[attr-defined]
_ids = tables.EventId.__table__  # type: ignore[attr-defined]
_deliveries = tables.Delivery.__table__  # type: ignore[attr-defined]
_subjects = tables.Subject.__table__  # type: ignore[attr-defined]
_quarantine = tables.Quarantine.__table__  # type: ignore[attr-defined]
_set_aside = tables.SetAsideHistory.__table__  # type: ignore[attr-defined]
_superseding = _ids.alias()


class RecordedEvent(Struct, frozen=True, kw_only=True):
    """An event at its position, with the position of its delivery and the content digest of its row."""

    position: int
    event: Event
    delivery: int
    content_digest: bytes


class LedgerReader:
    """One read transaction on the ledger. It unseals personal data, except in the `stored_…` methods."""

    def __init__(self, connection: AsyncConnection, vault: Vault) -> None:
        self._connection = connection
        self._vault = vault

    async def head(self) -> Head:
        """The last position and its digest."""
        return await self._connection.run_sync(read_head)

    async def rows(self, after: int, limit: int, account: str | None = None) -> list[dict[str, Any]]:
        """Up to `limit` whole rows after a position; without the names of erased customers."""
        rows = await self.stored_rows(after, limit, account)
        sealed = [(row, name) for row in rows for name in ("data", "before") if has_sealed_fields(row[name])]
        texts = [row[name] for row, name in sealed]
        unsealed = await self._connection.run_sync(unseal_data, self._vault, texts)
        for (row, name), clear in zip(sealed, unsealed, strict=True):
            row[name] = clear
        return rows

    async def page_size(self, after: int, limit: int, account: str | None, most_bytes: int) -> int:
        """How many whole rows a page after a position has: up to `limit`, whose data are at most so long.

        At least one, if there is any.
        """
        length = func.length(_events.c.data) + func.coalesce(func.length(_events.c.before), 0)
        query = select(length).where(_events.c.position > after).order_by(_events.c.position).limit(limit)
        if account is not None:
            query = query.where(_events.c.account == account)
        sizes = accumulate((await self._connection.execute(query)).scalars())
        return sum(number == 0 or size <= most_bytes for number, size in enumerate(sizes))

    async def stored_rows(self, after: int, limit: int, account: str | None = None) -> list[dict[str, Any]]:
        """Up to `limit` whole rows after a position, as the chain covers them: with sealed data."""
        query = select(_events).where(_events.c.position > after).order_by(_events.c.position).limit(limit)
        if account is not None:
            query = query.where(_events.c.account == account)
        return [dict(row._mapping) for row in await self._connection.execute(query)]  # noqa: SLF001

    async def indexed_subjects(self, names: Iterable[str]) -> set[tuple[str, int]]:
        """The entries of these subjects in the index of histories, as (subject, position)."""
        query = select(_subjects.c.subject, _subjects.c.position).where(any_of(_subjects.c.subject, "names"))
        return {(row[0], row[1]) for row in await self._connection.execute(query, {"names": list(names)})}

    async def known_ids(self, event_ids: Iterable[str]) -> set[tuple[str, str, str, int, bytes]]:
        """The known events with these ids: (event id, processor, account, position, content digest)."""
        query = select(_ids).where(any_of(_ids.c.event_id, "ids"))
        return {tuple(row) for row in await self._connection.execute(query, {"ids": list(event_ids)})}

    async def effective_positions(self, event_ids: Iterable[str]) -> dict[tuple[str, str, str], int]:
        """The positions of the revisions that count of these events, by (processor, account, event id)."""
        positions: dict[tuple[str, str, str], int] = {}
        ids, number = set(event_ids), 0
        while ids:
            number += 1
            names = [revision_id(event_id, number) for event_id in ids]
            rows = await self.known_ids([*names, *(name + SUPERSEDED_SUFFIX for name in names)])
            entries = {(row[1], row[2], row[0]): row[3] for row in rows}
            markers = {key for key in entries if key[2].endswith(SUPERSEDED_SUFFIX)}
            for key in entries.keys() - markers:
                if (*key[:2], key[2] + SUPERSEDED_SUFFIX) not in markers:
                    positions[*key[:2], named_id(key[2])] = entries[key]
            ids = {original_id(key[2]) for key in markers}
        return positions

    async def count_ids(self) -> int:
        """How many entries the index of event ids has."""
        return int((await self._connection.execute(select(func.count()).select_from(_ids))).scalar_one())

    async def count_subjects(self) -> int:
        """How many entries the index of histories has."""
        return int((await self._connection.execute(select(func.count()).select_from(_subjects))).scalar_one())

    async def find_effective(self, processor: str, event_id: str, account: str | None = None) -> int | None:
        """The position of the revision of an event that counts; where none does, of the event with this id.

        The id of a revision or marker finds itself.
        """
        if REVISION_MARK in event_id:
            return await self.find_position(processor, event_id, account)
        positions = await self.effective_positions([event_id])
        found = [
            position
            for key, position in positions.items()
            if key[0] == processor and account in (None, key[1])
        ]
        return min(found) if found else await self.find_position(processor, event_id, account)

    async def find_position(self, processor: str, event_id: str, account: str | None = None) -> int | None:
        """The position of the first event with this id, in any account or in the given one."""
        query = select(func.min(_ids.c.position)).where(
            _ids.c.event_id == event_id, _ids.c.processor == processor
        )
        if account is not None:
            query = query.where(_ids.c.account == account)
        return (await self._connection.execute(query)).scalar()

    async def delivery(self, position: int) -> dict[str, Any]:
        """The raw delivery whose first event is at `position`.

        Raises Integrity if it is missing, Erased if a key to its body was destroyed.
        """
        raw = await self.stored_delivery(position)
        (row,) = await self._with_bodies([raw])
        if row["body"] is None:
            raise Erased(f"the raw delivery at position {position} named a customer who was erased")
        return row

    async def stored_delivery(self, position: int) -> dict[str, Any]:
        """The raw delivery as the chain covers it: with a sealed body. Raises Integrity if it is missing."""
        query = select(_deliveries).where(_deliveries.c.position == position)
        row = (await self._connection.execute(query)).one_or_none()
        if row is None:
            raise Integrity(f"the raw delivery at position {position} is missing")
        return dict(row._mapping)  # noqa: SLF001

    async def deliveries(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Up to `limit` raw deliveries whose first event is after a position, in order.

        `body` is None where it was erased; `stored_digest` is over the bytes as they are stored.
        """
        stored = await self.stored_deliveries(after, limit)
        digests = [chain.delivery_digest(row["headers"], row["body"], row["proof"]) for row in stored]
        rows = await self._with_bodies(stored)
        return [row | {"stored_digest": digest} for row, digest in zip(rows, digests, strict=True)]

    async def stored_deliveries(self, after: int, limit: int) -> list[dict[str, Any]]:
        """The raw deliveries that `deliveries` returns, as the chain covers them: with sealed bodies."""
        query = select(_deliveries).where(_deliveries.c.position > after)
        rows = await self._connection.execute(query.order_by(_deliveries.c.position).limit(limit))
        return [dict(row._mapping) for row in rows]  # noqa: SLF001

    async def read_cursor(self, name: str) -> bytes | None:
        """The progress that was last saved under this name."""
        return (await self._connection.run_sync(read_cursors, self._vault, [name])).get(name)

    async def recorded_events(self, event_ids: Iterable[str]) -> list[RecordedEvent]:
        """The events with these ids, of every processor and account."""
        query = (
            select(*EVENT_COLUMNS, _events.c.delivery, _events.c.content_digest)
            .select_from(_ids.join(_events, _events.c.position == _ids.c.position))
            .where(any_of(_ids.c.event_id, "ids"))
        )
        rows = await self._unseal_rows(
            (await self._connection.execute(query, {"ids": sorted(event_ids)})).all()
        )
        return [
            RecordedEvent(position=row[0], event=to_event(row), delivery=row[-2], content_digest=row[-1])
            for row in rows
        ]

    async def deliveries_of(self, processor: str, event_id: str) -> dict[int, Raw | None]:
        """The deliveries that brought an event, which may be several, by position; None for erased ones."""
        return await self._connection.run_sync(read_deliveries_of, self._vault, processor, event_id)

    async def is_rendering(self, incoming: Incoming) -> bool:
        """Whether a delivery is a rendering of an event of this ledger, and contradicts none."""
        return await self._connection.run_sync(is_rendering, self._vault, incoming)

    async def last_events(self, prefix: str) -> dict[str, Event]:
        """The latest event (by when it happened) of every subject that starts with `prefix`.

        Of an erased customer it is the erasure, even if later events mention them.
        """
        query = (
            select(*EVENT_COLUMNS, _subjects.c.subject)
            .select_from(_subjects.join(_events, _events.c.position == _subjects.c.position))
            .where(_subjects.c.subject >= prefix, _subjects.c.subject < prefix + "\U0010ffff")
            .where(_events.c.type.not_in(READING_TYPES))
            .order_by(_subjects.c.subject, _events.c.occurred_at_us, _events.c.event_id)
        )
        rows = await self._unseal_rows((await self._connection.execute(query)).all())
        by_subject = groupby(((row[-1], to_event(row)) for row in rows), key=itemgetter(0))
        histories = {name: effective_events(event for _, event in pairs) for name, pairs in by_subject}
        return {name: max(events, key=_recency) for name, events in histories.items() if events}

    async def unconfirmed_events(
        self, processor: str, confirmations: Confirmations, since: datetime, limit: int = 100
    ) -> list[Event]:
        """Events that came unsigned and have no fetched counterpart yet, with their original ids.

        In random order, so that many events that can never be confirmed don't keep out the rest.
        """
        suffixes = (confirmations.unsigned_suffix, confirmations.fetched_suffix)
        counterpart = select(_ids.c.position).where(
            _ids.c.event_id == func.replace(_events.c.event_id, *suffixes),
            _ids.c.processor == _events.c.processor,
            _ids.c.account == _events.c.account,
        )
        superseded = select(_superseding.c.position).where(
            _superseding.c.event_id == _events.c.event_id + SUPERSEDED_SUFFIX,
            _superseding.c.processor == _events.c.processor,
            _superseding.c.account == _events.c.account,
        )
        query = (
            select(*EVENT_COLUMNS)
            .where(_events.c.processor == processor, _events.c.trust == "unsigned")
            .where(_events.c.type.in_([TYPE_OF[kind] for kind in confirmations.confirmable]))
            .where(_events.c.recorded_at_us >= to_us(since), ~counterpart.exists(), ~superseded.exists())
            .order_by(func.random())
            .limit(limit)
        )
        rows = (await self._connection.execute(query)).all()
        events = [replace(event, event_id=original_id(event.event_id)) for event in map(to_event, rows)]
        # A revision's counterpart is that of its original.
        fetched_ids = {event.event_id: confirmations.fetched_id(event.event_id) for event in events}
        known = {key[:3] for key in await self.known_ids(fetched_ids.values())}
        return [e for e in events if (fetched_ids[e.event_id], e.processor, e.account) not in known]

    async def quarantined_deliveries(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Up to `limit` deliveries in quarantine after an id; `body` is None where it was erased."""
        return await self._with_bodies(await self.stored_quarantine(after, limit))

    async def stored_quarantine(self, after: int, limit: int) -> list[dict[str, Any]]:
        """The entries of `quarantined_deliveries` as their chain covers them: with sealed bodies."""
        query = select(_quarantine).where(_quarantine.c.id > after).order_by(_quarantine.c.id).limit(limit)
        return [dict(row) for row in (await self._connection.execute(query)).mappings()]

    async def check_quarantined(self, entry: dict[str, Any]) -> None:
        """Raise Integrity unless a stored entry of quarantine is what its chain says."""
        await self._connection.run_sync(check_entry, entry)

    async def quarantine_end(self) -> tuple[int, bytes]:
        """The number of the last record of quarantine's chain, and its digest."""
        return await self._connection.run_sync(read_end)

    async def quarantine_records(self, after: int, limit: int) -> Sequence[dict[str, Any]]:
        """Up to `limit` records of quarantine's chain after a number."""
        return await self._connection.run_sync(read_records, after, limit)

    async def _with_bodies(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        stored = [StoredBody(*(row[name] for name in StoredBody._fields)) for row in rows]
        bodies = await self._connection.run_sync(self._vault.unseal_bodies, stored)
        return [{**row, "body": body or None} for row, body in zip(rows, bodies, strict=True)]

    async def _unseal_rows(self, rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        return await self._connection.run_sync(unseal_rows, self._vault, rows)

    async def quarantine_entries(
        self,
        after: int,
        limit: int,
        *,
        settled: bool = False,
        processor: str | None = None,
        reason: str | None = None,
    ) -> list[dict[str, Any]]:
        """Up to `limit` entries of quarantine after an id, without headers, bodies and proofs.

        Only open entries; with `settled` the settled ones, too.
        """
        columns = [c for c in _quarantine.c if c.name not in ("headers", "body", "proof")]
        query = select(*columns).where(_quarantine.c.id > after).order_by(_quarantine.c.id).limit(limit)
        if not settled:
            query = query.where(_quarantine.c.settled_at_us.is_(None))
        if processor is not None:
            query = query.where(_quarantine.c.processor == processor)
        if reason is not None:
            query = query.where(_quarantine.c.reason == reason)
        return [dict(row._mapping) for row in await self._connection.execute(query)]  # noqa: SLF001

    async def count_quarantined(self) -> dict[tuple[str, str], int]:
        """How many deliveries are open in quarantine, by (processor, reason)."""
        group = (_quarantine.c.processor, _quarantine.c.reason)
        query = select(*group, func.count()).where(_quarantine.c.settled_at_us.is_(None)).group_by(*group)
        return {(row[0], row[1]): row[2] for row in await self._connection.execute(query)}

    async def pending_fetches(self) -> list[PendingFetches]:
        """What waits to be fetched for thin events, of each processor of which anything does."""
        return await self._connection.run_sync(read_pending_fetches)

    async def set_aside_subjects(self, after: str = "", limit: int | None = None) -> list[SetAsideSubject]:
        """The histories that are set aside now; see `read_set_aside`."""
        return await self._connection.run_sync(read_set_aside, after, limit)

    async def set_aside_limits(self) -> dict[str, tuple[int, int]]:
        """The table of histories that are set aside: how far each is read, and which event says so."""
        return {row[0]: (row[1], row[2]) for row in await self._connection.execute(select(_set_aside))}

    async def last_heard(self) -> dict[str, int]:
        """When each processor was last heard: microseconds of its newest event's recording.

        What Daybook makes itself does not count: an erasure, how far a history is read, an accepted loss.
        """
        names = await self._connection.run_sync(recorded_processors)
        recorded = select(_events.c.recorded_at_us).where(
            _events.c.type.not_in(["customer.erased", "ledger.loss_accepted", *READING_TYPES])
        )
        query = recorded.order_by(_events.c.position.desc()).limit(1)
        last = {
            name: (await self._connection.execute(query.where(_events.c.processor == name))).scalar()
            for name in names
        }
        return {name: at_us for name, at_us in last.items() if at_us is not None}


def recorded_processors(connection: Connection) -> list[str]:
    """The processors of all events."""
    return list(connection.execute(text(_SELECT_PROCESSORS)).scalars())


def waiting_processors(connection: Connection) -> list[str]:
    """The processors of all deliveries that are open in quarantine."""
    query = select(_quarantine.c.processor).where(_quarantine.c.settled_at_us.is_(None)).distinct()
    return list(connection.execute(query).scalars())


def _recency(event: Event) -> tuple[bool, datetime, str]:
    return isinstance(event.data, CustomerErased), event.occurred_at, original_id(event.event_id)


# The distinct processors, each found by one step in an index: DISTINCT would read every row.
_SELECT_PROCESSORS = """
    WITH RECURSIVE names (name) AS (
        SELECT min(processor) FROM events
        UNION ALL
        SELECT (SELECT min(processor) FROM events WHERE processor > name) FROM names WHERE name IS NOT NULL
    ) SELECT name FROM names WHERE name IS NOT NULL"""
