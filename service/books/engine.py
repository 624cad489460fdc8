"""The engine: what the books do with events, the same for every book.

For each history that new events touch, in one transaction: contribute, compare with the rows that
stand, write the difference, add the difference to the totals, move the checkpoint. So incremental
equals replay, and effects happen once, whatever is delivered again and whenever a worker dies.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple
from sqlalchemy import Connection, bindparam, update

from projections.book import Book, Row, Rules, Stage, Total
from service.books import tables
from service.books.store import BookStore
from service.core.errors import DaybookError
from service.core.events import Event, subjects
from service.core.moments import to_us
from service.core.order import canonical
from service.ledger.history import after, histories
from service.ledger.store import Ledger
from service.sql import HotStatement, listed

BATCH = 1_000  # events a transaction


class Overtaken(DaybookError):
    """Another worker moved the checkpoint first; nothing was written, and there is nothing to do."""


class Changes(Struct):
    """The rows that one transaction took out of a book and put into it."""

    removed: list[Row]
    added: list[Row]


# Called when a transaction's rows are written, before it commits, with what changed in each book.
Settled = Callable[[Connection, Mapping[str, Changes]], None]


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
        self._marks: dict[str, tuple[int, int]] = {}  # as last written; forgotten when a write fails

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
        marks = self._marks or await self._store.write(self._store.checkpoints)
        self._marks = {}
        start = min(position for _, position in marks.values())
        books = {book: marks[book.name][0] for book in self._store.books if marks[book.name][1] == start}
        ahead = [position for _, position in marks.values() if position > start]
        stop = min([*ahead, until] if until is not None else ahead, default=None)
        limit = self._batch if stop is None else min(self._batch, stop - start)
        news = await self._ledger.read(lambda connection: _news(connection, start, limit, _kinds(books)))
        if news.count:
            await self._store.write(lambda connection: self._write(connection, books, start, news))
            marks |= {book.name: (book_id, news.end) for book, book_id in books.items()}
        self._marks = marks
        return news.count

    def _write(self, connection: Connection, books: Mapping[Book, int], start: int, news: "_News") -> None:
        changes = {}
        for book, book_id in books.items():
            changes[book.name] = _apply(connection, book, book_id, news.histories, self._store.rules)
            self._move(connection, book_id, start, news.end)
        if self._settled:
            self._settled(connection, changes)

    def _move(self, connection: Connection, book_id: int, start: int, end: int) -> None:
        if _MOVE.change(connection, [(end, to_us(self._clock()), book_id, start)]) != 1:
            raise Overtaken(f"book {book_id} is not at position {start} any more")


_MOVE = HotStatement(
    update(tables.checkpoints)
    .values(position=bindparam("end"), advanced_at_us=bindparam("now_us"))
    .where(
        tables.checkpoints.c.id == bindparam("of_book"), tables.checkpoints.c.position == bindparam("start")
    )
)


class _News(Struct):
    """New events: how many, up to which position, and every history that they touch, in order."""

    count: int
    end: int
    histories: dict[str, list[Event]]


def _news(connection: Connection, start: int, limit: int, kinds: set[str]) -> _News:
    batch = after(connection, start, limit)
    end = batch[-1][0] if batch else start
    names = {name for _, event in batch for name in subjects(event) if name.split("|", 1)[0] in kinds}
    found = histories(connection, names, up_to=end)
    return _News(
        count=len(batch), end=end, histories={name: canonical(events) for name, events in found.items()}
    )


def _kinds(books: Iterable[Book]) -> set[str]:
    return {stage.reads for book in books for stage in book.stages if isinstance(stage.reads, str)}


def _apply(
    connection: Connection,
    book: Book,
    book_id: int,
    histories: Mapping[str, Sequence[Event]],
    rules: Rules,
) -> Changes:
    """Bring one book's rows and totals to what these histories contribute."""
    changes = Changes(removed=[], added=[])
    for stage in book.stages:
        inputs = _inputs(connection, stage, book_id, histories, changes)
        if inputs:
            contributed = {key: stage.contribute(history, rules) for key, history in inputs.items()}
            for row_type in stage.rows:
                _replace(connection, row_type, book_id, contributed, changes)
    for total in book.totals:
        _add_up(connection, total, book_id, changes)
    return changes


def _inputs(
    connection: Connection,
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
            statements = tables.STATEMENTS[row_type]
            for _id, _key, *values in statements.by_feeds.rows(connection, book_id, listed(touched)):
                row = statements.row(values)
                rows[row.feeds].append(row)
    return rows


def _replace(
    connection: Connection,
    row_type: type[Row],
    book_id: int,
    contributed: Mapping[str, Sequence[Row]],
    changes: Changes,
) -> None:
    """Write the difference between the rows that stand and those contributed, key by key."""
    statements = tables.STATEMENTS[row_type]
    wanted = {(key, row) for key, rows in contributed.items() for row in rows if type(row) is row_type}
    stale = []
    for row_id, key, *values in statements.by_key.rows(connection, book_id, listed(contributed)):
        row = statements.row(values)
        if (key, row) in wanted:
            wanted.remove((key, row))
        else:
            stale.append((row_id,))
            changes.removed.append(row)
    if stale:
        statements.delete.change(connection, stale)
    if wanted:
        statements.insert.change(connection, [(book_id, key, *astuple(row)) for key, row in wanted])
        changes.added += [row for _, row in wanted]


def _add_up(connection: Connection, total: Total, book_id: int, changes: Changes) -> None:
    """Add the difference of the rows to a total's sums."""
    group = attrgetter(*total.by)
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(total.sums))
    for sign, rows in ((-1, changes.removed), (1, changes.added)):
        for row in rows:
            if type(row) is total.of:
                into = sums[group(row)]
                for i, value in enumerate(total.measure(row)):
                    into[i] += sign * value
    new = [(book_id, *key, *values) for key, values in sums.items() if any(values)]
    if new:
        tables.ADD[total.table].change(connection, new)
