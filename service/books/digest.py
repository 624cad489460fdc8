"""A book's digest: the same for the same rows and totals, in whatever order they were written."""

from hashlib import sha256
from typing import Any

from msgspec import json
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book, Total
from service.books import tables
from service.reads.view import sums

_MODULUS = 1 << 256


async def digest(connection: AsyncConnection, book: Book, book_id: int) -> str:
    """64 hex digits: the sum of SHA-256 over every row and every total that is not all zero."""
    total = 0
    for row_type in tables.row_types(book):
        table = tables.ROWS[row_type]
        columns = [column for column in table.c if column.name not in {"id", "book"}]
        query = select(*columns).where(table.c.book == book_id)
        total += await _sum(connection, query, row_type.table, 0)
    for of in book.totals:
        total += await _sum(connection, added_up(of, book_id), of.table, len(of.sums))
    return f"{total % _MODULUS:064x}"


def added_up(of: Total, book_id: int) -> Select[Any]:
    """A total over all partitions, in the order of its columns."""
    table = tables.TOTALS[of.table]
    by = [table.c[name] for name in of.by]
    return select(*by, *sums(table, of.sums)).where(table.c.book == book_id).group_by(*by)


async def _sum(connection: AsyncConnection, query: Select[Any], name: str, width: int) -> int:
    """The sum over a query's rows; those whose last `width` columns are all zero say nothing."""
    total = 0
    async for row in await connection.stream(query):
        values = tuple(row)
        if not width or any(values[-width:]):
            total += int.from_bytes(sha256(json.encode((name, *values))).digest())
    return total
