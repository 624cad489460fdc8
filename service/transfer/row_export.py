"""The rows and totals of the books as files: CSV for people, Parquet for programs."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from sqlalchemy import BigInteger, Boolean, ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book
from service.books.digest import select_total
from service.books.store import BookStore
from service.books.tables import ROWS, TOTALS, row_types
from service.core.errors import ParameterError, Unavailable
from service.reads.csv_cells import cell

Format = Literal["csv", "parquet"]
_GROUP = 10_000  # rows in memory, and in a row group
_INNER = ("id", "book", "key", "parent_key")  # columns that say nothing outside of their database

_Write = Callable[[Sequence[Sequence[Any]]], None]


class Written(Struct, frozen=True, kw_only=True):
    """A table that was written."""

    book: str
    table: str
    file: str
    rows: int


class Exported(Struct, frozen=True, kw_only=True):
    """What was written, all of it as the books were at one position."""

    position: int
    tables: list[Written]


class _Table(Struct, frozen=True, kw_only=True):
    """A table of a book: its columns, and its rows of the book with an id."""

    book: str
    name: str
    columns: list[ColumnElement[Any]]
    query: Callable[[int], Select[Any]]


async def export_rows(
    store: BookStore, book: str | None, table: str | None, to: Path, form: Format, done: Callable[[int], None]
) -> Exported:
    """Write one table to the file `to`, or those of one book or of all into a directory of that name.

    `done` is called with so many rows. Raises ParameterError for what does not exist, Unavailable before
    the books are laid out.
    """
    chosen = _chosen(store.books, book, table)
    async with store.reading() as connection:
        positions = await connection.run_sync(store.positions)
        if len(positions.books) < len(store.books):
            raise Unavailable("the books are not laid out yet")
        written = []
        for each in chosen:
            name = f"{each.book.replace(':', '-')}.{each.name}.{form}"
            path = to if table else to / name
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = await _write(connection, each, positions.books[each.book], path, form, done)
            written.append(Written(book=each.book, table=each.name, file=str(path), rows=rows))
    reached = min(positions.by_book[each.book] for each in chosen)
    return Exported(position=reached, tables=written)


def _chosen(books: Sequence[Book], book: str | None, table: str | None) -> list[_Table]:
    if book is not None and book not in {each.name for each in books}:
        raise ParameterError(f"{book} is no book; there are {', '.join(each.name for each in books)}")
    tables = [of for each in books if book in (None, each.name) for of in _tables(each)]
    found = [of for of in tables if table in (None, of.name)]
    if not found:
        raise ParameterError(f"{table} is no table; there are {', '.join(of.name for of in tables)}")
    if table and len(found) > 1:
        raise ParameterError(f"{table} is in several books: name one of {', '.join(of.book for of in found)}")
    return found


def _tables(book: Book) -> Iterator[_Table]:
    for row_type in row_types(book):
        yield _rows_of(book, row_type.table, ROWS[row_type])
    for total in book.totals:
        table = TOTALS[total.table]
        columns: list[ColumnElement[Any]] = [table.c[name] for name in (*total.group_by, *total.sums)]
        yield _Table(
            book=book.name,
            name=total.table,
            columns=columns,
            query=lambda book_id, total=total: select_total(total, book_id),  # type: ignore[misc]
        )


def _rows_of(book: Book, name: str, table: Any) -> _Table:
    columns = [column for column in table.c if column.name not in _INNER]
    in_order = select(*columns).order_by(table.c.key, table.c.id)
    return _Table(
        book=book.name,
        name=name,
        columns=columns,
        query=lambda book_id: in_order.where(table.c.book == book_id),
    )


async def _write(
    connection: AsyncConnection,
    of: _Table,
    book_id: int,
    path: Path,
    form: Format,
    done: Callable[[int], None],
) -> int:
    """A table's rows as a file; how many. Until it is whole it has another name."""
    count, partial = 0, path.with_name(f"{path.name}.partial")
    with _FORMS[form](partial, of.columns) as write:
        found = await connection.stream(of.query(book_id))
        async for rows in found.partitions(_GROUP):
            write(rows)
            count += len(rows)
            done(len(rows))
    partial.replace(path)
    return count


@contextmanager
def _csv(path: Path, columns: Sequence[ColumnElement[Any]]) -> Iterator[_Write]:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow([column.key for column in columns])
        yield lambda rows: writer.writerows([cell(value) for value in row] for row in rows)


@contextmanager
def _parquet(path: Path, columns: Sequence[ColumnElement[Any]]) -> Iterator[_Write]:
    import pyarrow as pa  # noqa: PLC0415 - slow to import
    from pyarrow import parquet  # noqa: PLC0415

    def kind(column: ColumnElement[Any]) -> Any:
        if isinstance(column.type, Boolean):
            return pa.bool_()
        return pa.int64() if isinstance(column.type, BigInteger) else pa.string()

    schema = pa.schema([(column.key, kind(column)) for column in columns])
    with parquet.ParquetWriter(path, schema) as writer:

        def write(rows: Sequence[Sequence[Any]]) -> None:
            arrays = [
                pa.array(values, field.type)
                for values, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

        yield write


_FORMS = {"csv": _csv, "parquet": _parquet}
