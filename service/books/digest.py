"""A book's digest: the same for the same rows and totals, in whatever order they were written."""

from hashlib import sha256

from msgspec import json
from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book
from service.books import tables

_MODULUS = 1 << 256


async def digest(connection: AsyncConnection, book: Book, book_id: int) -> str:
    """64 hex digits: the sum of SHA-256 over every row and every total that is not all zero."""
    total = 0
    for row_type in tables.row_types(book):
        table = tables.ROWS[row_type]
        total += await _sum(
            connection, table, book_id, [c.name for c in table.c if c.name not in {"id", "book"}], 0
        )
    for of in book.totals:
        total += await _sum(connection, tables.TOTALS[of.table], book_id, [*of.by, *of.sums], len(of.sums))
    return f"{total % _MODULUS:064x}"


async def _sum(connection: AsyncConnection, table: Table, book_id: int, names: list[str], sums: int) -> int:
    """The sum over a table; rows whose last `sums` columns are all zero say nothing and are left out."""
    query = select(*(table.c[name] for name in names)).where(table.c.book == book_id)
    total = 0
    async for row in await connection.stream(query):
        values = tuple(row)
        if not sums or any(values[-sums:]):
            total += int.from_bytes(sha256(json.encode((str(table.name), *values))).digest())
    return total
