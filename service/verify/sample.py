"""A sample of the books: histories chosen at random, folded again and compared with the rows that stand."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

from msgspec.structs import astuple
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book, Row, Stage
from service.books.store import BookStore, partition_of
from service.books.tables import STATEMENTS
from service.core.events import Event
from service.core.order import canonical
from service.ledger.history import read_histories
from service.ledger.store import Ledger
from service.verify.fault import Fault, Where, differing
from service.verify.ledger import Done, quietly
from service.verify.replay import Reached, reached_by

_PIECE = 100  # histories at once

_Contributed = dict[str, list[Row]]  # rows by the key that contributes them


class Sample:
    """Up to `size` histories of each kind, each as likely as any other; the same ones for the same seed.

    They are those whose names hash lowest, so whoever reads all names once has chosen.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._key = seed.to_bytes(8)
        self._lowest: dict[str, list[tuple[bytes, str]]] = defaultdict(list)

    def see(self, names: Iterable[str]) -> None:
        """Take the names of histories into account, however often each comes."""
        for name in names:
            lowest = self._lowest[name.split("|", 1)[0]]
            entry = (blake2b(name.encode(), digest_size=8, key=self._key).digest(), name)
            at = bisect_left(lowest, entry)
            if at < self.size and lowest[at : at + 1] != [entry]:
                lowest.insert(at, entry)
                del lowest[self.size :]

    def of(self, kind: str) -> list[str]:
        """The names chosen of one kind."""
        return [name for _, name in self._lowest[kind]]


async def verify_sample(ledger: Ledger, store: BookStore, sample: Sample, done: Done = quietly) -> int:
    """Fold the chosen histories again, and all that they feed; how many keys were compared.

    Each is folded up to where its partition stands, so workers may be at several positions. Raises Fault at
    the first row that differs.
    """
    count = 0
    async with store.reading() as connection:
        reached = await connection.run_sync(lambda view: reached_by(view, store))
        ids = (await connection.run_sync(store.positions)).books
        for book in store.books:
            folding = _Folding(ledger, store, connection, book, ids[book.name], reached)
            async for compared in folding.compare(sample):
                done(compared)
                count += compared
    return count


class _Folding:
    """One book in one view, and the ledger up to where it stands there."""

    def __init__(
        self,
        ledger: Ledger,
        store: BookStore,
        connection: AsyncConnection,
        book: Book,
        book_id: int,
        reached: Reached,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._connection = connection
        self._book = book
        self._book_id = book_id
        self._reached = reached
        self._rules = store.rules.with_policy(book.policy)

    async def compare(self, sample: Sample) -> AsyncIterator[int]:
        """Compare stage by stage what is chosen, then what that feeds; how many keys at once."""
        parents: dict[type[Row], set[str]] = defaultdict(set)
        for stage in self._book.stages:
            if isinstance(stage.reads, str):
                keys = sample.of(stage.reads)
            else:
                keys = sorted(set().union(*(parents[source] for source in stage.reads)))
            for start in range(0, len(keys), _PIECE):
                wanted = await self._contributed(stage, keys[start : start + _PIECE])
                await self._connection.run_sync(self._compare, stage, wanted)
                for row in (row for rows in wanted.values() for row in rows if row.parent_key):
                    parents[type(row)].add(row.parent_key)
                yield len(wanted)

    async def _contributed(self, stage: Stage, keys: list[str]) -> _Contributed:
        found: Mapping[str, Sequence[Any]]
        if isinstance(stage.reads, str):
            found = await self._histories(keys)
        else:
            found = await self._connection.run_sync(self._child_rows, stage.reads, keys)
        return {key: stage.contribute(found[key], self._rules) if found[key] else [] for key in keys}

    async def _histories(self, names: list[str]) -> dict[str, list[Event]]:
        """Each history as far as its partition of the book has taken it in."""
        by_position: dict[int, list[str]] = defaultdict(list)
        for name in names:
            part = partition_of(name, self._store.partitions)
            by_position[self._reached[self._book.name, part]].append(name)
        found: dict[str, list[Event]] = {}
        for position, some in by_position.items():
            found |= await self._ledger.read(
                partial(read_histories, names=some, up_to=position, vault=self._ledger.vault)
            )
        return {name: canonical(events) for name, events in found.items()}

    def _child_rows(
        self, connection: Connection, sources: tuple[type[Row], ...], keys: list[str]
    ) -> dict[str, list[Row]]:
        rows: dict[str, list[Row]] = {key: [] for key in keys}
        for source in sources:
            statements = STATEMENTS[source]
            for _id, _key, *values in statements.by_parent_key.run(connection, self._book_id, keys):
                row = statements.to_row(values)
                rows[row.parent_key].append(row)
        return rows

    def _compare(self, connection: Connection, stage: Stage, wanted: _Contributed) -> None:
        for row_type in stage.rows:
            statements = STATEMENTS[row_type]
            stand: dict[str, list[Row]] = defaultdict(list)
            for _id, key, *values in statements.by_key.run(connection, self._book_id, list(wanted)):
                stand[key].append(statements.to_row(values))
            for key, rows in sorted(wanted.items()):
                expected = [row for row in rows if type(row) is row_type]
                if Counter(stand[key]) != Counter(expected):
                    raise self._differs(row_type, key, stand[key], expected)

    def _differs(self, row_type: type[Row], key: str, stand: list[Row], wanted: list[Row]) -> Fault:
        names = row_type.__struct_fields__
        columns = differing(names, map(astuple, stand), map(astuple, wanted))
        said = f"book {self._book.name} differs from its history folded again: {row_type.table}, key {key}"
        return Fault(said, Where(table=row_type.table, key=key, columns=columns))
