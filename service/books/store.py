"""The books in one database: their layout, their positions, and access for the engine and the reads."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from copy import copy
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
from service.storage.database import Database, books_path, sqlite_engine
from service.storage.statements import POSTGRESQL, HotInsert, HotStatement, any_of, now_us

T = TypeVar("T")


def lay_out_file(data_dir: Path, add_books: Callable[[Connection], None] = lambda _: None) -> None:
    """Create the books' file, or replace one of another layout; the new books are filled from the ledger."""
    path = books_path(data_dir)
    layout = tables.layout()
    if _read_layout(path) != layout:
        for old in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            old.unlink(missing_ok=True)
    engine = sqlite_engine(path, "write")
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {layout}")
        add_books(connection)
    engine.dispose()


def has_layout(data_dir: Path) -> bool:
    """Whether the books' file has this version's layout, or does not exist yet."""
    path = books_path(data_dir)
    return not path.exists() or _read_layout(path) == tables.layout()


def _read_layout(path: Path) -> int | None:
    """The layout of a books' file; None if it is no database: then it is made again like an old one."""
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


class BookPositions(Struct, frozen=True):
    """The ids of the books, by name, and the position that all partitions of each have reached.

    `version` is another number whenever any row has changed.
    """

    books: dict[str, int]
    by_book: dict[str, int]
    version: int

    @property
    def position(self) -> int:
        """The position that all books have reached, apart from those under further policies."""
        return self.position_under("")

    def position_under(self, policy: str) -> int:
        """The position that all books have reached from which answers under a policy are made."""
        policies = ("", policy)
        return min((at for name, at in self.by_book.items() if policy_of_book(name) in policies), default=0)


def policy_of_book(name: str) -> str:
    """The policy of the book of this name; "" for the default policy."""
    return name.partition(":")[2]


class BookStore:
    """The books in one database, for one set of rules. Close it, or the process hangs at its end.

    `key` is a text that changes with the books, their versions and the rules. `builds` are the ids of the
    builds to use, by book; None: the live ones.
    """

    builds: Mapping[str, int] | None = None

    def __init__(
        self, database: Database, rules: Rules, books: Sequence[Book] = BOOKS, partitions: int = 1
    ) -> None:
        self.rules = rules
        self.books = tuple(books)
        self.versions = book_versions(books, rules)
        self.key = sha256(json.encode(sorted(self.versions))).hexdigest()[:16]
        self.partitions = partitions
        self._database = database
        self.reading = database.reading
        self.reopen = database.reopen

    def with_builds(self, builds: Mapping[str, int]) -> "BookStore":
        """The same store with these builds, by book, in place of the live ones; on the same connections."""
        store = copy(self)
        store.builds = dict(builds)
        store.books = tuple(book for book in self.books if book.name in builds)
        return store

    async def close(self) -> None:
        """Close every connection."""
        await self._database.close()

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run a plain function in one write transaction."""
        return await self._database.write(change)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a plain function in one consistent view."""
        return await self._database.read(query)

    def analyze(self, connection: Connection) -> None:
        """Make PostgreSQL take the statistics of the books' tables; SQLite needs none."""
        if connection.dialect.name == POSTGRESQL:
            growing = (*tables.ROWS.values(), *tables.TOTALS.values(), tables.key_locks)
            connection.exec_driver_sql(f"ANALYZE {', '.join(table.name for table in growing)}")

    async def register(self) -> None:
        """Add the missing ones of these books under these rules, at position 0."""
        await self.write(lambda connection: register(connection, self.rules, self.books, self.partitions))

    def positions(self, connection: Connection) -> BookPositions:
        """The positions of the books of these versions and rules, as far as they are registered."""
        if self.builds is not None:
            rows = _BUILD_POSITIONS.run(connection, list(self.builds.values()))
        else:
            rules = [key for _, _, key in self.versions]
            live = _LIVE_POSITIONS.run(connection, rules)
            rows = [row for row in live if (row[1], row[2], row[5]) in self.versions]
        return BookPositions(
            books={row[1]: row[0] for row in rows},
            by_book={row[1]: row[3] for row in rows},
            version=sum(row[4] for row in rows),
        )

    def checkpoints(self, connection: Connection, books: dict[str, int]) -> dict[tuple[str, int], int]:
        """The position of each partition of each of these books, by (name, partition)."""
        names = {book_id: name for name, book_id in books.items()}
        return {
            (names[row[0]], row[1]): row[2]
            for row in _CHECKPOINTS.run(connection, list(names))
            if row[1] < self.partitions
        }

    def held_position(self, connection: Connection, books: Mapping[str, int]) -> int | None:
        """The position that none of these books may pass at the moment; None if they are not held."""
        return _HELD_POSITION.run(connection, list(books.values()))[0][0]  # type: ignore[no-any-return]


def book_versions(books: Sequence[Book], rules: Rules) -> frozenset[tuple[str, int, str]]:
    """The identities of books, as (name, version, rules as JSON); other rules make another book."""
    return frozenset((book.name, book.version, _rules_key(rules.with_policy(book.policy))) for book in books)


def _rules_key(rules: Rules) -> str:
    return json.encode(rules, enc_hook=_encode_fraction).decode()


def register(connection: Connection, rules: Rules, books: Sequence[Book], partitions: int) -> None:
    """Add the missing ones of these books under these rules, at position 0."""
    wanted = sorted(book_versions(books, rules))
    _ADD_BOOKS.add(connection, [(*version, True, 0) for version in wanted])
    ids = [row[0] for row in _LIVE_BOOK_IDS.run(connection, [rules_key for _, _, rules_key in wanted])]
    add_checkpoints(connection, ids, partitions)
    _ADD_LEASES.add(connection, [(part, 0) for part in range(partitions)])


def add_checkpoints(connection: Connection, ids: Sequence[int], partitions: int) -> None:
    """Add the missing checkpoints of these books' partitions, at position 0."""
    _ADD_CHECKPOINTS.add(connection, [(book, part) + (0,) * 5 for book in ids for part in range(partitions)])


def _if_new(insert: Any) -> Any:
    return insert.on_conflict_do_nothing()


_ADD_BOOKS = HotInsert(tables.books, ("name", "version", "rules", "live", "base"), _if_new)
_ADD_CHECKPOINTS = HotInsert(tables.checkpoints, conflict=_if_new)
_ADD_LEASES = HotInsert(tables.leases, ("partition", "fence"), _if_new)
_b, _c = tables.books.c, tables.checkpoints.c
_LIVE_BOOK_IDS = HotStatement(lambda _: select(_b.id).where(_b.live, any_of(_b.rules, "rules")))
_SELECT_POSITIONS = (
    select(
        _b.id,
        _b.name,
        _b.version,
        func.min(_c.position),
        cast(func.sum(_c.changed) + _b.base, BigInteger),
        _b.rules,
    )
    .join_from(tables.books, tables.checkpoints, _c.book == _b.id)
    .group_by(_b.id, _b.name, _b.version, _b.rules, _b.base)
)
_LIVE_POSITIONS = HotStatement(lambda _: _SELECT_POSITIONS.where(_b.live, any_of(_b.rules, "rules")))
_BUILD_POSITIONS = HotStatement(lambda _: _SELECT_POSITIONS.where(any_of(_b.id, "ids")))
_HELD_POSITION = HotStatement(
    lambda dialect: select(func.min(_c.held)).where(
        any_of(_c.book, "books"), _c.held_until_us > now_us(dialect)
    )
)
_CHECKPOINTS = HotStatement(
    lambda _: select(_c.book, _c.partition, _c.position).where(any_of(_c.book, "books"))
)


def _encode_fraction(value: object) -> str:
    assert isinstance(value, Fraction)  # noqa: S101 - the only type of the rules without a JSON form
    return str(value)
