"""A sample of the books: histories chosen at random, folded again and compared with the stored rows."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import Any

from msgspec.structs import astuple
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book, Row, Stage
from projections.fold import Contributed, ParentKeys, contribute, key_batches, ordered
from service.books.rows import read_children, read_rows
from service.books.store import BookStore, partition_of
from service.core.events import Event
from service.core.progress import Advance, no_advance
from service.ledger.history import read_histories
from service.ledger.store import Ledger
from service.verify.fault import Fault, Location, differing_columns
from service.verify.replay import PartitionPositions, read_positions


class Sample:
    """Up to `size` histories of each kind, each as likely as any other; the same ones for the same seed.

    They are those with the lowest hashes of their names, so one pass over all names chooses them.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._key = seed.to_bytes(8)
        self._lowest: dict[str, list[tuple[bytes, str]]] = defaultdict(list)

    def add_names(self, names: Iterable[str]) -> None:
        """Consider these names of histories; a name may come more than once."""
        for name in names:
            lowest = self._lowest[name.split("|", 1)[0]]
            entry = (blake2b(name.encode(), digest_size=8, key=self._key).digest(), name)
            index = bisect_left(lowest, entry)
            if index < self.size and lowest[index : index + 1] != [entry]:
                lowest.insert(index, entry)
                del lowest[self.size :]

    def names_of(self, kind: str) -> list[str]:
        """The chosen names of one kind of history."""
        return [name for _, name in self._lowest[kind]]


async def verify_sample(
    ledger: Ledger, store: BookStore, sample: Sample, advance: Advance = no_advance
) -> int:
    """Fold the chosen histories and their parent keys again, and compare; the number of keys compared.

    Each is folded up to the position of its partition, so workers may be at several positions. Raises Fault
    at the first row that differs.
    """
    count = 0
    async with store.reading() as connection:
        positions = await connection.run_sync(lambda view: read_positions(view, store))
        ids = (await connection.run_sync(store.positions)).books
        for book in store.books:
            check = _BookCheck(ledger, store, connection, book, ids[book.name], positions)
            async for compared in check.compare(sample):
                advance(compared)
                count += compared
    return count


class _BookCheck:
    """The check of one book in one view, against the ledger up to the book's positions there."""

    def __init__(
        self,
        ledger: Ledger,
        store: BookStore,
        connection: AsyncConnection,
        book: Book,
        book_id: int,
        positions: PartitionPositions,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._connection = connection
        self._book = book
        self._book_id = book_id
        self._positions = positions
        self._rules = store.rules.with_policy(book.policy)

    async def compare(self, sample: Sample) -> AsyncIterator[int]:
        """Compare the chosen histories, then their parent keys, stage by stage; the numbers of keys."""
        parents = ParentKeys()
        for stage in self._book.stages:
            keys = sample.names_of(stage.reads) if isinstance(stage.reads, str) else parents.of(stage)
            for batch in key_batches(keys):
                contributed = contribute(stage, await self._inputs(stage, batch), self._rules)
                await self._connection.run_sync(self._compare, stage, contributed)
                parents.add(chain.from_iterable(contributed.values()))
                yield len(contributed)

    async def _inputs(self, stage: Stage, keys: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        if isinstance(stage.reads, str):
            return await self._histories(keys)
        return await self._connection.run_sync(read_children, self._book_id, stage, keys)

    async def _histories(self, names: Iterable[str]) -> Mapping[str, Sequence[Event]]:
        """Each history up to the position of its partition of the book."""
        by_position: dict[int, list[str]] = defaultdict(list)
        for name in names:
            part = partition_of(name, self._store.partitions)
            by_position[self._positions[self._book.name, part]].append(name)
        histories: dict[str, list[Event]] = {}
        for position, group in by_position.items():
            histories |= await self._ledger.read(
                partial(read_histories, names=group, up_to=position, vault=self._ledger.vault)
            )
        return ordered(histories)

    def _compare(self, connection: Connection, stage: Stage, contributed: Contributed) -> None:
        for row_type in stage.rows:
            stored: dict[str, list[Row]] = defaultdict(list)
            for _, key, row in read_rows(connection, self._book_id, row_type, "key", contributed):
                stored[key].append(row)
            for key, rows in sorted(contributed.items()):
                expected = [row for row in rows if type(row) is row_type]
                if Counter(stored[key]) != Counter(expected):
                    raise self._fault(row_type, key, stored[key], expected)

    def _fault(self, row_type: type[Row], key: str, stored: list[Row], expected: list[Row]) -> Fault:
        names = row_type.__struct_fields__
        columns = differing_columns(names, map(astuple, stored), map(astuple, expected))
        message = f"book {self._book.name} differs from its history folded again: {row_type.table}, key {key}"
        return Fault(message, Location(table=row_type.table, key=key, columns=columns))
