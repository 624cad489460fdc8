"""The books' tables: laid out, and handed to the engine and the reads."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

from msgspec import Struct, json
from sqlalchemy import BigInteger, Connection, cast, func, select

from projections import BOOKS
from projections.book import Book, Rules
from service.books import tables
from service.database import Database, books_path, sqlite_engine
from service.sql import POSTGRESQL, HotInsert, HotStatement, any_of

T = TypeVar("T")


def lay_out_file(data_dir: Path, add_books: Callable[[Connection], None] = lambda _: None) -> None:
    """Create the books' file, or empty one of another layout; its books are filled from the ledger."""
    path = books_path(data_dir)
    layout = tables.layout()
    if _layout_of(path) != layout:
        for stale in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            stale.unlink(missing_ok=True)
    engine = sqlite_engine(path, "write")
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {layout}")
        add_books(connection)
    engine.dispose()


def _layout_of(path: Path) -> int | None:
    """The layout of a books' file; None if it is no database at all, since it can be made again."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
        except sqlite3.OperationalError:  # locked, say: it is a database
            raise
        except sqlite3.DatabaseError:
            return None


def partition_of(key: str, partitions: int) -> int:
    """The partition of a history."""
    return crc32(key.encode()) % partitions


class Marks(Struct, frozen=True):
    """Where the books are, by name: each one's id, and the position that all of its partitions hold.

    `stamp` is another number whenever any row is another.
    """

    books: dict[str, int]
    positions: dict[str, int]
    stamp: int

    @property
    def position(self) -> int:
        """The position that all books hold, those under further policies aside."""
        return self.reached("")

    def reached(self, policy: str) -> int:
        """The position that all books hold which an answer under a policy is made from."""
        return min((at for name, at in self.positions.items() if policy_of(name) in ("", policy)), default=0)


def policy_of(name: str) -> str:
    """The policy that a book of this name is kept under; "" for the default."""
    return name.partition(":")[2]


class BookStore:
    """The books in one database, for one set of rules. Close it, or the process hangs at its end.

    `key` is another text for other books, versions or rules.
    """

    def __init__(
        self, database: Database, rules: Rules, books: Sequence[Book] = BOOKS, partitions: int = 1
    ) -> None:
        self.rules = rules
        self.books = tuple(books)
        self.versions = versions(books, rules)
        self.key = sha256(json.encode(sorted(self.versions))).hexdigest()[:16]
        self.partitions = partitions
        self._database = database
        self.reading = database.reading

    async def close(self) -> None:
        """Close every connection."""
        await self._database.close()

    async def write(self, change: Callable[[Connection], T]) -> T:
        """What a plain function does in one write transaction."""
        return await self._database.write(change)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """What a plain function finds in one consistent view."""
        return await self._database.read(query)

    def analyze(self, connection: Connection) -> None:
        """Have PostgreSQL take the statistics of the books' tables; SQLite needs none."""
        if connection.dialect.name == POSTGRESQL:
            grown = (*tables.ROWS.values(), *tables.TOTALS.values(), tables.feeds)
            connection.exec_driver_sql(f"ANALYZE {', '.join(table.name for table in grown)}")

    async def register(self) -> None:
        """Make what is missing of these books under these rules, at position 0."""
        await self.write(lambda connection: register(connection, self.rules, self.books, self.partitions))

    def marks(self, connection: Connection) -> Marks:
        """Where the books of these versions and rules are; of none that is not registered."""
        rules = [key for _, _, key in self.versions]
        found = [row for row in _MARKS.run(connection, rules) if (row[1], row[2], row[5]) in self.versions]
        return Marks(
            books={row[1]: row[0] for row in found},
            positions={row[1]: row[3] for row in found},
            stamp=sum(row[4] for row in found),
        )

    def checkpoints(self, connection: Connection, books: dict[str, int]) -> dict[tuple[str, int], int]:
        """The position of each partition of each of these books, by (name, partition)."""
        names = {book_id: name for name, book_id in books.items()}
        return {
            (names[row[0]], row[1]): row[2]
            for row in _CHECKPOINTS.run(connection, list(names))
            if row[1] < self.partitions
        }


def versions(books: Sequence[Book], rules: Rules) -> frozenset[tuple[str, int, str]]:
    """What books are, as (name, version, rules): those under other rules are others."""
    return frozenset((book.name, book.version, _rules_key(rules.under(book.policy))) for book in books)


def _rules_key(rules: Rules) -> str:
    return json.encode(rules, enc_hook=_text).decode()


def register(connection: Connection, rules: Rules, books: Sequence[Book], partitions: int) -> None:
    """Make what is missing of these books under these rules, at position 0."""
    parts, wanted = range(partitions), sorted(versions(books, rules))
    _ADD_BOOKS.add(connection, wanted)
    ids = [row[0] for row in _BOOKS.run(connection, [key for _, _, key in wanted])]
    _ADD_CHECKPOINTS.add(connection, [(book, part, 0, 0, 0) for book in ids for part in parts])
    _ADD_LEASES.add(connection, [(part, 0) for part in parts])


def _if_new(insert: Any) -> Any:
    return insert.on_conflict_do_nothing()


_ADD_BOOKS = HotInsert(tables.books, ("name", "version", "rules"), _if_new)
_ADD_CHECKPOINTS = HotInsert(tables.checkpoints, conflict=_if_new)
_ADD_LEASES = HotInsert(tables.leases, ("partition", "fence"), _if_new)
_BOOKS = HotStatement(lambda _: select(tables.books.c.id).where(any_of(tables.books.c.rules, "rules")))
_b, _c = tables.books.c, tables.checkpoints.c
_MARKS = HotStatement(
    lambda _: (
        select(
            _b.id,
            _b.name,
            _b.version,
            func.min(_c.position),
            cast(func.sum(_c.changed), BigInteger),
            _b.rules,
        )
        .join_from(tables.books, tables.checkpoints, _c.book == _b.id)
        .where(any_of(_b.rules, "rules"))
        .group_by(_b.id, _b.name, _b.version, _b.rules)
    )
)
_CHECKPOINTS = HotStatement(
    lambda _: select(_c.book, _c.partition, _c.position).where(any_of(_c.book, "books"))
)


def _text(value: object) -> str:
    assert isinstance(value, Fraction)  # noqa: S101 - the only type that JSON lacks
    return str(value)
