"""The totals of the books, compared with the sums of their rows."""

from collections.abc import AsyncIterator
from typing import Any

from msgspec.structs import fields
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Row, Total
from projections.fold import add_rows_to_sums, group_getter, new_sums
from service.books.digest import select_total
from service.books.store import BookStore
from service.books.tables import ROWS, TOTALS
from service.core.progress import Advance, no_advance
from service.verify.fault import Fault, Location

_ROWS_PER_FETCH = 1_000


async def verify_totals(store: BookStore, advance: Advance = no_advance) -> None:
    """Compare each total with the sum of its rows; `advance` is called with numbers of rows. Raises Fault."""
    async with store.reading() as connection:
        positions = await connection.run_sync(store.positions)
        for book in store.books:
            for total in (*book.totals, *book.gross_totals):
                await _verify_total(connection, total, positions.books[book.name], advance)
                await _verify_partitions(connection, total, positions.books[book.name], store.partitions)


async def _verify_total(connection: AsyncConnection, total: Total, book_id: int, advance: Advance) -> None:
    group_of = group_getter(total)
    sums = new_sums(total)
    async for rows in _rows(connection, total.row_type, book_id):
        add_rows_to_sums(sums, total, rows)
        advance(len(rows))
    for stored in await connection.execute(select_total(total, book_id)):
        expected = sums.pop(group_of(stored), [0] * len(total.sums))
        wrong = [n for n, value in zip(total.sums, expected, strict=True) if getattr(stored, n) != value]
        if wrong:
            where = Location(table=total.table, key=_group_name(group_of(stored)), columns=tuple(wrong))
            raise Fault(f"{total.table}, group {where.key}, is not the sum of its rows", where)
    if missing := sorted(key for key, values in sums.items() if any(values)):
        where = Location(table=total.table, key=_group_name(missing[0]))
        raise Fault(f"{total.table} lacks the group {where.key}", where)


def _group_name(group: tuple[Any, ...]) -> str:
    return "|".join(map(str, group))


async def _rows(connection: AsyncConnection, row_type: type[Row], book_id: int) -> AsyncIterator[list[Row]]:
    """All rows of a type, some at a time."""
    table, names = ROWS[row_type], [f.name for f in fields(row_type)]
    query = select(*(table.c[name] for name in names)).where(table.c.book == book_id)
    async for rows in (await connection.stream(query)).partitions(_ROWS_PER_FETCH):
        yield [row_type(**dict(zip(names, values, strict=True))) for values in rows]


async def _verify_partitions(connection: AsyncConnection, total: Total, book_id: int, count: int) -> None:
    """Raise Fault if a sum is in a partition that does not exist: no worker would ever change it."""
    table = TOTALS[total.table]
    limits = func.max(table.c.partition), func.min(table.c.partition)
    highest, lowest = (await connection.execute(select(*limits).where(table.c.book == book_id))).one()
    if highest is not None and not 0 <= lowest <= highest < count:
        where = Location(table=total.table, columns=("partition",))
        raise Fault(f"{total.table} holds a partition that there is not, {lowest} or {highest}", where)
