"""A book's digest: the same for the same rows and totals, in whatever order they were written.

And, where two digests differ, the keys under which the books do.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from hashlib import sha256
from typing import Any

from msgspec import Struct, json
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book, Row, Total
from service.books import tables
from service.books.view import sums

_MODULUS = 1 << 256
_PIECE = 1_000  # rows between two words of progress

Kept = tuple[AsyncConnection, int]  # a consistent view of a book, and the book's id there
_Under = tuple[tuple[Any, ...], list[tuple[Any, ...]]]  # a key, and the rows under it


class Difference(Struct, frozen=True, kw_only=True):
    """What only one of two books has in a table, under a key; of a total, the sums where they differ.

    A total's key is its group, joined by "|".
    """

    table: str
    key: str
    left: list[dict[str, Any]]
    right: list[dict[str, Any]]


def _quiet(_rows: int) -> None:
    pass


async def digest(
    connection: AsyncConnection, book: Book, book_id: int, done: Callable[[int], None] = _quiet
) -> str:
    """64 hex digits: the sum of SHA-256 over every row and every total that is not all zero.

    `done` is told the rows, some at a time.
    """
    total = 0
    for row_type in tables.row_types(book):
        total += await _sum(connection, _rows_of(row_type, book_id), row_type.table, 0, done)
    for of in book.totals:
        total += await _sum(connection, added_up(of, book_id), of.table, len(of.sums), done)
    return f"{total % _MODULUS:064x}"


def added_up(of: Total, book_id: int) -> Select[Any]:
    """A total over all partitions, in the order of its columns."""
    table = tables.TOTALS[of.table]
    by = [table.c[name] for name in of.group_by]
    return select(*by, *sums(table, of.sums)).where(table.c.book == book_id).group_by(*by)


def _rows_of(row_type: type[Row], book_id: int) -> Select[Any]:
    table = tables.ROWS[row_type]
    columns = [column for column in table.c if column.name not in {"id", "book"}]
    return select(*columns).where(table.c.book == book_id)


async def _sum(
    connection: AsyncConnection, query: Select[Any], name: str, width: int, done: Callable[[int], None]
) -> int:
    """The sum over a query's rows; those whose last `width` columns are all zero say nothing."""
    total = 0
    async for piece in (await connection.stream(query)).partitions(_PIECE):
        for row in piece:
            values = tuple(row)
            if not width or any(values[-width:]):
                total += int.from_bytes(sha256(json.encode((name, *values))).digest())
        done(len(piece))
    return total


async def differences(
    book: Book, left: Kept, right: Kept, limit: int = 20, done: Callable[[int], None] = _quiet
) -> list[Difference]:
    """The keys under which two books are not the same, the first `limit` of each table, in order.

    The two may be builds in one view of a database, or be in two databases. `done` is told the rows, some at
    a time.
    """
    found: list[Difference] = []
    for row_type in tables.row_types(book):
        table = tables.ROWS[row_type]
        names = [column.name for column in table.c][2:]  # `key` and what follows it
        one, other = (
            _grouped(view, _rows_of(row_type, book_id).order_by(table.c.key), slice(1), 0, done)
            for view, book_id in (left, right)
        )
        found += await _unlike(row_type.table, names, one, other, limit)
    for of in book.totals:
        by = [tables.TOTALS[of.table].c[name] for name in of.group_by]
        one, other = (
            _grouped(view, added_up(of, book_id).order_by(*by), slice(len(by)), len(of.sums), done)
            for view, book_id in (left, right)
        )
        found += await _unlike(of.table, [*of.group_by, *of.sums], one, other, limit)
    return found


async def _grouped(
    view: AsyncConnection, query: Select[Any], key: slice, width: int, done: Callable[[int], None]
) -> AsyncGenerator[_Under]:
    """The rows of a query under each key, in the query's order; without sums that are all zero."""
    under: _Under = ((), [])
    read = 0
    async for row in await view.stream(query):
        values = tuple(row)
        if (read := read + 1) % _PIECE == 0:
            done(_PIECE)
        if width and not any(values[-width:]):
            continue
        if values[key] != under[0]:
            if under[1]:
                yield under
            under = (values[key], [])
        under[1].append(values)
    if under[1]:
        yield under


async def _unlike(
    table: str, names: list[str], left: AsyncGenerator[_Under], right: AsyncGenerator[_Under], limit: int
) -> list[Difference]:
    """The first keys of two sides in order under which they have other rows."""
    found: list[Difference] = []
    async with aclosing(left), aclosing(right):
        one, other = await anext(left, None), await anext(right, None)
        while (one or other) and len(found) < limit:
            key = min(side[0] for side in (one, other) if side)
            ours = Counter(one[1] if one and one[0] == key else ())
            theirs = Counter(other[1] if other and other[0] == key else ())
            if ours != theirs:
                sides = (_named(names, ours - theirs), _named(names, theirs - ours))
                found.append(
                    Difference(table=table, key="|".join(map(str, key)), left=sides[0], right=sides[1])
                )
            if ours:
                one = await anext(left, None)
            if theirs:
                other = await anext(right, None)
    return found


def _named(names: list[str], rows: "Counter[tuple[Any, ...]]") -> list[dict[str, Any]]:
    return [dict(zip(names, row, strict=True)) for row in sorted(rows.elements(), key=repr)]
