"""The engine: updates the books by new events, in the same way for every book.

For each history that new events touch, in one transaction: contribute rows, compare them with the stored
rows, write the difference, add the difference to the totals, move the checkpoint. So an update gives what a
replay gives, and takes effect once, whatever is delivered again and whenever a worker dies.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import product
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

BATCH = 1_000  # events in one transaction
_KEYS_AT_ONCE = 100  # parent keys to which a later stage contributes at once
_ANALYZE_GROWTH = 4  # by this factor the ledger grows before PostgreSQL takes the tables' statistics again


class Overtaken(DaybookError):
    """Another worker moved the checkpoint first, or it is held. Nothing was written; try again soon."""


class Changes(Struct):
    """The rows that one transaction removed from a book and added to it."""

    removed: list[Row]
    added: list[Row]


class HeldPartitions(Protocol):
    """The partitions that this process may write."""

    @property
    def fences(self) -> Mapping[int, int]:
        """The partitions, each with the fence of its lease."""

    def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        """Raise Overtaken unless this process holds these partitions until the transaction ends."""


class Engine:
    """Advances the books of one store over one ledger, in the partitions that this process holds."""

    def __init__(
        self,
        ledger: Ledger,
        store: BookStore,
        clock: Callable[[], datetime],
        partitions: HeldPartitions | None = None,
        batch: int = BATCH,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._partitions = partitions or _AllPartitions(store.partitions)
        self._batch = self._size = batch
        self._ids: dict[str, int] = {}
        self._analyze_at = 0
        self._last_positions: dict[tuple[str, int], int] = {}  # as last written; dropped when a write fails
        self._stop_at: int | None = None  # the position at which the books are held at the moment

    async def catch_up(self, until: int | None = None) -> int:
        """Advance until the held partitions are at the ledger's end (or at `until`); the number of events."""
        total = 0
        while advanced := await self.advance(until):
            total += advanced
        return total

    async def advance(self, until: int | None = None) -> int:
        """Advance the held partitions that are furthest behind by one transaction; the number of its events.

        Raises Overtaken if another worker did it first, or holds a partition now; or if the books are held
        at their position for a moment. After any other error the next batch is smaller: this one may have
        been too large for the time that a transaction may take.
        """
        try:
            count = await self._advance(until)
        except (SQLAlchemyError, OSError):
            self._size = max(1, self._size // 4)
            raise
        self._size = min(self._batch, 2 * self._size)
        return count

    async def _advance(self, until: int | None) -> int:
        partitions = set(self._partitions.fences)
        if not partitions:
            return 0
        positions, self._last_positions = await self._positions(partitions), {}
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
        new = await self._ledger.read(partial(self._read_new_events, start=start, limit=limit, due=due))
        if new.count:
            folded = await asyncio.to_thread(_fold_histories, due, new, self._store.rules)
            await self._store.write(partial(self._write, due=due, start=start, end=new.end, folded=folded))
            positions |= {(book.name, part): new.end for book, parts in due.items() for part in parts}
            await self._analyze(new.end)
        # Without new events the positions are read again: a crash may have undone the last step.
        self._last_positions = positions if new.count else {}
        return new.count

    async def _analyze(self, position: int) -> None:
        """Take statistics as the books grow: a query plan made for empty books reads whole tables.

        Autovacuum takes them too, but once a minute at most.
        """
        if self.is_leader and position >= self._analyze_at:
            self._analyze_at = _ANALYZE_GROWTH * position
            with suppress(SQLAlchemyError, OSError):  # only the speed depends on it
                await self._store.write(self._store.analyze)

    @property
    def is_leader(self) -> bool:
        """Whether this engine, alone of all, does the work that only one process should do."""
        return 0 in self._partitions.fences

    async def is_behind(self) -> bool:
        """Whether any partition, of any engine, is behind the ledger's end."""
        end = (await self._ledger.read(read_head)).position
        return (await self._store.read(self._store.positions)).position < end

    async def _positions(self, partitions: set[int]) -> dict[tuple[str, int], int]:
        """The position of each of these partitions of each book: as this engine last wrote it, else read."""
        if self._stop_at is not None or {part for _, part in self._last_positions} != partitions:

            def read(connection: Connection) -> dict[tuple[str, int], int]:
                self._ids = self._store.positions(connection).books
                self._stop_at = self._store.held_position(connection, self._ids)
                return self._store.checkpoints(connection, self._ids)

            positions = await self._store.read(read)
            return {unit: position for unit, position in positions.items() if unit[1] in partitions}
        return self._last_positions

    def _read_new_events(self, connection: Connection, start: int, limit: int, due: "Due") -> "_NewEvents":
        batch = read_events(connection, start, limit)
        end = batch[-1][0] if batch else start
        kinds = {stage.reads for book in due for stage in book.stages}
        parts = set().union(*due.values())
        names: dict[str, int] = {}
        for name in {name for _, event in batch for name in subjects(event)}:
            part = partition_of(name, self._store.partitions)
            if part in parts and name.split("|", 1)[0] in kinds:
                names[name] = part
        new = _NewEvents(count=len(batch), end=end, histories={part: {} for part in parts})
        for name, events in read_histories(connection, names, end, self._ledger.vault).items():
            new.histories[names[name]][name] = canonical(events)
        return new

    def _write(self, connection: Connection, due: "Due", start: int, end: int, folded: "_Folded") -> None:
        self._partitions.check(connection, set().union(*due.values()))
        for book, parts in due.items():
            book_id = self._ids[book.name]
            rules = self._store.rules.with_policy(book.policy)
            changes = _write_book(connection, book, book_id, folded[book], rules, min(parts))
            changed = end if changes.removed or changes.added else 0
            target = (end, changed, to_us(self._clock()))
            moved = _MOVE_CHECKPOINTS.run(connection, *target, book_id, sorted(parts), start, end)
            if len(moved) != len(parts):
                raise Overtaken(f"book {book.name} is not at position {start} any more, or held")


Due = Mapping[Book, set[int]]  # partitions by book


class _AllPartitions:
    """All partitions of a store that has one worker."""

    def __init__(self, partitions: int) -> None:
        self.fences = dict.fromkeys(range(partitions), 0)

    def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        """Do nothing: there is no other worker."""


_MOVE_CHECKPOINTS = HotStatement(
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
# One transaction at a time contributes to a parent key, whose rows may be of several partitions. All lock
# their keys in the same order, so no deadlock arises.
_LOCK_KEYS = HotInsert(
    tables.key_locks,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=("book", "key"), set_={"key": insert.excluded.key}
    ),
)


class _NewEvents(Struct):
    """The count of new events, the last position, and the histories that they touch, by partition."""

    count: int
    end: int
    histories: dict[int, dict[str, list[Event]]]


Contributed = Mapping[str, Sequence[Row]]  # rows by the key that contributed them
_Folded = Mapping[Book, Mapping[Stage, Contributed]]


def _fold_histories(due: Due, new: _NewEvents, rules: Rules) -> _Folded:
    """The rows that the histories contribute. It may take long, so no lock is held meanwhile.

    Books that share a stage, under the same rules, share its rows.
    """
    shared: dict[tuple[Stage, Rules, int], Contributed] = {}
    folded: dict[Book, dict[Stage, Contributed]] = {}
    for book, parts in due.items():
        book_rules = rules.with_policy(book.policy)
        folded[book] = {stage: {} for stage in book.stages if isinstance(stage.reads, str)}
        for stage, part in product(folded[book], parts):
            key = stage, book_rules, part
            if key not in shared:
                shared[key] = _fold_part(stage, new.histories[part], book_rules)
            folded[book][stage] = {**folded[book][stage], **shared[key]}
    return folded


def _fold_part(stage: Stage, histories: Mapping[str, Sequence[Event]], rules: Rules) -> Contributed:
    """The rows that a stage contributes from the histories that it reads, by their names."""
    reads = f"{stage.reads}|"
    return {
        name: stage.contribute(history, rules)
        for name, history in histories.items()
        if name.startswith(reads)
    }


def _write_book(
    connection: Connection,
    book: Book,
    book_id: int,
    folded: Mapping[Stage, Contributed],
    rules: Rules,
    partition: int,
) -> Changes:
    """Write one book's contributed rows and their totals, the totals in `partition`; return the changes."""
    changes = Changes(removed=[], added=[])
    for stage in book.stages:
        contributions = (
            [folded[stage]]
            if stage in folded
            else _contribute_parents(connection, stage, book_id, changes, rules)
        )
        for contributed in contributions:
            for row_type in stage.rows:
                _write_rows(connection, row_type, book_id, contributed, changes)
    for total in book.totals:
        _update_total(connection, total, book_id, partition, changes)
    return changes


def _contribute_parents(
    connection: Connection, stage: Stage, book_id: int, changes: Changes, rules: Rules
) -> Iterator[Contributed]:
    """The rows that a later stage contributes to the parent keys of the changed rows.

    Some keys at a time: PostgreSQL ends a transaction that is idle for some seconds.
    """
    child_types = stage.reads
    assert isinstance(child_types, tuple)  # noqa: S101 - stages that read histories are folded before
    changed = (row for row in (*changes.removed, *changes.added) if isinstance(row, child_types))
    keys = sorted({row.parent_key for row in changed if row.parent_key})
    if keys and connection.dialect.name == POSTGRESQL:
        _LOCK_KEYS.add(connection, [(book_id, key) for key in keys])
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        rows = child_rows_of(connection, stage, book_id, keys[start : start + _KEYS_AT_ONCE])
        yield {key: stage.contribute(children, rules) for key, children in rows.items()}


def child_rows_of(
    connection: Connection, stage: Stage, book_id: int, keys: Sequence[str]
) -> dict[str, list[Row]]:
    """The rows of earlier stages with each of these parent keys, which `stage` reads."""
    rows: dict[str, list[Row]] = {key: [] for key in keys}
    for row_type in stage.reads:
        statements = tables.STATEMENTS[row_type]  # type: ignore[index]  # a later stage reads row types
        for _id, _key, *values in statements.by_parent_key.run(connection, book_id, list(rows)):
            row = statements.to_row(values)
            rows[row.parent_key].append(row)
    return rows


def _write_rows(
    connection: Connection,
    row_type: type[Row],
    book_id: int,
    contributed: Contributed,
    changes: Changes,
) -> None:
    """Write the difference between the stored and the contributed rows of these keys; add it to `changes`."""
    statements = tables.STATEMENTS[row_type]
    missing = {(key, row) for key, rows in contributed.items() for row in rows if type(row) is row_type}
    stale_ids = []
    for row_id, key, *values in statements.by_key.run(connection, book_id, list(contributed)):
        row = statements.to_row(values)
        if (key, row) in missing:
            missing.remove((key, row))
        else:
            stale_ids.append(row_id)
            changes.removed.append(row)
    if stale_ids:
        statements.delete.run(connection, stale_ids)
    if missing:
        statements.insert.add(connection, [(book_id, key, *astuple(row)) for key, row in missing])
        changes.added += [row for _, row in missing]


def _update_total(
    connection: Connection, total: Total, book_id: int, partition: int, changes: Changes
) -> None:
    """Add the changes of the rows to a total's sums in one partition, which no other process writes.

    A removed row may have been added in another partition, so a sum over one partition has no meaning;
    only the sum over all of them has.
    """
    sums = new_sums(total)
    add_rows_to_sums(sums, total, changes.removed, -1)
    add_rows_to_sums(sums, total, changes.added)
    new = [(book_id, partition, *key, *values) for key, values in sums.items() if any(values)]
    if new:
        tables.ADD_TO_TOTALS[total.table].add(connection, sorted(new))


Sums = dict[tuple[Any, ...], list[int]]  # by group


def new_sums(total: Total) -> Sums:
    """Sums of a total, all of them 0."""
    return defaultdict(partial(_zeros, len(total.sums)))


def _zeros(count: int) -> list[int]:
    return [0] * count


def add_rows_to_sums(sums: Sums, total: Total, rows: Iterable[Row], sign: Literal[1, -1] = 1) -> None:
    """Add the rows' measures to the sums of their groups; rows of other types don't count."""
    group_of = attrgetter(*total.group_by)
    for row in rows:
        for part in total.split(row) if type(row) is total.row_type else ():
            group_sums = sums[group_of(part)]
            for i, value in enumerate(total.measure(part)):
                group_sums[i] += sign * value
