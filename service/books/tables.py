"""The books' tables: one for each row type and total of `projections`, made from their fields.

They have no migrations: tables of another layout are made beside the old ones or in their place, and filled
from the ledger.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import Any

from msgspec.structs import fields
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    cast,
    delete,
    func,
    select,
    text,
)
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.types import TypeEngine
from sqlmodel import Field, SQLModel

from projections import BOOKS
from projections.book import Book, Row, Total
from service.storage.statements import POSTGRESQL, HotInsert, HotStatement, any_of, first_rows

metadata = MetaData()

PARTITIONS = 16  # PostgreSQL's books are divided into them among workers; on SQLite there is one worker


class _ByteOrderedText(TypeDecorator[str]):
    """Text sorted by its bytes, as on SQLite, whatever the database's language."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        return dialect.type_descriptor(Text(collation="C" if dialect.name == POSTGRESQL else None))

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:  # noqa: ARG002 - its signature
        return Text()  # a parameter has no order of its own


_TEXT = _ByteOrderedText()
_ID = BigInteger().with_variant(Integer, "sqlite")
_COLUMN_TYPES: dict[Any, tuple[Any, bool]] = {
    str: (_TEXT, False),
    int: (BigInteger(), False),
    bool: (Boolean(), False),
    str | None: (_TEXT, True),
    int | None: (BigInteger(), True),
}


class _Table(SQLModel):
    metadata = metadata


class BookVersion(_Table, table=True):
    """One build of one version of a book under one set of rules. Its id is the `book` of every other table.

    One build is live: it is read and kept up to date. `base` makes its version greater than that of the
    build that it replaced. Ids are never reused: rows left of a removed build belong to no other.
    """

    __tablename__ = "books"
    __table_args__ = (
        Index(
            "books_live",
            *("name", "version", "rules"),
            unique=True,
            sqlite_where=text("live"),
            postgresql_where=text("live"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_type=Text)
    version: int
    rules: str = Field(sa_type=Text)
    live: bool = True
    base: int = Field(default=0, sa_type=BigInteger)


class Checkpoint(_Table, table=True):
    """The position of one partition of a book; it moves by compare-and-set, together with the rows.

    `changed` is the last position that changed any row. Until `held_until_us`, by the database's clock, the
    checkpoint does not move past `held`.
    """

    __tablename__ = "checkpoints"

    book: int = Field(primary_key=True)
    partition: int = Field(primary_key=True)
    position: int = Field(default=0, sa_type=BigInteger)
    changed: int = Field(default=0, sa_type=BigInteger)
    advanced_at_us: int = Field(default=0, sa_type=BigInteger)
    held: int = Field(default=0, sa_type=BigInteger)
    held_until_us: int = Field(default=0, sa_type=BigInteger)


class Lease(_Table, table=True):
    """The worker that may write a partition. Each new holder raises `fence`, which shuts out earlier ones."""

    __tablename__ = "leases"

    partition: int = Field(primary_key=True)
    worker: str | None = Field(default=None, sa_type=Text)
    fence: int = Field(default=0, sa_type=BigInteger)


class WorkerSeen(_Table, table=True):
    """A worker, and the time of its last heartbeat by the database's clock."""

    __tablename__ = "workers"

    name: str = Field(primary_key=True, sa_type=Text)
    seen_at: datetime = Field(sa_type=DateTime(timezone=True))


class KeyLock(_Table, table=True):
    """A parent key that a transaction locks to contribute a stage's rows from it. On PostgreSQL only."""

    __tablename__ = "key_locks"

    book: int = Field(primary_key=True)
    stage: str = Field(primary_key=True, sa_type=Text, description="the first table of its rows")
    key: str = Field(primary_key=True, sa_type=Text)


class Snapshot(_Table, table=True):
    """A document precomputed by the worker, valid as long as the books have this `version`."""

    __tablename__ = "snapshots"

    name: str = Field(primary_key=True, sa_type=Text)
    version: int = Field(sa_type=BigInteger)
    body: bytes = Field(sa_type=LargeBinary)


class StoredModel(_Table, table=True):
    """A model that the worker has fitted for a currency, or an account in it, from the rows of `version`."""

    __tablename__ = "stored_models"

    name: str = Field(primary_key=True, sa_type=Text)
    version: int = Field(sa_type=BigInteger)
    position: int = Field(sa_type=BigInteger)
    day: str = Field(sa_type=Text)
    body: bytes = Field(sa_type=LargeBinary)


class LedgerWitness(_Table, table=True):
    """What the ledger had, one row: see `service.ledger.witness`. `digest` is in hexadecimal."""

    __tablename__ = "witness"

    id: int = Field(primary_key=True)
    position: int = Field(sa_type=BigInteger)
    digest: str | None = Field(sa_type=Text)
    at_us: int = Field(sa_type=BigInteger)


def _row_table(row: type[Row]) -> Table:
    columns = [Column(f.name, (kind := _COLUMN_TYPES[f.type])[0], nullable=kind[1]) for f in fields(row)]
    table = Table(
        row.table,
        metadata,
        Column("id", _ID, primary_key=True),
        Column("book", Integer, nullable=False),
        Column("key", _TEXT, nullable=False),
        *columns,
    )
    Index(f"{row.table}_by_key", table.c.book, table.c.key)
    for names in row.indexes:
        Index(f"{row.table}_by_{'_'.join(names)}", table.c.book, *(table.c[name] for name in names))
    return table


def _total_table(total: Total) -> Table:
    # A column that only a row's parts have is text.
    types = {f.name: _COLUMN_TYPES[f.type][0] for f in fields(total.row_type)}
    return Table(
        total.table,
        metadata,
        Column("book", Integer, primary_key=True, autoincrement=False),
        Column("partition", Integer, primary_key=True, autoincrement=False),
        *(Column(n, types.get(n, _TEXT), primary_key=True, autoincrement=False) for n in total.group_by),
        *(Column(name, BigInteger, nullable=False) for name in total.sums),
        # SQLite makes a float of a sum beyond 64 bits, where PostgreSQL raises an error
        *(CheckConstraint(f"typeof({name}) = 'integer'").ddl_if(dialect="sqlite") for name in total.sums),
        sqlite_with_rowid=False,
    )


def count_rows(connection: Connection, book: Book, book_id: int) -> int:
    """How many rows and sums a book has."""
    of_book = [*(ROWS[row] for row in row_types(book)), *(TOTALS[total.table] for total in book.totals)]
    counts = (select(func.count()).select_from(table).where(table.c.book == book_id) for table in of_book)
    return sum(connection.execute(query).scalar_one() for query in counts)


def row_types(book: Book) -> list[type[Row]]:
    """The row types of a book, each once."""
    return list(dict.fromkeys(row for stage in book.stages for row in stage.rows))


class RowStatements:
    """The engine's statements on one row table."""

    def __init__(self, row: type[Row]) -> None:
        table = ROWS[row]
        names = row.__struct_fields__
        columns = [table.c.id, table.c.key, *(table.c[name] for name in names)]
        of_book = select(*columns).where(table.c.book == bindparam("book"))
        self.by_key = HotStatement(lambda _: of_book.where(any_of(table.c.key, "keys")))
        self.by_parent_key = HotStatement(lambda _: of_book.where(any_of(table.c.parent_key, "keys")))
        after = (table.c.book == bindparam("book"), table.c.parent_key > bindparam("after"))
        self.count_with_parent = HotStatement(lambda _: select(func.count()).select_from(table).where(*after))
        parents = select(table.c.parent_key, func.count()).where(*after).group_by(table.c.parent_key)
        self.parent_keys = HotStatement(lambda _: first_rows(parents.order_by(table.c.parent_key)))
        self.insert = HotInsert(table, ("book", "key", *names))
        self.delete = HotStatement(lambda _: delete(table).where(any_of(table.c.id, "ids")))
        self._row = row
        self._names = names
        self._flags = [f.name for f in fields(row) if f.type is bool]

    def to_row(self, values: Sequence[Any]) -> Row:
        """A row of these values, in the order of its fields."""
        fields_by_name = dict(zip(self._names, values, strict=True))
        for name in self._flags:
            fields_by_name[name] = bool(fields_by_name[name])  # the driver gives 0 and 1
        return self._row(**fields_by_name)


class _StatementsByRow(dict[type[Row], RowStatements]):
    """The statements by the rows' type, made when they are first asked for: a web process needs few."""

    def __missing__(self, row: type[Row]) -> RowStatements:
        self[row] = RowStatements(row)
        return self[row]


def _add_to_total(total: Total) -> HotInsert:
    """The statement that adds to a total's sums, and makes missing groups."""
    table, key = TOTALS[total.table], ("book", "partition", *total.group_by)

    def add_on_conflict(insert: Any) -> Any:
        added = {name: table.c[name] + insert.excluded[name] for name in total.sums}
        return insert.on_conflict_do_update(index_elements=key, set_=added)

    return HotInsert(table, (*key, *total.sums), add_on_conflict)


def _read_sums(total: Total) -> HotStatement:
    """The query for a total's groups in a book, each with its sums over all partitions."""
    table = TOTALS[total.table]
    groups = [table.c[name] for name in total.group_by]
    sums = (cast(func.sum(table.c[name]), BigInteger) for name in total.sums)
    query = select(*groups, *sums).where(table.c.book == bindparam("book")).group_by(*groups)
    return HotStatement(lambda _: query)


books: Table = BookVersion.__table__  # type: ignore[attr-defined]
checkpoints: Table = Checkpoint.__table__  # type: ignore[attr-defined]
leases: Table = Lease.__table__  # type: ignore[attr-defined]
workers: Table = WorkerSeen.__table__  # type: ignore[attr-defined]
key_locks: Table = KeyLock.__table__  # type: ignore[attr-defined]
snapshots: Table = Snapshot.__table__  # type: ignore[attr-defined]
stored_models: Table = StoredModel.__table__  # type: ignore[attr-defined]
witness: Table = LedgerWitness.__table__  # type: ignore[attr-defined]
# Several books may have rows of one type.
ROWS = {row: _row_table(row) for row in dict.fromkeys(row for book in BOOKS for row in row_types(book))}
_all_totals = [total for book in BOOKS for total in (*book.totals, *book.gross_totals)]
TOTALS = {total.table: _total_table(total) for total in _all_totals}
STATEMENTS = _StatementsByRow()
ADD_TO_TOTALS = {total.table: _add_to_total(total) for total in _all_totals}
READ_GROSS = {total.table: _read_sums(total) for book in BOOKS for total in book.gross_totals}

# A later stage reads the rows of earlier ones by their parent keys.
_read_types = (stage.reads for book in BOOKS for stage in book.stages if not isinstance(stage.reads, str))
for _row in dict.fromkeys(row for reads in _read_types for row in reads):
    Index(f"{_row.table}_by_parent_key", ROWS[_row].c.book, ROWS[_row].c.parent_key)


@cache
def layout() -> int:
    """A number that changes whenever any table changes, or the number of partitions."""
    ddl = [
        str(CreateTable(t)) + "".join(str(CreateIndex(i)) for i in _sorted_indexes(t))
        for t in metadata.sorted_tables
    ] + [str(PARTITIONS)]
    return int.from_bytes(sha256("".join(ddl).encode()).digest()[:4]) & 0x7FFFFFFF


def _sorted_indexes(table: Table) -> list[Index]:
    return sorted(table.indexes, key=lambda index: str(index.name))
