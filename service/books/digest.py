"""A book's digest, equal for equal rows and totals in any order; and where two books differ."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from hashlib import sha256
from typing import Any

from msgspec import Struct, json
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book, Row, Total
from service.books import tables
from service.books.view import sum_columns
from service.core.progress import Advance, no_advance

_MODULUS = 1 << 256
_ROWS_PER_FETCH = 1_000  # also the rows between two reports of progress

BookLocation = tuple[AsyncConnection, int]  # a consistent view of a book, and the book's id there
_KeyedRows = tuple[tuple[Any, ...], list[tuple[Any, ...]]]  # a key, and its rows


class RowDifference(Struct, frozen=True, kw_only=True):
    """The rows of one key of a table that only one of two books has; of a total, the sums that differ.

    A total's key is its group, joined by "|".
    """

    table: str
    key: str
    left: list[dict[str, Any]]
    right: list[dict[str, Any]]


async def digest(connection: AsyncConnection, book: Book, book_id: int, advance: Advance = no_advance) -> str:
    """64 hex digits: the sum of the SHA-256 of every row and of every total that is not all zero.

    `advance` is called with numbers of rows as they are read.
    """
    digests = 0
    for row_type in tables.row_types(book):
        digests += await _sum_digests(connection, _select_rows(row_type, book_id), row_type.table, 0, advance)
    for total in book.totals:
        query, width = select_total(total, book_id), len(total.sums)
        digests += await _sum_digests(connection, query, total.table, width, advance)
    return f"{digests % _MODULUS:064x}"


def select_total(total: Total, book_id: int) -> Select[Any]:
    """The query for a total's groups and their sums over all partitions, in the order of its columns."""
    table = tables.TOTALS[total.table]
    group = [table.c[name] for name in total.group_by]
    return select(*group, *sum_columns(table, total.sums)).where(table.c.book == book_id).group_by(*group)


def _select_rows(row_type: type[Row], book_id: int) -> Select[Any]:
    table = tables.ROWS[row_type]
    columns = [column for column in table.c if column.name not in {"id", "book"}]
    return select(*columns).where(table.c.book == book_id)


async def _sum_digests(
    connection: AsyncConnection, query: Select[Any], name: str, width: int, advance: Advance
) -> int:
    """The sum of the digests of a query's rows, without rows whose last `width` columns are all zero."""
    total = 0
    async for rows in (await connection.stream(query)).partitions(_ROWS_PER_FETCH):
        for row in rows:
            values = tuple(row)
            if not width or any(values[-width:]):
                total += int.from_bytes(sha256(json.encode((name, *values))).digest())
        advance(len(rows))
    return total


async def differences(
    book: Book, left: BookLocation, right: BookLocation, limit: int = 20, advance: Advance = no_advance
) -> list[RowDifference]:
    """The differences of two books, for the first `limit` differing keys of each table, in order.

    The two may be builds in one view of a database, or be in two databases. `advance` is called with numbers
    of rows as they are read.
    """
    all_differences: list[RowDifference] = []
    for row_type in tables.row_types(book):
        table = tables.ROWS[row_type]
        names = [column.name for column in table.c][2:]  # `key` and the columns after it
        left_rows, right_rows = (
            _rows_by_key(view, _select_rows(row_type, book_id).order_by(table.c.key), slice(1), 0, advance)
            for view, book_id in (left, right)
        )
        all_differences += await _differing_keys(row_type.table, names, left_rows, right_rows, limit)
    for total in book.totals:
        group = [tables.TOTALS[total.table].c[name] for name in total.group_by]
        left_rows, right_rows = (
            _rows_by_key(
                view,
                select_total(total, book_id).order_by(*group),
                slice(len(group)),
                len(total.sums),
                advance,
            )
            for view, book_id in (left, right)
        )
        names = [*total.group_by, *total.sums]
        all_differences += await _differing_keys(total.table, names, left_rows, right_rows, limit)
    return all_differences


async def _rows_by_key(
    view: AsyncConnection, query: Select[Any], key: slice, width: int, advance: Advance
) -> AsyncGenerator[_KeyedRows]:
    """Each key of a query with its rows, in the query's order; without sums that are all zero."""
    group: _KeyedRows = ((), [])
    read = 0
    async for row in await view.stream(query):
        values = tuple(row)
        if (read := read + 1) % _ROWS_PER_FETCH == 0:
            advance(_ROWS_PER_FETCH)
        if width and not any(values[-width:]):
            continue
        if values[key] != group[0]:
            if group[1]:
                yield group
            group = (values[key], [])
        group[1].append(values)
    if group[1]:
        yield group


async def _differing_keys(
    table: str,
    names: list[str],
    left: AsyncGenerator[_KeyedRows],
    right: AsyncGenerator[_KeyedRows],
    limit: int,
) -> list[RowDifference]:
    """The first keys, in order, whose rows differ between two sides that are sorted by key."""
    found: list[RowDifference] = []
    async with aclosing(left), aclosing(right):
        left_group, right_group = await anext(left, None), await anext(right, None)
        while (left_group or right_group) and len(found) < limit:
            key = min(group[0] for group in (left_group, right_group) if group)
            left_rows = Counter(left_group[1] if left_group and left_group[0] == key else ())
            right_rows = Counter(right_group[1] if right_group and right_group[0] == key else ())
            if left_rows != right_rows:
                sides = (_as_dicts(names, left_rows - right_rows), _as_dicts(names, right_rows - left_rows))
                found.append(
                    RowDifference(table=table, key="|".join(map(str, key)), left=sides[0], right=sides[1])
                )
            if left_rows:
                left_group = await anext(left, None)
            if right_rows:
                right_group = await anext(right, None)
    return found


def _as_dicts(names: list[str], rows: "Counter[tuple[Any, ...]]") -> list[dict[str, Any]]:
    return [dict(zip(names, row, strict=True)) for row in sorted(rows.elements(), key=repr)]
