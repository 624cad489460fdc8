"""The engine: what the books do with events, the same for every book.

For each history that new events touch, in one transaction: contribute, compare with the rows that
stand, write the difference, add the difference to the totals, move the checkpoint. So incremental
equals replay, and effects happen once, whatever is delivered again and whenever a worker dies.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, fields
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book, Row, Rules, Stage, Total
from service.books import tables
from service.books.store import BookStore
from service.core.errors import DaybookError
from service.core.events import Event, subjects
from service.core.moments import to_us
from service.core.order import canonical
from service.ledger.store import Ledger

BATCH = 1_000  # events a transaction


class Overtaken(DaybookError):
    """Another worker moved the checkpoint first; nothing was written, and there is nothing to do."""


class Changes(Struct):
    """The rows that one transaction took out of a book and put into it."""

    removed: list[Row]
    added: list[Row]


# After each transaction's rows are written, and before it commits: what changed, up to which
# position, and whether the ledger's end was reached.
Settled = Callable[[AsyncConnection, Mapping[str, Changes], int, bool], Awaitable[None]]


class Engine:
    """Advances the books of one store over one ledger."""

    def __init__(
        self,
        ledger: Ledger,
        store: BookStore,
        clock: Callable[[], datetime],
        settled: Settled | None = None,
        batch: int = BATCH,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._settled = settled
        self._batch = batch

    async def catch_up(self, until: int | None = None) -> int:
        """Advance until every book has reached the ledger's end (or `until`); how many events that took."""
        total = 0
        while advanced := await self.advance(until):
            total += advanced
        return total

    async def advance(self, until: int | None = None) -> int:
        """One transaction for those books that are furthest behind; how many events it took in.

        Raises Overtaken if another worker did it first.
        """
        async with self._store.reading() as connection:
            marks = await self._store.checkpoints(connection)
        start = min(position for _, position in marks.values())
        books = [book for book in self._store.books if marks[book.name][1] == start]
        ahead = [position for _, position in marks.values() if position > start]
        stop = min([*ahead, until] if until is not None else ahead, default=None)
        limit = self._batch if stop is None else min(self._batch, stop - start)
        async with self._ledger.reading() as reader:
            batch = await reader.after(start, limit)
            if not batch:
                return 0
            end = batch[-1][0]
            kinds = _kinds(books)
            names = {n for _, event in batch for n in subjects(event) if n.split("|", 1)[0] in kinds}
            found = await reader.histories(names, up_to=end)
            at_head = len(batch) < limit and stop is None
        histories = {name: canonical(events) for name, events in found.items()}
        async with self._store.writing() as connection:
            changes = {}
            for book in books:
                book_id = marks[book.name][0]
                changes[book.name] = await _apply(connection, book, book_id, histories, self._store.rules)
                await self._move(connection, book_id, start, end)
            if self._settled:
                await self._settled(connection, changes, end, at_head)
        return len(batch)

    async def _move(self, connection: AsyncConnection, book_id: int, start: int, end: int) -> None:
        c = tables.checkpoints.c
        moved = await connection.execute(
            update(tables.checkpoints)
            .where(c.id == book_id, c.position == start)
            .values(position=end, advanced_at_us=to_us(self._clock()))
        )
        if moved.rowcount != 1:
            raise Overtaken(f"book {book_id} is not at position {start} any more")


def _kinds(books: Iterable[Book]) -> set[str]:
    return {stage.reads for book in books for stage in book.stages if isinstance(stage.reads, str)}


async def _apply(
    connection: AsyncConnection,
    book: Book,
    book_id: int,
    histories: Mapping[str, Sequence[Event]],
    rules: Rules,
) -> Changes:
    """Bring one book's rows and totals to what these histories contribute."""
    changes = Changes(removed=[], added=[])
    for stage in book.stages:
        inputs = await _inputs(connection, stage, book_id, histories, changes)
        if inputs:
            contributed = {key: stage.contribute(history, rules) for key, history in inputs.items()}
            for row_type in stage.rows:
                await _replace(connection, row_type, book_id, contributed, changes)
    for total in book.totals:
        await _add_up(connection, total, book_id, changes)
    return changes


async def _inputs(
    connection: AsyncConnection,
    stage: Stage,
    book_id: int,
    histories: Mapping[str, Sequence[Event]],
    changes: Changes,
) -> Mapping[str, Sequence[Any]]:
    """What a stage reads: the touched histories of its kind, or all rows under the touched keys."""
    if isinstance(stage.reads, str):
        prefix = stage.reads + "|"
        return {name: history for name, history in histories.items() if name.startswith(prefix)}
    sources = stage.reads
    touched = {row.feeds for row in (*changes.removed, *changes.added) if isinstance(row, sources)}
    rows: dict[str, list[Row]] = {key: [] for key in touched}
    if touched:
        for row_type in sources:
            for _id, _key, row in await _standing(connection, row_type, book_id, "feeds", touched):
                rows[row.feeds].append(row)
    return rows


async def _standing(
    connection: AsyncConnection, row_type: type[Row], book_id: int, column: str, keys: Iterable[str]
) -> list[tuple[int, str, Row]]:
    """The rows that stand under any of `keys`, as (id, key, row)."""
    table = tables.ROWS[row_type]
    names = [f.name for f in fields(row_type)]
    query = select(table.c.id, table.c.key, *(table.c[name] for name in names)).where(
        table.c.book == book_id, table.c[column].in_(bindparam("keys", expanding=True))
    )
    found = await connection.execute(query, {"keys": list(keys)})
    return [(v[0], v[1], row_type(**dict(zip(names, v[2:], strict=True)))) for v in found]


async def _replace(
    connection: AsyncConnection,
    row_type: type[Row],
    book_id: int,
    contributed: Mapping[str, Sequence[Row]],
    changes: Changes,
) -> None:
    """Write the difference between the rows that stand and those contributed, key by key."""
    standing = await _standing(connection, row_type, book_id, "key", contributed)
    wanted = {(key, row) for key, rows in contributed.items() for row in rows if type(row) is row_type}
    stale = []
    for row_id, key, row in standing:
        if (key, row) in wanted:
            wanted.remove((key, row))
        else:
            stale.append(row_id)
            changes.removed.append(row)
    table = tables.ROWS[row_type]
    if stale:
        await connection.execute(
            delete(table).where(table.c.id == bindparam("row_id")), [{"row_id": i} for i in stale]
        )
    if wanted:
        new = [{"book": book_id, "key": key, **asdict(row)} for key, row in wanted]
        await connection.execute(insert(table), new)
        changes.added += [row for _, row in wanted]


async def _add_up(connection: AsyncConnection, total: Total, book_id: int, changes: Changes) -> None:
    """Add the difference of the rows to a total's sums."""
    group = attrgetter(*total.by)
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(total.sums))
    for sign, rows in ((-1, changes.removed), (1, changes.added)):
        for row in rows:
            if type(row) is total.of:
                into = sums[group(row)]
                for i, value in enumerate(total.measure(row)):
                    into[i] += sign * value
    columns = (*total.by, *total.sums)
    new = [
        {"book": book_id, **dict(zip(columns, (*key, *values), strict=True))}
        for key, values in sums.items()
        if any(values)
    ]
    if new:
        table = tables.TOTALS[total.table]
        upsert = sqlite.insert(table)
        added = {name: table.c[name] + upsert.excluded[name] for name in total.sums}
        await connection.execute(
            upsert.on_conflict_do_update(index_elements=["book", *total.by], set_=added), new
        )
