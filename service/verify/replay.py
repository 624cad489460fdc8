"""The live books against a replay of the log into books of their own.

A book is what its partitions have taken in: the events of each up to its own position, whoever was first. So
workers may be at several positions, and go on: the replay stops in each partition where the live one stood.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book, Rules
from service.books.digest import RowDifference, differences, digest
from service.books.engine import BATCH, Engine
from service.books.store import BookStore, lay_out_file
from service.clock import utc_now
from service.ledger.store import Ledger
from service.storage.database import SqliteDatabase, books_path
from service.verify.fault import Fault, Where, differing
from service.verify.ledger import Done, quietly

_ROUNDS = 10  # after the events that came meanwhile: the view of the live books should be a short one

Reached = Mapping[tuple[str, int], int]  # the position of each (book, partition)
Fill = Callable[[BookStore, int], Awaitable[None]]  # brings empty books to a position
_Opened = Callable[[Sequence[Book]], BookStore]


class _Held:
    """Some partitions of a store that nobody else writes."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.fences = dict.fromkeys(partitions, 0)

    def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        """Nobody else is there."""


async def verify_replay(
    ledger: Ledger, store: BookStore, fill: Fill | None = None, done: Done = quietly
) -> tuple[int, dict[str, str]]:
    """Replay the log and compare; the position that all books hold, and each one's digest.

    `fill` does most of it at once where it is given, and the engine the rest; `done` hears how many events
    that were. Raises Fault at the first row or total that differs.
    """
    with TemporaryDirectory(prefix="daybook-replay-") as directory:
        async with _scratch(Path(directory)) as database:
            replayed = partial(BookStore, database, store.rules, partitions=store.partitions)
            await replayed(store.books).register()
            if fill and (position := min((await _read_reached(store)).values())):
                await fill(replayed(store.books), position)
            for _ in range(_ROUNDS):
                if await _advance(ledger, replayed, store.books, await _read_reached(store), done) <= BATCH:
                    break
            async with store.reading() as live:
                reached = await live.run_sync(lambda view: reached_by(view, store))
                await _advance(ledger, replayed, store.books, reached, done)
                digests = await compare(live, store, replayed(store.books))
    return min(reached.values()), digests


@asynccontextmanager
async def _scratch(directory: Path) -> AsyncIterator[SqliteDatabase]:
    """A database for books of no layout but their own, in an empty directory."""
    lay_out_file(directory)
    database = SqliteDatabase(books_path(directory), "NORMAL")
    try:
        yield database
    finally:
        await database.close()


async def _read_reached(store: BookStore) -> Reached:
    async with store.reading() as connection:
        return await connection.run_sync(lambda view: reached_by(view, store))


def reached_by(connection: Connection, store: BookStore) -> Reached:
    """How far each partition of each book is. Raises Fault if one of the books is not there."""
    positions = store.positions(connection)
    if missing := sorted({book.name for book in store.books} - set(positions.books)):
        said = f"the books of these settings are not all there: {', '.join(missing)}; is the worker running?"
        raise Fault(said, Where(table="books"))
    return store.checkpoints(connection, positions.books)


async def _advance(
    ledger: Ledger, opened: _Opened, books: Sequence[Book], reached: Reached, done: Done
) -> int:
    """Bring each partition of each book to the position given; how many events that took."""
    count = await _catch_up(Engine(ledger, opened(books), utc_now), min(reached.values()), done)
    for book in books:
        parts = sorted((at, part) for (name, part), at in reached.items() if name == book.name)
        for position, same in groupby(parts, key=itemgetter(0)):
            holding = _Held(part for _, part in same)
            count += await _catch_up(Engine(ledger, opened((book,)), utc_now, holding), position, quietly)
    return count


async def _catch_up(engine: Engine, until: int, done: Done) -> int:
    total = 0
    while advanced := await engine.advance(until):
        done(advanced)
        total += advanced
    return total


async def compare(live: AsyncConnection, store: BookStore, replayed: BookStore) -> dict[str, str]:
    """The digests of the live books in this view. Raises Fault if they are not those of the replayed ones."""
    ids, digests = (await live.run_sync(store.positions)).books, {}
    async with replayed.reading() as other:
        other_ids = (await other.run_sync(replayed.positions)).books
        for book in store.books:
            # At once: PostgreSQL ends a transaction that says nothing for a minute.
            digests[book.name], expected = await asyncio.gather(
                digest(live, book, ids[book.name]), digest(other, book, other_ids[book.name])
            )
            if digests[book.name] != expected:
                found = await differences(book, (live, ids[book.name]), (other, other_ids[book.name]), 1)
                raise _fault(book, found)
    return digests


def _fault(book: Book, found: list[RowDifference]) -> Fault:
    said = f"book {book.name} differs from its replay"
    if not found:  # it was written while it was read
        return Fault(said, Where(table=book.name))
    first = found[0]
    names = list((first.left or first.right)[0])
    stand, wanted = (map(tuple, (row.values() for row in side)) for side in (first.left, first.right))
    where = Where(table=first.table, key=first.key, columns=differing(names, stand, wanted))
    return Fault(f"{said}: {first.table}, key {first.key}", where)


async def replay(
    ledger: Ledger, rules: Rules, directory: Path, books: tuple[Book, ...], until: int | None = None
) -> dict[str, str]:
    """The digests of books made from the log alone, in an empty directory."""
    async with _scratch(directory) as database:
        store = BookStore(database, rules, books)
        await store.register()
        await Engine(ledger, store, utc_now).catch_up(until)
        return await digests(store)


async def digests(store: BookStore) -> dict[str, str]:
    """The digest of each book as it stands."""
    async with store.reading() as connection:
        positions = await connection.run_sync(store.positions)
        return {book.name: await digest(connection, book, positions.books[book.name]) for book in store.books}
