"""The status for operators: which worker holds which partition, and how far its books are."""

from datetime import datetime
from functools import partial

from msgspec import Struct
from sqlalchemy import Connection, func, select

from service.books.leases import WORKER_TIMEOUT
from service.books.store import BookStore
from service.books.tables import leases, workers
from service.bootstrap import open_books, open_ledger
from service.core.moments import rfc3339
from service.intake.versions import find_due
from service.ledger.append import read_head
from service.ledger.fetches import read_pending_fetches
from service.ledger.set_aside import count_set_aside
from service.ledger.store import Ledger
from service.processes.lifeline import is_worker_running
from service.settings import Settings
from service.verify.files import named_if_unreadable


class Partition(Struct, frozen=True, kw_only=True):
    """One partition: its worker, None if no worker holds it, and each book's lag in events."""

    partition: int
    worker: str | None
    lag_events: dict[str, int]


class Status(Struct, frozen=True, kw_only=True):
    """The ledger's end, when each living worker was last seen, and the partitions.

    Workers hold leases only where there can be many, on PostgreSQL; elsewhere none is listed.
    `worker_runs` says whether any worker does, in both. `retranslation_due` are the processors whose
    deliveries an older version translated, `pending_fetches` counts the thin events that wait for what they
    name, by processor, and `set_aside_histories` those of which the last events are not read.
    """

    position: int
    retranslation_due: list[str]
    pending_fetches: dict[str, int]
    set_aside_histories: int
    leased: bool
    worker_runs: bool
    workers: dict[str, str]
    partitions: list[Partition]


async def find_status(settings: Settings) -> Status:
    """The present status. Raises SQLAlchemy's errors if a store can't be read, Fault if a value can't."""
    ledger, store = open_ledger(settings), open_books(settings)
    try:
        with named_if_unreadable(settings):
            return await read_status(ledger, store, settings)
    finally:
        await store.close()
        await ledger.close()


async def read_status(ledger: Ledger, store: BookStore, settings: Settings) -> Status:
    """The status from open stores of these settings."""
    position = (await ledger.read(read_head)).position
    due = await ledger.read(partial(find_due, vault=ledger.vault))
    pending = {each.processor: each.count for each in await ledger.read(read_pending_fetches)}

    set_aside = await ledger.read(count_set_aside)

    def find(connection: Connection) -> Status:
        living = _living_workers(connection) if store.partitions > 1 else {}
        holders: dict[int, str | None] = dict(
            connection.execute(select(leases.c.partition, leases.c.worker)).all()
        )
        positions = store.checkpoints(connection, store.positions(connection).books)
        lags: dict[int, dict[str, int]] = {}
        for (book, partition), book_position in sorted(positions.items()):
            lags.setdefault(partition, {})[book] = max(position - book_position, 0)
        return Status(
            position=position,
            retranslation_due=due,
            pending_fetches=pending,
            set_aside_histories=set_aside,
            leased=store.partitions > 1,
            worker_runs=bool(living) if store.partitions > 1 else is_worker_running(settings.data_dir),
            workers={name: rfc3339(seen_at) for name, seen_at in sorted(living.items())},
            partitions=[
                Partition(
                    partition=partition,
                    worker=holder if (holder := holders.get(partition)) in living else None,
                    lag_events=lag,
                )
                for partition, lag in sorted(lags.items())
            ],
        )

    return await store.read(find)


def _living_workers(connection: Connection) -> dict[str, datetime]:
    """The living workers by name, with the time at which each was last seen."""
    is_alive = workers.c.seen_at > func.clock_timestamp() - WORKER_TIMEOUT
    return dict(connection.execute(select(workers.c.name, workers.c.seen_at).where(is_alive)).all())
