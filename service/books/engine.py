"""The engine: updates the books by new events, in the same way for every book.

For each history that new events touch, in one transaction: contribute rows, compare them with the stored
rows, write the difference, add the difference to the totals, move the checkpoint. So an update gives what a
replay gives, and takes effect once, whatever is delivered again and whenever a worker dies.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog
from msgspec import Struct
from sqlalchemy import Connection, bindparam, func, or_, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SQLAlchemyError

from projections.book import Book, Rules, Stage, Total
from projections.fold import (
    Contributed,
    FoldError,
    HistoryRows,
    RowChanges,
    Rows,
    Sums,
    check_gross,
    fold,
    ordered,
    sum_changes,
)
from projections.kept import MOST_KEPT, KeptFolds, LaterEvents
from service.books import tables
from service.books.failures import find_first_unread
from service.books.rows import WrittenRows, read_gross, stored_rows
from service.books.store import BookStore, partition_of
from service.core.errors import DaybookError
from service.core.events import Event, subjects
from service.core.moments import to_us
from service.ledger.append import read_head
from service.ledger.history import read_events, read_histories, read_limits, read_placed_histories
from service.ledger.store import Ledger
from service.storage.statements import HotStatement, any_of, now_us

_c = tables.checkpoints.c

BATCH = 5_000  # events in one transaction; a history is folded once for all of its events in it
log = structlog.get_logger()

_ANALYZE_GROWTH = 4  # by this factor the ledger grows before PostgreSQL takes the tables' statistics again


class Overtaken(DaybookError):
    """Another worker moved the checkpoint first, or it is held. Nothing was written; try again soon."""


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
        kept_states: int = MOST_KEPT,
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
        self._kept = KeptFolds(kept_states)

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

        A history from which a book can't be made is set aside from the event on with which it fails; raises
        FoldError if that does not help.
        """
        try:
            while (count := await self._advance(until)) is None:
                pass
        except (SQLAlchemyError, OSError):
            self._shrink()
            raise
        self._size = min(self._batch, 2 * self._size)
        return count

    async def _advance(self, until: int | None) -> int | None:
        """The number of events; None if a history was set aside, so that the same is to be tried again."""
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
        place = (dict(self._partitions.fences), {book.name: parts for book, parts in due.items()})
        self._kept.leave((start, place))
        new = await self._ledger.read(partial(self._read_new_events, start=start, limit=limit, due=due))
        if new.count:
            try:
                folded = await asyncio.to_thread(_fold_histories, due, new, self._store.rules, self._kept)
                await self._store.write(
                    partial(self._write, due=due, start=start, end=new.end, folded=folded)
                )
            except FoldError as failed:
                await self._set_aside(failed, new)
                self._shrink()  # others near it may fail, too, and are found the faster the fewer there are
                return None
            positions |= {(book.name, part): new.end for book, parts in due.items() for part in parts}
            await self._analyze(new.end)
        for name in new.set_aside:  # they were not read whole
            self._kept.forget(name)
        self._kept.arrive((new.end, place))
        # Without new events the positions are read again: a crash may have undone the last step.
        self._last_positions = positions if new.count else {}
        return new.count

    def _shrink(self) -> None:
        self._size = max(1, self._size // 4)

    async def _set_aside(self, failed: FoldError, new: "_NewEvents") -> None:
        """Set aside the histories that make a fold fail. Raises the error if none does, or all are."""
        book = next(book for book in self._store.books if book.name == failed.book)
        names = [failed.key] if failed.is_of_history else [n for part in new.histories.values() for n in part]
        placed = await self._ledger.read(
            partial(read_placed_histories, names=names, up_to=new.end, vault=self._ledger.vault)
        )

        def find(connection: Connection) -> dict[str, int]:
            book_id = self._ids[book.name]
            gross = partial(read_gross, connection, book_id=book_id)
            return find_first_unread(placed, book, self._store.rules, stored_rows(connection, book_id), gross)

        await set_aside(self._ledger, book, failed, await self._store.read(find), self._clock())

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
        later = _by_history(event for _, event in batch)
        partition = {name: partition_of(name, self._store.partitions) for name in later}
        names = {n for n, part in partition.items() if part in parts and n.split("|", 1)[0] in kinds}
        set_aside = read_limits(connection, names).keys()
        going_on = {name for name in names - set_aside if self._kept.go_on(name, later[name])}
        histories: dict[str, list[Event]] = {name: LaterEvents(later[name]) for name in going_on}
        histories |= read_histories(connection, names - going_on, end, self._ledger.vault)
        new = _NewEvents(len(batch), end, {part: {} for part in parts}, set_aside)
        for name, events in histories.items():
            new.histories[partition[name]][name] = events
        return new

    def _write(self, connection: Connection, due: "Due", start: int, end: int, folded: "_Folded") -> None:
        self._partitions.check(connection, set().union(*due.values()))
        for book, parts in due.items():
            book_id = self._ids[book.name]
            changes = _write_rows(connection, self._store, book, book_id, min(parts), folded[book])
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


class _NewEvents(Struct):
    """The count of new events, the last position, and the histories that they touch, by partition.

    Their events are in any order; of those that go on with kept folds they are the new ones alone.
    `set_aside` names those that are set aside.
    """

    count: int
    end: int
    histories: dict[int, dict[str, list[Event]]]
    set_aside: Collection[str] = ()


_Folded = Mapping[Book, Mapping[Stage, Contributed]]


def _by_history(events: Iterable[Event]) -> dict[str, list[Event]]:
    """The events of each history."""
    by_history: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        for name in subjects(event):
            by_history[name].append(event)
    return by_history


def _fold_histories(due: Due, new: _NewEvents, rules: Rules, kept: KeptFolds | None = None) -> _Folded:
    """The rows that the histories contribute. It may take long, so no lock is held meanwhile."""
    folded: dict[Book, dict[Stage, dict[str, Rows]]] = {}
    history_rows: dict[int, HistoryRows] = {}
    for book, parts in due.items():
        book_rules, contributed = rules.with_policy(book.policy), folded.setdefault(book, {})
        with of_book(book):
            for part in parts:
                if part not in history_rows:
                    history_rows[part] = HistoryRows(ordered(new.histories[part]), kept)
                for stage, rows in history_rows[part].of(book.stages, book_rules).items():
                    contributed.setdefault(stage, {}).update(rows)
    return folded


@contextmanager
def of_book(book: Book) -> Iterator[None]:
    """Says of a FoldError which book could not be made."""
    try:
        yield
    except FoldError as error:
        error.book = book.name
        raise


async def set_aside(
    ledger: Ledger, book: Book, failed: FoldError, first_unread: Mapping[str, int], now: datetime
) -> list[str]:
    """Set histories aside, each from a position on, since a fold failed; their names.

    Another worker may have done so by now. Raises the error if there are none.
    """
    if not first_unread:
        raise failed
    for name in await ledger.set_aside(first_unread, book.name, failed.error, now):
        log.error("history_set_aside", history=name, book=book.name, error=failed.error)
    return sorted(first_unread)


def _write_rows(
    connection: Connection,
    store: BookStore,
    book: Book,
    book_id: int,
    partition: int,
    contributed: Mapping[Stage, Contributed],
) -> RowChanges:
    """Write what histories contribute to a book, and its totals in a partition; the changes of its rows."""
    with of_book(book):
        rules = store.rules.with_policy(book.policy)
        changes = fold(book.stages, contributed, WrittenRows(connection, book_id), rules)
        gross = [(total, sum_changes(total, changes)) for total in book.gross_totals]
        for total, added in gross:
            if added:
                check_gross(total, read_gross(connection, total, book_id), added)
    for total, added in (*((total, sum_changes(total, changes)) for total in book.totals), *gross):
        _add_to_total(connection, total, book_id, partition, added)
    return changes


async def fold_again(ledger: Ledger, store: BookStore, names: Sequence[str], position: int) -> None:
    """Fold these histories of books at a position again, where other events of them are read now."""
    read = partial(read_histories, names=names, up_to=position, vault=ledger.vault)
    new = _NewEvents(count=0, end=position, histories={0: await ledger.read(read)})
    folded = _fold_histories({book: {0} for book in store.books}, new, store.rules)

    def write(connection: Connection) -> None:
        ids = store.positions(connection).books
        for book in store.books:
            _write_rows(connection, store, book, ids[book.name], 0, folded[book])

    await store.write(write)


def _add_to_total(connection: Connection, total: Total, book_id: int, partition: int, sums: Sums) -> None:
    """Add to a total's sums in one partition, which no other process writes.

    A removed row may have been added in another partition, so a sum over one partition has no meaning;
    only the sum over all of them has.
    """
    new = [(book_id, partition, *key, *values) for key, values in sums.items() if any(values)]
    if new:
        tables.ADD_TO_TOTALS[total.table].add(connection, sorted(new))
