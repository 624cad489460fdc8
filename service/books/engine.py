"""The engine: what the books do with events, the same for every book.

For each history that new events touch, in one transaction: contribute, compare with the rows that
stand, write the difference, add the difference to the totals, move the checkpoint. So incremental
equals replay, and effects happen once, whatever is delivered again and whenever a worker dies.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Any, Literal, Protocol

from msgspec import Struct
from msgspec.structs import astuple
from sqlalchemy import Connection, bindparam, func, or_, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SQLAlchemyError

from projections.book import Book, Row, Rules, Stage, Total
from service.books import tables
from service.books.store import BookStore, partition_of
from service.core.errors import DaybookError
from service.core.events import Event, subjects
from service.core.moments import to_us
from service.core.order import canonical
from service.ledger.append import read_head
from service.ledger.history import read_events, read_histories
from service.ledger.store import Ledger
from service.storage.statements import POSTGRESQL, HotInsert, HotStatement, any_of, now_us

_c = tables.checkpoints.c

BATCH = 1_000  # events a transaction
_PIECE = 100  # keys that a later stage contributes to at once
_GROWTH = 4  # how many times the events there are when PostgreSQL should look at its tables again


class Overtaken(DaybookError):
    """Another worker moved the checkpoint first, or it is held; nothing was written: look again soon."""


class Changes(Struct):
    """The rows that one transaction took out of a book and put into it."""

    removed: list[Row]
    added: list[Row]


class Holding(Protocol):
    """Which partitions this process may write."""

    @property
    def fences(self) -> Mapping[int, int]:
        """The partitions, each with the number of its lease."""

    def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        """Raise Overtaken unless these are held until this transaction ends."""


class Engine:
    """Advances the books of one store over one ledger, in the partitions that it holds."""

    def __init__(
        self,
        ledger: Ledger,
        store: BookStore,
        clock: Callable[[], datetime],
        holding: Holding | None = None,
        batch: int = BATCH,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._holding = holding or _Everything(store.partitions)
        self._batch = self._size = batch
        self._ids: dict[str, int] = {}
        self._analyze_at = 0
        self._last_positions: dict[tuple[str, int], int] = {}  # as last written; forgotten when a write fails
        self._stop_at: int | None = None  # where the books are held just now

    async def catch_up(self, until: int | None = None) -> int:
        """Advance until all that is held has reached the ledger's end (or `until`); how many events."""
        total = 0
        while advanced := await self.advance(until):
            total += advanced
        return total

    async def advance(self, until: int | None = None) -> int:
        """One transaction for what is furthest behind of all that is held; how many events it took in.

        Raises Overtaken if another worker did it first, or holds it now; or if the books may not pass where
        they are for a moment. After any other error the next one is smaller: it may have been too much for
        the time that a transaction may take.
        """
        try:
            count = await self._advance(until)
        except (SQLAlchemyError, OSError):
            self._size = max(1, self._size // 4)
            raise
        self._size = min(self._batch, 2 * self._size)
        return count

    async def _advance(self, until: int | None) -> int:
        held = set(self._holding.fences)
        if not held:
            return 0
        positions, self._last_positions = await self._positions(held), {}
        start = min(positions.values())
        if self._stop_at is not None and (until is None or until > self._stop_at):
            if start >= self._stop_at:
                raise Overtaken(f"the books are held at position {self._stop_at} for a moment")
            until = self._stop_at
        due = {
            book: {part for name, part in positions if (name, positions[name, part]) == (book.name, start)}
            for book in self._store.books
        }
        due = {book: parts for book, parts in due.items() if parts}
        ahead = [position for position in positions.values() if position > start]
        stop = min([*ahead, until] if until is not None else ahead, default=None)
        limit = self._size if stop is None else min(self._size, stop - start)
        news = await self._ledger.read(partial(self._news, start=start, limit=limit, due=due))
        if news.count:
            folded = await asyncio.to_thread(_fold, due, news, self._store.rules)
            await self._store.write(partial(self._write, due=due, start=start, end=news.end, folded=folded))
            positions |= {(book.name, part): news.end for book, parts in due.items() for part in parts}
            await self._analyze(news.end)
        self._last_positions = (
            positions if news.count else {}
        )  # at rest look again: a crash may have undone the last step
        return news.count

    async def _analyze(self, position: int) -> None:
        """Have statistics taken as the books grow: a plan made for empty ones reads the whole book.

        Autovacuum would do it too, once a minute at most.
        """
        if self.leads and position >= self._analyze_at:
            self._analyze_at = _GROWTH * position
            with suppress(SQLAlchemyError, OSError):  # it is a matter of speed only
                await self._store.write(self._store.analyze)

    @property
    def leads(self) -> bool:
        """Whether this is the one of all engines that does what only one should."""
        return 0 in self._holding.fences

    async def is_behind(self) -> bool:
        """Whether any partition, of whichever engine, has not reached the ledger's end."""
        end = (await self._ledger.read(read_head)).position
        return (await self._store.read(self._store.positions)).position < end

    async def _positions(self, held: set[int]) -> dict[tuple[str, int], int]:
        """The position of each held partition of each book: as this engine last wrote them, else read."""
        if self._stop_at is not None or {part for _, part in self._last_positions} != held:

            def find(connection: Connection) -> dict[tuple[str, int], int]:
                self._ids = self._store.positions(connection).books
                self._stop_at = self._store.held(connection, self._ids)
                return self._store.checkpoints(connection, self._ids)

            found = await self._store.read(find)
            return {unit: position for unit, position in found.items() if unit[1] in held}
        return self._last_positions

    def _news(self, connection: Connection, start: int, limit: int, due: "Due") -> "_News":
        batch = read_events(connection, start, limit)
        end = batch[-1][0] if batch else start
        kinds = {stage.reads for book in due for stage in book.stages}
        parts = set().union(*due.values())
        names: dict[str, int] = {}
        for name in {name for _, event in batch for name in subjects(event)}:
            part = partition_of(name, self._store.partitions)
            if part in parts and name.split("|", 1)[0] in kinds:
                names[name] = part
        found = read_histories(connection, names, end, self._ledger.vault)
        news = _News(count=len(batch), end=end, histories={part: {} for part in parts})
        for name, events in found.items():
            news.histories[names[name]][name] = canonical(events)
        return news

    def _write(self, connection: Connection, due: "Due", start: int, end: int, folded: "_Folded") -> None:
        self._holding.check(connection, set().union(*due.values()))
        for book, parts in due.items():
            book_id = self._ids[book.name]
            rules = self._store.rules.with_policy(book.policy)
            changes = _apply(connection, book, book_id, folded[book], rules, min(parts))
            changed = end if changes.removed or changes.added else 0
            to = (end, changed, to_us(self._clock()))
            moved = _MOVE.run(connection, *to, book_id, sorted(parts), start, end)
            if len(moved) != len(parts):
                raise Overtaken(f"book {book.name} is not at position {start} any more, or held")


Due = Mapping[Book, set[int]]  # partitions by book


class _Everything:
    """The one worker of a store holds all of it."""

    def __init__(self, partitions: int) -> None:
        self.fences = dict.fromkeys(range(partitions), 0)

    def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        """Nobody else is there."""


_MOVE = HotStatement(
    lambda dialect: (
        update(tables.checkpoints)
        .values(
            position=bindparam("end"),
            changed=(func.greatest if dialect is postgresql else func.max)(
                _c.changed, bindparam("changed_at")
            ),
            advanced_at_us=bindparam("now_us"),
        )
        .where(
            _c.book == bindparam("of_book"),
            any_of(_c.partition, "parts"),
            _c.position == bindparam("start"),
            or_(_c.held_until_us <= now_us(dialect), _c.held >= bindparam("moved_to")),
        )
        .returning(_c.partition)
    )
)
# A key that rows of several partitions feed is contributed to by one transaction at a time. Each locks
# its keys in one order, so none waits for another that waits for it.
_LOCK_KEYS = HotInsert(
    tables.key_locks,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=("book", "key"), set_={"key": insert.excluded.key}
    ),
)


class _News(Struct):
    """New events: how many, up to which position, and the histories they touch, in order, by partition."""

    count: int
    end: int
    histories: dict[int, dict[str, list[Event]]]


Contributed = Mapping[str, Sequence[Row]]  # rows by the key that contributed them
_Folded = Mapping[Book, Mapping[Stage, Contributed]]


def _fold(due: Due, news: _News, rules: Rules) -> _Folded:
    """What the histories contribute, before any lock is taken: it may take long."""
    folded = {}
    for book, parts in due.items():
        own = rules.with_policy(book.policy)
        folded[book] = {
            stage: {
                name: stage.contribute(history, own)
                for part in parts
                for name, history in news.histories[part].items()
                if name.startswith(f"{stage.reads}|")
            }
            for stage in book.stages
            if isinstance(stage.reads, str)
        }
    return folded


def _apply(
    connection: Connection,
    book: Book,
    book_id: int,
    folded: Mapping[Stage, Contributed],
    rules: Rules,
    partition: int,
) -> Changes:
    """Bring one book's rows and totals to what histories contribute; the totals of `partition`."""
    changes = Changes(removed=[], added=[])
    for stage in book.stages:
        pieces = (
            [folded[stage]]
            if stage in folded
            else _contribute_parents(connection, stage, book_id, changes, rules)
        )
        for contributed in pieces:
            for row_type in stage.rows:
                _replace(connection, row_type, book_id, contributed, changes)
    for total in book.totals:
        _add_up(connection, total, book_id, partition, changes)
    return changes


def _contribute_parents(
    connection: Connection, stage: Stage, book_id: int, changes: Changes, rules: Rules
) -> Iterator[Contributed]:
    """What a later stage contributes, of all rows under the keys that changed rows feed.

    In pieces: PostgreSQL ends a transaction that says nothing for some seconds.
    """
    sources = stage.reads
    assert isinstance(sources, tuple)  # noqa: S101 - stages that read histories are folded before
    changed = (row for row in (*changes.removed, *changes.added) if isinstance(row, sources))
    touched = sorted({row.parent_key for row in changed if row.parent_key})
    if touched and connection.dialect.name == POSTGRESQL:
        _LOCK_KEYS.add(connection, [(book_id, key) for key in touched])
    for start in range(0, len(touched), _PIECE):
        rows = child_rows_of(connection, stage, book_id, touched[start : start + _PIECE])
        yield {key: stage.contribute(children, rules) for key, children in rows.items()}


def child_rows_of(
    connection: Connection, stage: Stage, book_id: int, keys: Sequence[str]
) -> dict[str, list[Row]]:
    """The rows that feed each of these keys of a later stage."""
    rows: dict[str, list[Row]] = {key: [] for key in keys}
    for row_type in stage.reads:
        statements = tables.STATEMENTS[row_type]  # type: ignore[index]  # a later stage reads row types
        for _id, _key, *values in statements.by_parent_key.run(connection, book_id, list(rows)):
            row = statements.row(values)
            rows[row.parent_key].append(row)
    return rows


def _replace(
    connection: Connection,
    row_type: type[Row],
    book_id: int,
    contributed: Contributed,
    changes: Changes,
) -> None:
    """Write the difference between the rows that stand and those contributed, key by key."""
    statements = tables.STATEMENTS[row_type]
    wanted = {(key, row) for key, rows in contributed.items() for row in rows if type(row) is row_type}
    stale = []
    for row_id, key, *values in statements.by_key.run(connection, book_id, list(contributed)):
        row = statements.row(values)
        if (key, row) in wanted:
            wanted.remove((key, row))
        else:
            stale.append(row_id)
            changes.removed.append(row)
    if stale:
        statements.delete.run(connection, stale)
    if wanted:
        statements.insert.add(connection, [(book_id, key, *astuple(row)) for key, row in wanted])
        changes.added += [row for _, row in wanted]


def _add_up(connection: Connection, total: Total, book_id: int, partition: int, changes: Changes) -> None:
    """Add the difference of the rows to a total's sums in one partition, which nobody else writes.

    A row may have been added in another: only the sum over all of them says anything.
    """
    sums = new_sums(total)
    add_to(sums, total, changes.removed, -1)
    add_to(sums, total, changes.added)
    new = [(book_id, partition, *key, *values) for key, values in sums.items() if any(values)]
    if new:
        tables.ADD[total.table].add(connection, sorted(new))


Sums = dict[tuple[Any, ...], list[int]]  # by group


def new_sums(total: Total) -> Sums:
    """Sums of a total, all of them 0."""
    return defaultdict(partial(_zeros, len(total.sums)))


def _zeros(count: int) -> list[int]:
    return [0] * count


def add_to(sums: Sums, total: Total, rows: Iterable[Row], sign: Literal[1, -1] = 1) -> None:
    """Add what rows measure to their groups; those of other tables measure nothing."""
    group = attrgetter(*total.group_by)
    for row in rows:
        for part in total.split(row) if type(row) is total.row_type else ():
            into = sums[group(part)]
            for i, value in enumerate(total.measure(part)):
                into[i] += sign * value
