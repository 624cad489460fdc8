"""Export of the books' rows and totals to files: CSV for people, Parquet for programs.

Two builds of the books from one ledger give equal files: in one order, and without totals of nothing.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from sqlalchemy import BigInteger, Boolean, ColumnElement, Select, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book, Total
from service.books.digest import select_total
from service.books.store import BookStore
from service.books.tables import ROWS, TOTALS, row_types
from service.books.view import sum_columns
from service.core.errors import ParameterError, Unavailable
from service.core.progress import Advance
from service.reads.files import cell
from service.storage.files import named_when_whole

FileFormat = Literal["csv", "parquet"]
_ROW_GROUP_SIZE = 10_000  # rows held in memory, and rows of a Parquet row group
_INTERNAL_COLUMNS = ("id", "book", "key", "parent_key")  # meaningless outside of the database

_WriteRows = Callable[[Sequence[Sequence[Any]]], None]


class WrittenTable(Struct, frozen=True, kw_only=True):
    """A table that was written to a file."""

    book: str
    table: str
    file: str
    rows: int


class RowExport(Struct, frozen=True, kw_only=True):
    """The written tables, all as of one position of the books."""

    position: int
    tables: list[WrittenTable]


class _ExportTable(Struct, frozen=True, kw_only=True):
    """A table of a book: its columns, and the query of its rows by the book's id."""

    book: str
    name: str
    columns: list[ColumnElement[Any]]
    query: Callable[[int], Select[Any]]


async def export_rows(
    store: BookStore,
    book_name: str | None,
    table_name: str | None,
    output: Path,
    file_format: FileFormat,
    advance: Advance,
) -> RowExport:
    """Write the table `table_name` to the file `output`; without a name all tables to a directory `output`.

    With `book_name` only tables of that book. `advance` counts rows. Raises ParameterError for an unknown
    book or table, and for Parquet where pyarrow is not installed, both before anything is written;
    Unavailable before the books are laid out.
    """
    if file_format == "parquet" and find_spec("pyarrow") is None:
        raise ParameterError('--format parquet needs pyarrow: pip install "daybook[parquet]"')
    tables = _choose_tables(store.books, book_name, table_name)
    async with store.reading() as connection:
        positions = await connection.run_sync(store.positions)
        if len(positions.books) < len(store.books):
            raise Unavailable("the books are not laid out yet")
        written = []
        for table in tables:
            file_name = f"{table.book.replace(':', '-')}.{table.name}.{file_format}"
            path = output if table_name else output / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = await _write(connection, table, positions.books[table.book], path, file_format, advance)
            written.append(WrittenTable(book=table.book, table=table.name, file=str(path), rows=rows))
    reached = min(positions.by_book[table.book] for table in tables)
    return RowExport(position=reached, tables=written)


def _choose_tables(
    books: Sequence[Book], book_name: str | None, table_name: str | None
) -> list[_ExportTable]:
    names = [book.name for book in books]
    if book_name is not None and book_name not in names:
        raise ParameterError(f"{book_name} is no book; there are {', '.join(names)}")
    tables = [table for book in books if book_name in (None, book.name) for table in _tables_of(book)]
    chosen = [table for table in tables if table_name in (None, table.name)]
    if not chosen:
        known = ", ".join(table.name for table in tables)
        raise ParameterError(f"{table_name} is no table; there are {known}")
    if table_name and len(chosen) > 1:
        owners = ", ".join(table.book for table in chosen)
        raise ParameterError(f"{table_name} is in several books: name one of {owners}")
    return chosen


def _tables_of(book: Book) -> Iterator[_ExportTable]:
    for row_type in row_types(book):
        yield _row_table(book, row_type.table, ROWS[row_type])
    for total in book.totals:
        table = TOTALS[total.table]
        columns: list[ColumnElement[Any]] = [table.c[name] for name in (*total.group_by, *total.sums)]
        yield _ExportTable(
            book=book.name,
            name=total.table,
            columns=columns,
            query=lambda book_id, total=total: _select_nonzero(total, book_id),  # type: ignore[misc]
        )


def _select_nonzero(total: Total, book_id: int) -> Select[Any]:
    """A total's groups in order, without those that only hold zeros since all of their rows have gone."""
    table = TOTALS[total.table]
    is_something = or_(*(column != 0 for column in sum_columns(table, total.sums)))
    in_order = (table.c[name].nulls_first() for name in total.group_by)
    return select_total(total, book_id).having(is_something).order_by(*in_order)


def _row_table(book: Book, name: str, table: Any) -> _ExportTable:
    columns = [column for column in table.c if column.name not in _INTERNAL_COLUMNS]
    in_order = select(*columns).order_by(table.c.key, *(column.nulls_first() for column in columns))
    return _ExportTable(
        book=book.name,
        name=name,
        columns=columns,
        query=lambda book_id: in_order.where(table.c.book == book_id),
    )


async def _write(
    connection: AsyncConnection,
    table: _ExportTable,
    book_id: int,
    path: Path,
    file_format: FileFormat,
    advance: Advance,
) -> int:
    """Write a table's rows to a file, which gets its name only once it is complete; returns their number."""
    count = 0
    with named_when_whole(path) as partial, _WRITERS[file_format](partial, table.columns) as write:
        stream = await connection.stream(table.query(book_id))
        async for rows in stream.partitions(_ROW_GROUP_SIZE):
            write(rows)
            count += len(rows)
            advance(len(rows))
    return count


@contextmanager
def _csv_writer(path: Path, columns: Sequence[ColumnElement[Any]]) -> Iterator[_WriteRows]:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow([column.key for column in columns])
        yield lambda rows: writer.writerows([cell(value) for value in row] for row in rows)


@contextmanager
def _parquet_writer(path: Path, columns: Sequence[ColumnElement[Any]]) -> Iterator[_WriteRows]:
    import pyarrow as pa  # noqa: PLC0415 - an extra that may not be installed
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


_WRITERS = {"csv": _csv_writer, "parquet": _parquet_writer}
