"""Events a second through the books, behind and fresh, against SQLite taking the same events as rows."""

import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import json

from bench.ledgers import NOW, Bench, bench_ledger, lives, subscription_event
from projections import BOOKS
from projections.book import Book
from projections.mrr import MRR
from service.books.engine import Engine

COUNT = 20_000
SUBSCRIPTIONS = 5_000
LONG_HISTORY = 10_000


async def measure() -> list[dict[str, str]]:
    async with bench_ledger() as bench:
        events = lives(COUNT, SUBSCRIPTIONS)
        await bench.append(events)
        rates = [_baseline(bench.directory / f"{batch}.db", batch) for batch in (1_000, 10)]
        base = dict(zip((1_000, 10), rates, strict=True))
        table_rows = [
            _row(f"plain rows in batches of {batch} (baseline)", rate, rate) for batch, rate in base.items()
        ]
        for batch in (1_000, 10):
            for label, books in (("all books", BOOKS), ("the MRR book alone", (MRR,))):
                rate = await _advance(bench, books, batch, COUNT if batch == 1_000 else 4_000)
                table_rows.append(_row(f"{label}, batches of {batch}", rate, base[batch]))
    async with bench_ledger() as bench:
        table_rows.append(await _long_history(bench))
    return table_rows


async def _advance(bench: Bench, books: tuple[Book, ...], batch: int, count: int) -> float:
    """From empty books to `count` events."""
    store = await bench.store(books)
    engine = Engine(bench.ledger, store, lambda: NOW, batch=batch)
    started = time.perf_counter()
    done = await engine.catch_up(until=count)
    seconds = time.perf_counter() - started
    await store.close()
    return done / seconds


def _baseline(path: Path, batch: int) -> float:
    """The same events decoded and inserted as rows with one index, committed in the same batches."""
    rows = [
        (event.event_id, json.encode(event.data))
        for event in lives(COUNT if batch == 1_000 else 4_000, SUBSCRIPTIONS)
    ]
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, event TEXT UNIQUE, data BLOB)")
    started = time.perf_counter()
    for start in range(0, len(rows), batch):
        connection.execute("BEGIN IMMEDIATE")
        part = [(key, json.encode(json.decode(data))) for key, data in rows[start : start + batch]]
        connection.executemany("INSERT INTO rows (event, data) VALUES (?, ?)", part)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    return len(rows) / seconds


async def _long_history(bench: Bench) -> dict[str, str]:
    """The cost of one more event for a subscription that has ten thousand."""
    start = datetime(2020, 1, 1, tzinfo=UTC)
    await bench.append(
        subscription_event(n, "long", 4_900 + n % 3, start + timedelta(hours=n)) for n in range(LONG_HISTORY)
    )
    store = await bench.store()
    engine = Engine(bench.ledger, store, lambda: NOW)
    await engine.catch_up()
    await bench.append(
        [subscription_event(LONG_HISTORY, "long", 9_900, start + timedelta(hours=LONG_HISTORY))]
    )
    started = time.perf_counter()
    await engine.catch_up()
    milliseconds = (time.perf_counter() - started) * 1_000
    await store.close()
    return {
        "what": f"one event on a subscription with {LONG_HISTORY:,}",
        "events/s": f"{milliseconds:,.0f} ms",
        "ratio": "",
    }


def _row(label: str, rate: float, base: float) -> dict[str, str]:
    return {"what": label, "events/s": f"{rate:,.0f}", "ratio": f"{rate / base:.2f}"}
