"""The books' tables: laid out, and handed to the engine and the reads."""

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


def has_layout(data_dir: Path) -> bool:
    """Whether the books' file is of this layout, or not there yet."""
    path = books_path(data_dir)
    return not path.exists() or _layout_of(path) == tables.layout()


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


class BookPositions(Struct, frozen=True):
    """Where the books are, by name: each one's id, and the position that all of its partitions hold.

    `version` is another number whenever any row is another.
    """

    books: dict[str, int]
    by_book: dict[str, int]
    version: int

    @property
    def position(self) -> int:
        """The position that all books hold, those under further policies aside."""
        return self.reached("")

    def reached(self, policy: str) -> int:
        """The position that all books hold which an answer under a policy is made from."""
        return min((at for name, at in self.by_book.items() if policy_of(name) in ("", policy)), default=0)


def policy_of(name: str) -> str:
    """The policy that a book of this name is kept under; "" for the default."""
    return name.partition(":")[2]


class BookStore:
    """The books in one database, for one set of rules. Close it, or the process hangs at its end.

    `key` is another text for other books, versions or rules. `builds` None: the live ones.
    """

    builds: Mapping[str, int] | None = None

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
        self.again = database.again

    def of(self, builds: Mapping[str, int]) -> "BookStore":
        """These builds, by the names of their books, in place of the live ones; on the same connections."""
        other = copy(self)
        other.builds = dict(builds)
        other.books = tuple(book for book in self.books if book.name in builds)
        return other

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
            grown = (*tables.ROWS.values(), *tables.TOTALS.values(), tables.key_locks)
            connection.exec_driver_sql(f"ANALYZE {', '.join(table.name for table in grown)}")

    async def register(self) -> None:
        """Make what is missing of these books under these rules, at position 0."""
        await self.write(lambda connection: register(connection, self.rules, self.books, self.partitions))

    def positions(self, connection: Connection) -> BookPositions:
        """Where the books of these versions and rules are; of none that is not registered."""
        if self.builds is not None:
            found = _POSITIONS_OF.run(connection, list(self.builds.values()))
        else:
            rules = [key for _, _, key in self.versions]
            live = _POSITIONS.run(connection, rules)
            found = [row for row in live if (row[1], row[2], row[5]) in self.versions]
        return BookPositions(
            books={row[1]: row[0] for row in found},
            by_book={row[1]: row[3] for row in found},
            version=sum(row[4] for row in found),
        )

    def checkpoints(self, connection: Connection, books: dict[str, int]) -> dict[tuple[str, int], int]:
        """The position of each partition of each of these books, by (name, partition)."""
        names = {book_id: name for name, book_id in books.items()}
        return {
            (names[row[0]], row[1]): row[2]
            for row in _CHECKPOINTS.run(connection, list(names))
            if row[1] < self.partitions
        }

    def held(self, connection: Connection, books: Mapping[str, int]) -> int | None:
        """The position that none of these books may pass just now, where there is one."""
        return _HELD.run(connection, list(books.values()))[0][0]  # type: ignore[no-any-return]


def versions(books: Sequence[Book], rules: Rules) -> frozenset[tuple[str, int, str]]:
    """What books are, as (name, version, rules): those under other rules are others."""
    return frozenset((book.name, book.version, _rules_key(rules.with_policy(book.policy))) for book in books)


def _rules_key(rules: Rules) -> str:
    return json.encode(rules, enc_hook=_text).decode()


def register(connection: Connection, rules: Rules, books: Sequence[Book], partitions: int) -> None:
    """Make what is missing of these books under these rules, at position 0."""
    wanted = sorted(versions(books, rules))
    _ADD_BOOKS.add(connection, [(*of, True, 0) for of in wanted])
    ids = [row[0] for row in _BOOKS.run(connection, [key for _, _, key in wanted])]
    add_checkpoints(connection, ids, partitions)
    _ADD_LEASES.add(connection, [(part, 0) for part in range(partitions)])


def add_checkpoints(connection: Connection, ids: Sequence[int], partitions: int) -> None:
    """Let each partition of these books be at position 0 that has no checkpoint yet."""
    _ADD_CHECKPOINTS.add(connection, [(book, part) + (0,) * 5 for book in ids for part in range(partitions)])


def _if_new(insert: Any) -> Any:
    return insert.on_conflict_do_nothing()


_ADD_BOOKS = HotInsert(tables.books, ("name", "version", "rules", "live", "base"), _if_new)
_ADD_CHECKPOINTS = HotInsert(tables.checkpoints, conflict=_if_new)
_ADD_LEASES = HotInsert(tables.leases, ("partition", "fence"), _if_new)
_b, _c = tables.books.c, tables.checkpoints.c
_BOOKS = HotStatement(lambda _: select(_b.id).where(_b.live, any_of(_b.rules, "rules")))
_POSITIONED = (
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
_POSITIONS = HotStatement(lambda _: _POSITIONED.where(_b.live, any_of(_b.rules, "rules")))
_POSITIONS_OF = HotStatement(lambda _: _POSITIONED.where(any_of(_b.id, "ids")))
_HELD = HotStatement(
    lambda dialect: select(func.min(_c.held)).where(
        any_of(_c.book, "books"), _c.held_until_us > now_us(dialect)
    )
)
_CHECKPOINTS = HotStatement(
    lambda _: select(_c.book, _c.partition, _c.position).where(any_of(_c.book, "books"))
)


def _text(value: object) -> str:
    assert isinstance(value, Fraction)  # noqa: S101 - the only type that JSON lacks
    return str(value)
