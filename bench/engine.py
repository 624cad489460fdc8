"""What an event costs the books: far behind and fresh, in small and large ledgers, on long histories."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from msgspec import Struct

from bench.dataset import NOW, append, books_of, empty_books, ledger_of
from bench.rows import Row, Sizes
from service.books import tables
from service.books.engine import BATCH, Engine
from service.books.store import lay_out_file
from service.bootstrap import open_books, open_ledger, prepare
from service.core.events import Event, Item, Subscription
from service.ledger.append import read_head
from service.ledger.history import read_events
from service.settings import Settings, load
from service.storage.database import books_path, ledger_path, sqlite_engine

FRESH_BATCH = 10
SHORT_HISTORY = 100
_STEP, _WARM_UP = 1_000, 100  # events of one measurement, and before it
_SINGLE = 20  # events, one after another

PLAIN = "the same events decoded, and the books' final rows inserted in as many commits"


def rows(sizes: Sizes, directory: Path) -> Iterator[Row]:
    yield _books_row("books, far behind", "all books, far behind", ledger_of(directory, sizes.events), BATCH)
    fresh = ledger_of(directory, sizes.fresh)
    yield _books_row("books, fresh", f"all books, fresh: batches of {FRESH_BATCH}", fresh, FRESH_BATCH)
    if sizes.large:
        yield _growth_row(sizes, directory)
    yield Row(
        key="a long history",
        name=f"one event on a subscription with {sizes.history:,}",
        units=("ms", "ms, the first after a start"),
        measure=_History(directory, sizes.history).extend,
        baseline=_History(directory, SHORT_HISTORY).extend,
        against=f"one on a subscription with {SHORT_HISTORY}",
    )


def _books_row(key: str, name: str, settings: Settings, batch: int) -> Row:
    count = int(settings.data_dir.name)
    books_of(settings, count)
    plain = _PlainRows(settings=settings, rows=_read_rows(settings), count=count, batch=batch)
    return Row(
        key=key,
        name=f"{name}, {count:,} events",
        units=("events/s",),
        measure=lambda: asyncio.run(_catch_up(settings, count, batch)),
        baseline=plain.rate,
        against=PLAIN,
    )


async def _catch_up(settings: Settings, count: int, batch: int) -> tuple[float]:
    """Events a second, from empty books."""
    ledger, store = open_ledger(settings), await empty_books(settings)
    engine = Engine(ledger, store, lambda: NOW, batch=batch)
    started = time.perf_counter()
    await engine.catch_up(until=count)
    seconds = time.perf_counter() - started
    await store.close()
    await ledger.close()
    return (count / seconds,)


def _read_rows(settings: Settings) -> Mapping[str, Sequence[tuple[object, ...]]]:
    """The rows of all books' tables, by table."""
    engine = sqlite_engine(books_path(settings.data_dir), "look")
    with engine.begin() as connection:
        names = [table.name for table in (*tables.ROWS.values(), *tables.TOTALS.values())]
        found = {
            name: [tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name}")]
            for name in names
        }
    engine.dispose()
    return {name: rows_ for name, rows_ in found.items() if rows_}


class _PlainRows(Struct, frozen=True, kw_only=True):
    """What the books end with, written by SQLite alone."""

    settings: Settings
    rows: Mapping[str, Sequence[tuple[object, ...]]]
    count: int
    batch: int

    def rate(self) -> tuple[float]:
        """Events a second into a fresh file with the same tables and indexes."""
        with TemporaryDirectory(dir=self.settings.data_dir) as directory:
            lay_out_file(Path(directory))
            ledger = sqlite_engine(ledger_path(self.settings.data_dir), "look")
            books = sqlite_engine(books_path(Path(directory)), "write", "NORMAL")
            started = time.perf_counter()
            for start in range(0, self.count, self.batch):
                end = min(start + self.batch, self.count)
                with ledger.begin() as reading:
                    read_events(reading, start, end - start)
                with books.begin() as writing:
                    self._insert(writing.connection.cursor(), start, end)
            seconds = time.perf_counter() - started
            books.dispose()
            ledger.dispose()
        return (self.count / seconds,)

    def _insert(self, cursor, start: int, end: int) -> None:
        """The part of the rows that these events have in all events."""
        for name, all_rows in self.rows.items():
            part = all_rows[len(all_rows) * start // self.count : len(all_rows) * end // self.count]
            if part:
                places = ", ".join("?" * len(part[0]))
                cursor.executemany(f"INSERT INTO {name} VALUES ({places})", part)


def _growth_row(sizes: Sizes, directory: Path) -> Row:
    more = sizes.rounds * (_STEP + _WARM_UP)
    large, small = (ledger_of(directory, count + more) for count in (sizes.large, sizes.fresh))
    books_of(large, sizes.large)
    books_of(small, sizes.fresh)
    return Row(
        key="a large ledger",
        name=f"an event in a ledger of {sizes.large:,}, fresh",
        units=("µs", "µs of CPU"),
        measure=lambda: asyncio.run(_step(large)),
        baseline=lambda: asyncio.run(_step(small)),
        against=f"one in a ledger of {sizes.fresh:,}",
    )


async def _step(settings: Settings) -> tuple[float, float]:
    """Microseconds of each of the next events, and of CPU."""
    ledger, store = open_ledger(settings), open_books(settings)
    engine = Engine(ledger, store, lambda: NOW, batch=FRESH_BATCH)
    position = (await store.read(store.positions)).position + _WARM_UP
    await engine.catch_up(until=position)
    started, cpu = time.perf_counter(), time.process_time()
    await engine.catch_up(until=position + _STEP)
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
    await store.close()
    await ledger.close()
    return seconds / _STEP * 1e6, cpu / _STEP * 1e6


class _History:
    """A subscription with so many events, and more."""

    def __init__(self, directory: Path, count: int) -> None:
        self._settings = load(data_dir=directory / f"history of {count}")
        prepare(self._settings)
        asyncio.run(self._append(count))

    def extend(self) -> tuple[float, float]:
        """The median milliseconds of one more event; those of the first in this process."""
        first, *others = asyncio.run(self._extend())
        return median(others), first

    async def _append(self, count: int) -> None:
        ledger, store = open_ledger(self._settings), await empty_books(self._settings)
        await append(ledger, map(_renewal, range((await ledger.read(read_head)).position, count)))
        await Engine(ledger, store, lambda: NOW).catch_up()
        await store.close()
        await ledger.close()

    async def _extend(self) -> list[float]:
        ledger, store = open_ledger(self._settings), open_books(self._settings)
        engine = Engine(ledger, store, lambda: NOW)
        start, milliseconds = (await ledger.read(read_head)).position, []
        for number in range(start, start + _SINGLE):
            await append(ledger, [_renewal(number)])
            started = time.perf_counter()
            await engine.catch_up()
            milliseconds.append((time.perf_counter() - started) * 1e3)
        await store.close()
        await ledger.close()
        return milliseconds


def _renewal(number: int) -> Event:
    """An event of every hour; the price changes every thirty days."""
    moment = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    data = Subscription(
        subscription_id="sub_long",
        customer_id="cus_long",
        status="active",
        currency="usd",
        next_bill_at=moment + timedelta(days=30),
        items=(Item(interval="month", unit_amount=4_900 + number // 720),),
    )
    return Event(processor="stripe", event_id=f"evt_long_{number}", occurred_at=moment, data=data)
