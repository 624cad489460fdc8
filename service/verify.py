"""Verification: the chain, the totals against their rows, the books against a replay."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from operator import attrgetter, itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec.structs import fields
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book, Row, Rules, Total
from service.books.digest import added_up, digest
from service.books.engine import Engine
from service.books.store import BookStore, lay_out_file
from service.books.tables import ROWS
from service.clock import utc_now
from service.core.errors import Integrity, SettingsError
from service.core.events import subjects
from service.database import SqliteDatabase, books_path, ledger_path
from service.ledger import chain
from service.ledger.draft import Head
from service.ledger.history import FOLDED, event_of
from service.ledger.store import Ledger, LedgerReader
from service.settings import Settings
from service.stores import open_books, open_ledger

_PAGE = 1_000
_MOMENT_SECONDS = 10.0  # how long to wait for a moment at which no worker is behind another
_LOOK_SECONDS = 0.02
_ID_COLUMNS = ("event_id", "processor", "account", "position", "content_digest")


async def verify_all(settings: Settings) -> list[str]:
    """Every check, in order; a line for each that holds.

    Raises Integrity at the first fault, SettingsError if there is no ledger to check.
    """
    if not settings.database_url and not ledger_path(settings.data_dir).exists():
        raise SettingsError(f"there is no ledger in {settings.data_dir} (DAYBOOK_DATA_DIR)")
    ledger, store = open_ledger(settings), open_books(settings)
    try:
        events = await verify_chain(ledger)
        position, books = await verify_replay(ledger, store)
        await verify_totals(store)
    finally:
        await store.close()
        await ledger.close()
    return [
        f"chain: {events} events, unbroken",
        *(f"{name}: equal to a replay, {value}" for name, value in books.items()),
        "totals: equal to their rows",
        f"lag: {events - position} events",
    ]


async def verify_chain(ledger: Ledger) -> int:
    """Recompute every link, every raw delivery's digest and the index of histories; how many events."""
    previous, position, indexed = chain.GENESIS, 0, 0
    async with ledger.reading() as reader:
        while rows := await reader.stored_rows(position, _PAGE):
            for row in rows:
                position += 1
                chain.check(previous, position, row)
                previous = row["digest"]
                if row["delivery"] == position:
                    raw = await reader.stored_delivery(position)
                    found = chain.delivery_digest(raw["headers"], raw["body"], raw["proof"])
                    if found != row["delivery_digest"]:
                        raise Integrity(f"the raw delivery at position {position} was changed")
            indexed += await _verify_subjects(reader, rows)
            await _verify_ids(reader, rows)
        if await reader.head() != Head(position=position, digest=previous):
            raise Integrity(f"the ledger's head is not the event at position {position}")
        if position != await reader.ids_count():
            raise Integrity("the index of ids holds entries that no event makes")
        if indexed != await reader.subjects_count():
            raise Integrity("the index of histories holds entries that no event makes")
    return position


async def _verify_subjects(reader: LedgerReader, rows: list[dict[str, Any]]) -> int:
    expected = {
        (name, row["position"])
        for row in rows
        for name in subjects(event_of([row[column.name] for column in FOLDED]))
    }
    if missing := expected - await reader.indexed({name for name, _ in expected}):
        raise Integrity(f"the index of histories lacks {min(missing, key=itemgetter(1))}")
    return len(expected)


async def _verify_ids(reader: LedgerReader, rows: list[dict[str, Any]]) -> None:
    expected = {tuple(row[name] for name in _ID_COLUMNS) for row in rows}
    if missing := expected - await reader.ids(row["event_id"] for row in rows):
        raise Integrity(f"the index of ids lacks {min(missing)[:4]}")


async def verify_totals(store: BookStore) -> None:
    """Add up every row again and compare the totals."""
    async with store.reading() as connection:
        marks = await connection.run_sync(store.marks)
        for book in store.books:
            for total in book.totals:
                await _verify_total(connection, total, marks.books[book.name])


async def _verify_total(connection: AsyncConnection, total: Total, book_id: int) -> None:
    group = attrgetter(*total.by)
    sums: dict[Any, list[int]] = defaultdict(lambda: [0] * len(total.sums))
    async for row in _rows(connection, total.of, book_id):
        for part in total.parts(row):
            into = sums[group(part)]
            for i, value in enumerate(total.measure(part)):
                into[i] += value
    for stored in await connection.execute(added_up(total, book_id)):
        expected = sums.pop(group(stored), [0] * len(total.sums))
        if [getattr(stored, name) for name in total.sums] != expected:
            raise Integrity(f"{total.table} {group(stored)} is not the sum of its rows")
    if missing := [key for key, values in sums.items() if any(values)]:
        raise Integrity(f"{total.table} lacks {missing[0]}")


async def _rows(connection: AsyncConnection, row_type: type[Row], book_id: int) -> AsyncIterator[Row]:
    table, names = ROWS[row_type], [f.name for f in fields(row_type)]
    query = select(*(table.c[name] for name in names)).where(table.c.book == book_id)
    async for values in await connection.stream(query):
        yield row_type(**dict(zip(names, values, strict=True)))


async def verify_replay(ledger: Ledger, store: BookStore) -> tuple[int, dict[str, str]]:
    """Replay the log into books of its own and compare digests; the position, and each book's digest."""
    deadline = time.monotonic() + _MOMENT_SECONDS
    while (found := await _at_one_position(store)) is None:
        if time.monotonic() > deadline:
            raise Integrity("the books of these settings are not all at one position; is the worker running?")
        await asyncio.sleep(_LOOK_SECONDS)
    position, live = found
    with TemporaryDirectory(prefix="daybook-replay-") as directory:
        replayed = await replay(ledger, store.rules, Path(directory), store.books, position)
    for name, value in live.items():
        if replayed[name] != value:
            raise Integrity(f"book {name} differs from its replay: {value} is not {replayed[name]}")
    return position, live


async def _at_one_position(store: BookStore) -> tuple[int, dict[str, str]] | None:
    """The position of all books and partitions, and the digests; None while they are at several."""
    async with store.reading() as connection:
        marks = await connection.run_sync(store.marks)
        reached = await connection.run_sync(lambda view: store.checkpoints(view, marks.books))
        if len(marks.books) < len(store.books) or len(set(reached.values())) > 1:
            return None
        return marks.position, {
            book.name: await digest(connection, book, marks.books[book.name]) for book in store.books
        }


async def replay(
    ledger: Ledger, rules: Rules, directory: Path, books: tuple[Book, ...], until: int | None = None
) -> dict[str, str]:
    """The digests of books made from the log alone, in an empty directory."""
    lay_out_file(directory)
    store = BookStore(SqliteDatabase(books_path(directory), "NORMAL"), rules, books)
    try:
        await store.register()
        await Engine(ledger, store, utc_now).catch_up(until)
        return await digests(store)
    finally:
        await store.close()


async def digests(store: BookStore) -> dict[str, str]:
    """The digest of each book as it stands."""
    async with store.reading() as connection:
        marks = await connection.run_sync(store.marks)
        return {book.name: await digest(connection, book, marks.books[book.name]) for book in store.books}
