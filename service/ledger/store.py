"""The ledger: appending to it, one transaction at a time, and opening it to be read."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import TypeVar

from msgspec import json
from sqlalchemy import Connection, select, update

from service.core.delivery import Proof
from service.core.events import Event, subjects
from service.core.moments import to_us
from service.ledger import tables
from service.ledger.append import append_deliveries, lock_head
from service.ledger.cursors import save_cursor
from service.ledger.draft import Head, Incoming, Outcome
from service.ledger.fetches import claim_fetch, remove_fetch, request_fetches
from service.ledger.quarantine_chain import append_records, check_entry
from service.ledger.reader import LedgerReader
from service.ledger.set_aside import lifting_events, set_aside_events
from service.ledger.vault import Vault
from service.ledger.witness import Guard, Reconnected
from service.storage.database import Database

T = TypeVar("T")

_ids = tables.EventId.__table__  # type: ignore[attr-defined]
_quarantine = tables.Quarantine.__table__  # type: ignore[attr-defined]


class Ledger:
    """The ledger in one database. Close it, or the process hangs at its end.

    With a `guard`, nothing is appended to a ledger that lacks what was acknowledged: LostEvents is raised.
    """

    def __init__(self, database: Database, vault: Vault, guard: Guard | None = None) -> None:
        self._database = database
        self._guard = guard
        self.vault = vault

    async def close(self) -> None:
        """Close every connection."""
        await self._database.close()

    async def append(
        self, batch: Sequence[Incoming], now: datetime, progress: tuple[str, bytes] | None = None
    ) -> list[Outcome]:
        """Append a batch of deliveries in one durable transaction, all of it or nothing.

        With it goes the `progress` of a long task: the name of its cursor, and the body. Raises SQLAlchemy's
        errors as they are; the caller answers 503.
        """

        def work(connection: Connection, head: Head) -> list[Outcome]:
            outcomes = append_deliveries(connection, head, batch, to_us(now), self.vault)
            if progress:
                save_cursor(connection, self.vault, *progress, now)
            return outcomes

        return await self._append(work)

    async def retry(self, quarantine_id: int, incoming: Incoming, now: datetime) -> Outcome:
        """Append a delivery from quarantine, and settle it there, in one durable transaction.

        What a thin event names is fetched again, though the ledger has it already.
        """

        def work(connection: Connection, head: Head) -> list[Outcome]:
            outcomes = append_deliveries(connection, head, [incoming], to_us(now), self.vault)
            request_fetches(connection, incoming.events, now)
            _settle(connection, [quarantine_id], "retried", None, now)
            return outcomes

        (outcome,) = await self._append(work)
        return outcome

    async def set_aside(
        self, first_unread: Mapping[str, int], book: str, error: str, now: datetime
    ) -> list[str]:
        """Have these histories not read from the event at their position on, in one durable transaction.

        `book` could not be made from them, for an `error` of this type. Returns the names of those that were
        read further until now.
        """

        def make(connection: Connection, position: int) -> list[Event]:
            return set_aside_events(connection, first_unread, book, error, position, now)

        return await self._append_own(make, "worker", now)

    async def lift(self, names: Iterable[str], now: datetime) -> list[str]:
        """Have histories that are set aside read to their ends again; the names of those that were."""

        def make(connection: Connection, position: int) -> list[Event]:
            return lifting_events(connection, names, position, now)

        return await self._append_own(make, "operator", now)

    async def _append_own(
        self, make: Callable[[Connection, int], list[Event]], method: str, now: datetime
    ) -> list[str]:
        """Append events that Daybook makes itself, each as a delivery of its own; their histories' names.

        `make` gives them for the position of the first.
        """
        events: list[Event] = []

        def work(connection: Connection, head: Head) -> list[Outcome]:
            events[:] = make(connection, head.position + 1)
            deliveries = [
                Incoming(
                    events=[event],
                    content_digest=sha256(event.event_id.encode()).digest(),
                    headers=b"{}",
                    body=json.encode(event),
                    proof=Proof(processor=event.processor, method=method, received_at=now, trust=event.trust),
                )
                for event in events
            ]
            return append_deliveries(connection, head, deliveries, to_us(now), self.vault)

        await self._append(work)
        return [subjects(event)[0] for event in events]

    async def claim_fetch(self, processor: str, now: datetime) -> str | None:
        """The id of a thin event of which what it names is to be fetched now; see `claim_fetch`."""
        return await self._database.write(partial(claim_fetch, processor=processor, now=now))

    async def finish_fetch(
        self, processor: str, event_id: str, fetched: Sequence[Incoming], now: datetime
    ) -> list[Outcome]:
        """Append what was fetched for a thin event, which is done then, in one durable transaction."""

        def work(connection: Connection, head: Head) -> list[Outcome]:
            outcomes = append_deliveries(connection, head, fetched, to_us(now), self.vault) if fetched else []
            remove_fetch(connection, processor, event_id)
            return outcomes

        return await self._append(work)

    async def _append(self, work: Callable[[Connection, Head], list[Outcome]]) -> list[Outcome]:
        """Run the work of an append; see `_write_in_turn`."""
        outcomes = await self._write_in_turn(work)
        if self._guard:
            self._guard.acknowledge(max((outcome.end for outcome in outcomes), default=0))
        return outcomes

    async def _write_in_turn(self, work: Callable[[Connection, Head], T]) -> T:
        """Run work after the head, in its turn. Where there is a guard, it must find that nothing is lost."""
        guard, connections = self._guard, self._database.connections

        def write(connection: Connection) -> T:
            head = lock_head(connection)
            if guard:
                guard.check_append(head, connections.number)
            return work(connection, head)

        if guard is None:
            return await self._database.write(write)
        try:
            return await self._database.write(write)
        except Reconnected:
            witnesses = await guard.witnesses()
            compare = partial(guard.compare_all, witnesses=witnesses, vault=self.vault)
            await self._database.write(lambda c: compare(c, connection_number=connections.number))
            return await self._database.write(write)

    async def dismiss(self, quarantine_ids: Sequence[int], reason: str, now: datetime) -> set[int]:
        """Settle deliveries in quarantine without reading them; return the ids that were open until now."""

        def work(connection: Connection, _head: Head) -> set[int]:
            return _settle(connection, quarantine_ids, "dismissed", reason, now)

        return await self._write_in_turn(work)

    async def save_cursor(self, name: str, body: bytes, now: datetime) -> None:
        """Save the progress of a long task, in place of the last one under this name."""
        await self._database.write(partial(save_cursor, vault=self.vault, name=name, body=body, now=now))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[LedgerReader]:
        """A consistent view of the ledger as it is now."""
        async with self._database.reading() as connection:
            yield LedgerReader(connection, self.vault)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """The result of a plain function that runs in one read transaction, in a thread."""
        return await self._database.read(query)


def _settle(
    connection: Connection, ids: Sequence[int], settled_as: str, reason: str | None, now: datetime
) -> set[int]:
    """Settle the open ones of these deliveries in quarantine, in the transaction's turn; return their ids.

    Raises Integrity if one of them is not what the chain of quarantine says.
    """
    are_open = (_quarantine.c.id.in_(ids), _quarantine.c.settled_at_us.is_(None))
    for entry in connection.execute(select(_quarantine).where(*are_open)).mappings():
        check_entry(connection, entry)
    settle = (
        update(_quarantine)
        .where(*are_open)
        .values(settled_at_us=to_us(now), settled_as=settled_as, settled_because=reason)
        .returning(_quarantine)
    )
    settled = connection.execute(settle).mappings().all()
    append_records(connection, settled)
    return {entry["id"] for entry in settled}
