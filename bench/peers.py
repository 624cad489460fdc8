"""Daybook beside others: the package `eventsourcing`, and a mirror of Stripe's objects.

They do less, each in its own way, and the rows say what they leave out.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import Tracking
from eventsourcing.sqlite import SQLiteDatastore, SQLiteTrackingRecorder

from bench import load
from bench.costs import incoming
from bench.dataset import NOW, empty_books
from bench.ingest import send
from bench.processes import process, wait_open, web
from bench.rows import Row, Sizes
from service.books.engine import Engine
from service.bootstrap import open_ledger, prepare
from service.settings import Settings
from service.settings import load as load_settings
from tests.support.ports import free_port

CONNECTIONS = 32
_SECTION = 100  # events that are read at a time
_numbers = count()  # of directories and of rounds


def rows(sizes: Sizes, directory: Path) -> Iterator[Row]:
    if not sizes.appended:
        return
    daybook, peer = _Daybook(directory / "daybook"), _Eventsourcing(directory / "eventsourcing")
    yield Row(
        key="append (eventsourcing)",
        name="events appended one by one, each on disk (SQLite)",
        units=("events/s",),
        measure=partial(daybook.append, sizes.appended),
        baseline=partial(peer.append, sizes.appended),
        against="`eventsourcing`: no ids of deliveries, digests, chain or sealed data",
    )
    yield Row(
        key="books (eventsourcing)",
        name="all books, a commit for each event",
        units=("events/s",),
        measure=partial(daybook.project, sizes.appended),
        baseline=partial(peer.project, sizes.appended),
        against="`eventsourcing`: a projection of one row, which adds an amount, on disk",
    )
    yield from _mirror_rows(sizes, directory)


def _mirror_rows(sizes: Sizes, directory: Path) -> Iterator[Row]:
    port, mirror_port = free_port(), free_port()
    settings = {
        "DAYBOOK_DATA_DIR": str(directory / "beside a mirror"),
        "DAYBOOK_STRIPE_WEBHOOK_SECRETS": load.SECRET,
    }
    with ExitStack() as stack:
        stack.enter_context(web(port, settings))
        mirror = ["-m", "bench.mirror", str(mirror_port), str(directory / "mirror.db")]
        stack.enter_context(process(mirror, {}))
        wait_open(mirror_port)
        yield Row(
            key="webhooks (a mirror)",
            name=f"webhooks on disk (SQLite), {CONNECTIONS} connections",
            units=("webhooks/s", "ms, p99"),
            measure=partial(send, port, sizes.webhooks, CONNECTIONS),
            baseline=partial(send, mirror_port, sizes.webhooks, CONNECTIONS),
            against="a mirror: a commit for each upsert of an object; no events, order or books",
        )


class _Daybook:
    """Appends deliveries to its ledger, and folds as many events of it into empty books."""

    def __init__(self, directory: Path) -> None:
        self._settings: Settings = load_settings(data_dir=directory)
        prepare(self._settings)

    def append(self, number: int) -> tuple[float]:
        return asyncio.run(self._append(number))

    def project(self, number: int) -> tuple[float]:
        return asyncio.run(self._project(number))

    async def _append(self, number: int) -> tuple[float]:
        deliveries = incoming(next(_numbers) * number, number)
        ledger = open_ledger(self._settings)
        started = time.perf_counter()
        for delivery in deliveries:
            await ledger.append([delivery], NOW)
        seconds = time.perf_counter() - started
        await ledger.close()
        return (number / seconds,)

    async def _project(self, number: int) -> tuple[float]:
        ledger, store = open_ledger(self._settings), await empty_books(self._settings)
        started = time.perf_counter()
        await Engine(ledger, store, lambda: NOW, batch=1).catch_up(until=number)
        seconds = time.perf_counter() - started
        await store.close()
        await ledger.close()
        return (number / seconds,)


class _Eventsourcing:
    """The same with `eventsourcing`. Its SQLite has no subscriptions, so the events are read in sections."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self._directory = directory
        environment = {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": str(directory / "events.db"),
        }
        self._app = Application[UUID](environment)

    def append(self, number: int) -> tuple[float]:
        bodies = [load.event(n).decode() for n in range(number)]
        started = time.perf_counter()
        for body in bodies:
            self._app.save(_Subscription(body))
        return (number / (time.perf_counter() - started),)

    def project(self, number: int) -> tuple[float]:
        view = _Mrr(SQLiteDatastore(str(self._directory / f"view {next(_numbers)}.db")))
        view.create_table()
        started = time.perf_counter()
        for start in range(1, number + 1, _SECTION):
            for notification in self._app.recorder.select_notifications(start, _SECTION):
                self._app.mapper.to_domain_event(notification)
                view.add(4_900, Tracking(self._app.name, notification.id))
        return (number / (time.perf_counter() - started),)


class _Subscription(Aggregate):
    @event("Recorded")
    def __init__(self, body: str) -> None:
        self.body = body


class _Mrr(SQLiteTrackingRecorder):
    """One row, and how far it has come."""

    def construct_create_table_statements(self) -> list[str]:
        table = "CREATE TABLE IF NOT EXISTS mrr (currency TEXT PRIMARY KEY, cents INTEGER)"
        return [*super().construct_create_table_statements(), table]

    def add(self, cents: int, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(
                "INSERT INTO mrr VALUES ('usd', ?) ON CONFLICT DO UPDATE SET cents = cents + excluded.cents",
                (cents,),
            )
