"""The live books compared with a replay of the ledger into books of their own.

Each partition of a book contains the events of its histories up to its own position. So workers may be at
several positions, and go on meanwhile: the replay brings each partition to the live one's position.
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
from service.books.engine import Engine
from service.books.store import BookStore, lay_out_file
from service.clock import utc_now
from service.core.progress import Advance, no_advance
from service.ledger.store import Ledger
from service.storage.database import SqliteDatabase, books_path
from service.verify.fault import Fault, Location, differing_columns

_FEW_EVENTS = 1_000
_ROUNDS = 10  # of catching up with new events first, so that the view of the live books is a short one

PartitionPositions = Mapping[tuple[str, int], int]  # the position of each (book, partition)
Fill = Callable[[BookStore, int], Awaitable[None]]  # brings empty books to a position
_OpenStore = Callable[[Sequence[Book]], BookStore]


class HeldPartitions:
    """Some partitions of a store that no other process writes."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.fences = dict.fromkeys(partitions, 0)

    def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        """Do nothing: there is no other writer."""


async def verify_replay(
    ledger: Ledger, store: BookStore, fill: Fill | None = None, advance: Advance = no_advance
) -> tuple[int, dict[str, str]]:
    """Replay the ledger and compare; the position that all books have reached, and the digest of each.

    `fill`, if given, brings the books to that position, and the engine further; `advance` is called with the
    engine's numbers of events. Raises Fault at the first row or total that differs.
    """
    with TemporaryDirectory(prefix="daybook-replay-") as directory:
        async with _temporary_database(Path(directory)) as database:
            replayed = partial(BookStore, database, store.rules, partitions=store.partitions)
            await replayed(store.books).register()
            if fill and (position := min((await _current_positions(store)).values())):
                await fill(replayed(store.books), position)
            for _ in range(_ROUNDS):
                positions = await _current_positions(store)
                if await _advance(ledger, replayed, store.books, positions, advance) <= _FEW_EVENTS:
                    break
            async with store.reading() as live:
                positions = await live.run_sync(lambda view: read_positions(view, store))
                await _advance(ledger, replayed, store.books, positions, advance)
                digests = await compare_books(live, store, replayed(store.books))
    return min(positions.values()), digests


@asynccontextmanager
async def _temporary_database(directory: Path) -> AsyncIterator[SqliteDatabase]:
    """A new books' database in an empty directory."""
    lay_out_file(directory)
    database = SqliteDatabase(books_path(directory), "NORMAL")
    try:
        yield database
    finally:
        await database.close()


async def _current_positions(store: BookStore) -> PartitionPositions:
    async with store.reading() as connection:
        return await connection.run_sync(lambda view: read_positions(view, store))


def read_positions(connection: Connection, store: BookStore) -> PartitionPositions:
    """The position of each partition of each book. Raises Fault if one of the books is missing."""
    ids = store.positions(connection).books
    if missing := sorted({book.name for book in store.books} - set(ids)):
        message = (
            f"the books of these settings are not all there: {', '.join(missing)}; is the worker running?"
        )
        raise Fault(message, Location(table="books"))
    return store.checkpoints(connection, ids)


async def _advance(
    ledger: Ledger,
    open_store: _OpenStore,
    books: Sequence[Book],
    positions: PartitionPositions,
    advance: Advance,
) -> int:
    """Bring each partition of each book to the given position; the number of events."""
    count = await _catch_up(Engine(ledger, open_store(books), utc_now), min(positions.values()), advance)
    for book in books:
        parts = sorted((position, part) for (name, part), position in positions.items() if name == book.name)
        for position, group in groupby(parts, key=itemgetter(0)):
            held = HeldPartitions(part for _, part in group)
            count += await _catch_up(Engine(ledger, open_store((book,)), utc_now, held), position, no_advance)
    return count


async def _catch_up(engine: Engine, until: int, advance: Advance) -> int:
    total = 0
    while advanced := await engine.advance(until):
        advance(advanced)
        total += advanced
    return total


async def compare_books(live: AsyncConnection, store: BookStore, replayed: BookStore) -> dict[str, str]:
    """The digests of the live books in this view. Raises Fault if the replayed books have other digests."""
    live_ids, digests = (await live.run_sync(store.positions)).books, {}
    async with replayed.reading() as replay:
        replay_ids = (await replay.run_sync(replayed.positions)).books
        for book in store.books:
            # Both at the same time: PostgreSQL ends a transaction that is idle for a minute.
            digests[book.name], expected = await asyncio.gather(
                digest(live, book, live_ids[book.name]), digest(replay, book, replay_ids[book.name])
            )
            if digests[book.name] != expected:
                sides = (live, live_ids[book.name]), (replay, replay_ids[book.name])
                raise _fault(book, await differences(book, *sides, 1))
    return digests


def _fault(book: Book, row_differences: list[RowDifference]) -> Fault:
    message = f"book {book.name} differs from its replay"
    if not row_differences:  # the book was written while it was read
        return Fault(message, Location(table=book.name))
    first = row_differences[0]
    names = list((first.left or first.right)[0])
    stored, expected = (map(tuple, (row.values() for row in side)) for side in (first.left, first.right))
    where = Location(table=first.table, key=first.key, columns=differing_columns(names, stored, expected))
    return Fault(f"{message}: {first.table}, key {first.key}", where)


async def replay(
    ledger: Ledger, rules: Rules, directory: Path, books: tuple[Book, ...], until: int | None = None
) -> dict[str, str]:
    """The digests of books made from the ledger alone, in an empty directory."""
    async with _temporary_database(directory) as database:
        store = BookStore(database, rules, books)
        await store.register()
        await Engine(ledger, store, utc_now).catch_up(until)
        return await digests(store)


async def digests(store: BookStore) -> dict[str, str]:
    """The current digest of each book, by name."""
    async with store.reading() as connection:
        positions = await connection.run_sync(store.positions)
        return {book.name: await digest(connection, book, positions.books[book.name]) for book in store.books}
