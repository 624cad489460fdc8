"""The books' tables: one for each row type and total of `projections`, made from their fields.

They have no migrations: a file whose layout is another is emptied, and filled again from the ledger.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from msgspec.structs import fields
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import Field, SQLModel

from projections import BOOKS
from projections.book import Book, Row, Total
from service.sql import HotStatement, any_of

metadata = MetaData()

_COLUMN_TYPES: dict[Any, tuple[Any, bool]] = {
    str: (Text, False),
    int: (BigInteger, False),
    bool: (Boolean, False),
    str | None: (Text, True),
    int | None: (BigInteger, True),
}


class _Table(SQLModel):
    metadata = metadata


class Checkpoint(_Table, table=True):
    """How far one version of a book has come; it moves by compare-and-set, with the rows."""

    __tablename__ = "checkpoints"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_type=Text)
    version: int
    rules: str = Field(sa_type=Text)
    position: int = Field(default=0, sa_type=BigInteger)
    advanced_at_us: int = Field(default=0, sa_type=BigInteger)


class Snapshot(_Table, table=True):
    """A document left ready by the worker, valid until a change of its rows removes it."""

    __tablename__ = "snapshots"

    name: str = Field(primary_key=True, sa_type=Text)
    position: int = Field(sa_type=BigInteger)
    body: bytes = Field(sa_type=LargeBinary)


def _row_table(row: type[Row]) -> Table:
    columns = [Column(f.name, (kind := _COLUMN_TYPES[f.type])[0], nullable=kind[1]) for f in fields(row)]
    table = Table(
        row.table,
        metadata,
        Column("id", Integer, primary_key=True),
        Column("book", Integer, nullable=False),
        Column("key", Text, nullable=False),
        *columns,
    )
    Index(f"{row.table}_by_key", table.c.book, table.c.key)
    for names in row.indexes:
        Index(f"{row.table}_by_{'_'.join(names)}", table.c.book, *(table.c[name] for name in names))
    return table


def _total_table(total: Total) -> Table:
    types = {f.name: _COLUMN_TYPES[f.type][0] for f in fields(total.of)}
    return Table(
        total.table,
        metadata,
        Column("book", Integer, primary_key=True, autoincrement=False),
        *(Column(name, types[name], primary_key=True, autoincrement=False) for name in total.by),
        *(Column(name, BigInteger, nullable=False) for name in total.sums),
        sqlite_with_rowid=False,
    )


def row_types(book: Book) -> list[type[Row]]:
    """The row types of a book, each once."""
    return list(dict.fromkeys(row for stage in book.stages for row in stage.rows))


class RowStatements:
    """What the engine says to one row table."""

    def __init__(self, row: type[Row]) -> None:
        table = ROWS[row]
        names = row.__struct_fields__
        columns = [table.c.id, table.c.key, *(table.c[name] for name in names)]
        of_book = select(*columns).where(table.c.book == bindparam("book"))
        self.by_key = HotStatement(of_book.where(any_of(table.c.key, "keys")))
        self.by_feeds = HotStatement(of_book.where(any_of(table.c.feeds, "keys")))
        self.insert = HotStatement(insert(table), ("book", "key", *names))
        self.delete = HotStatement(delete(table).where(table.c.id == bindparam("row_id")))
        self._row = row
        self._names = names
        self._flags = [f.name for f in fields(row) if f.type is bool]

    def row(self, values: Sequence[Any]) -> Row:
        """The row whose columns these are, in the order of its fields."""
        named = dict(zip(self._names, values, strict=True))
        for name in self._flags:
            named[name] = bool(named[name])  # the driver gives 0 and 1
        return self._row(**named)


def _add(total: Total) -> HotStatement:
    """Add to the sums of a total's rows, making those that are not there."""
    upsert = sqlite.insert(TOTALS[total.table])
    added = {name: TOTALS[total.table].c[name] + upsert.excluded[name] for name in total.sums}
    statement = upsert.on_conflict_do_update(index_elements=["book", *total.by], set_=added)
    return HotStatement(statement, ("book", *total.by, *total.sums))


checkpoints: Table = Checkpoint.__table__  # type: ignore[attr-defined]
snapshots: Table = Snapshot.__table__  # type: ignore[attr-defined]
ROWS = {row: _row_table(row) for book in BOOKS for row in row_types(book)}
TOTALS = {total.table: _total_table(total) for book in BOOKS for total in book.totals}
STATEMENTS = {row: RowStatements(row) for row in ROWS}
ADD = {total.table: _add(total) for book in BOOKS for total in book.totals}

# Rows that feed a later stage are read back by the key that they feed.
for _book in BOOKS:
    for _stage in _book.stages:
        if not isinstance(_stage.reads, str):
            for _row in _stage.reads:
                Index(f"{_row.table}_by_feeds", ROWS[_row].c.book, ROWS[_row].c.feeds)


def layout() -> int:
    """A number that changes whenever any table does: SQLite's `user_version` of the file."""
    ddl = [
        str(CreateTable(t)) + "".join(str(CreateIndex(i)) for i in _sorted(t)) for t in metadata.sorted_tables
    ]
    return int.from_bytes(sha256("".join(ddl).encode()).digest()[:4]) & 0x7FFFFFFF


def _sorted(table: Table) -> list[Index]:
    return sorted(table.indexes, key=lambda index: str(index.name))
