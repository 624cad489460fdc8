"""What each event changed of the figures: the books are folded once more, event by event.

They are folded in memory, in front of the stored books, and only the histories that the events touch. Of all
others the books hold the rows that they had at any of these events, and a later stage reads them there:
contracts of the same customer, payments that may be an invoice's.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.bills import BILLS, Bill
from projections.book import Book, Row, Rules
from projections.collections import CASH_KINDS, COLLECTIONS, Cash
from projections.fold import FoldError, HistoryRows, MemoryRows, fold, stages_to
from projections.mrr import MRR, Step
from projections.work import TooMuchWork, Work
from service.books.rows import stored_rows
from service.books.store import BookStore
from service.core.errors import Unavailable
from service.core.events import Event, subjects
from service.core.moments import day_of, from_us
from service.core.order import canonical
from service.ledger import tables
from service.ledger.history import (
    EVENT_COLUMNS,
    read_events,
    read_histories,
    read_placed_histories,
    to_event,
)
from service.ledger.store import Ledger
from service.reads.restatements import MRR_FIGURE
from service.storage.statements import HotStatement, any_of

T = TypeVar("T")

# Each figure's book, row type, and column in the one total of these rows.
FIGURES: dict[str, tuple[Book, type[Row], str]] = {
    MRR_FIGURE: (MRR, Step, "mrr_cents"),
    "billed_cents": (BILLS, Bill, "billed_cents"),
    **{f"{kind}_cents": (COLLECTIONS, Cash, f"{kind}_cents") for kind in CASH_KINDS},
}
TOTAL_OF_ROWS = {
    row_type: next(total for total in book.totals if total.row_type is row_type and column in total.sums)
    for book, row_type, column in FIGURES.values()
}

_ROW_TYPES = {book: row_type for book, row_type, _ in FIGURES.values()}
_STAGES = {book: stages_to(book, row_type) for book, row_type in _ROW_TYPES.items()}
_KINDS = {stage.reads for stages in _STAGES.values() for stage in stages if isinstance(stage.reads, str)}
_BATCH = 1_000  # events, or histories, that are read at once
# How many steps all folds may take: for each event about twice what those of usual histories take. At some
# 200,000 steps a second, that is ten seconds, and 2.5 ms for each event.
_MAX_STEPS = 2_000_000
_STEPS_PER_EVENT = 500  # of the range
_STEPS_PER_FOLDED_EVENT = 10  # of a history, each time that it is folded

_events = tables.Event.__table__  # type: ignore[attr-defined]
_SELECT_TOLD = HotStatement(
    lambda _: (
        select(*EVENT_COLUMNS, _events.c.recorded_at_us)
        .where(any_of(_events.c.position, "positions"))
        .order_by(_events.c.position)
    )
)


class FigureKey(NamedTuple):
    """A figure of an account on a day."""

    figure: str
    currency: str
    account: str
    date: str


class FigureChange(NamedTuple):
    """A change of a customer's part of a figure."""

    key: FigureKey
    customer_id: str
    cents: int


class EventChanges(Struct, frozen=True, kw_only=True):
    """An event, the day on which it was recorded, and its changes of figures."""

    position: int
    event: Event
    recorded_at_us: int
    day: str
    changes: list[FigureChange]


class Changes(Struct, frozen=True):
    """What is to be added to the stored figures for those of a position, and what later events changed."""

    of_stored: list[FigureChange]
    of_events: list[EventChanges]


class StoredBooks(Struct, frozen=True):
    """The books of the figures in one view: their ids, and the position of each of their partitions."""

    ids: Mapping[str, int]
    positions: Mapping[tuple[str, int], int]


def read_stored_books(connection: Connection, store: BookStore) -> StoredBooks:
    """The books of the figures, as they are stored. Raises Unavailable if there are no books yet."""
    positions = store.positions(connection)
    if len(positions.books) < len(store.books):
        raise Unavailable("the books are not laid out yet")
    ids = {book.name: positions.books[book.name] for book in _ROW_TYPES}
    return StoredBooks(ids, store.checkpoints(connection, ids))


async def read_changes(
    ledger: Ledger, store: BookStore, stored: StoredBooks, view: AsyncConnection, since: int, until: int
) -> Changes:
    """The changes of figures from the stored books to those at `since`, and then by each event up to `until`.

    `view` is the view in which `stored` was read. Each partition may be at another position, so what any
    event between touches is first brought from there to `since`. Raises TooMuchWork.
    """
    start, end = min(since, *stored.positions.values()), max(since, *stored.positions.values())
    work = Work(_MAX_STEPS + _STEPS_PER_EVENT * (end - start + until - since))
    books = await view.run_sync(_FoldedBooks, stored, store.rules, work)
    names, of_stored = await _read_touched(ledger, view, start, end), []
    for first in range(0, len(names), _BATCH):
        query = partial(read_histories, names=names[first : first + _BATCH], up_to=since, vault=ledger.vault)
        histories = {name: canonical(events) for name, events in (await ledger.read(query)).items()}
        of_stored += await _in_view(view, partial(books.move, histories))
    of_events: dict[int, list[FigureChange]] = {}
    for first in range(since, until, _BATCH):
        placed = await ledger.read(
            partial(_read_placed, ledger=ledger, since=first, until=min(first + _BATCH, until))
        )
        of_events |= await _in_view(view, partial(books.move_by_events, *placed))
    return Changes(of_stored, await _read_changed_events(ledger, of_events, store.rules))


class _FoldedBooks:
    """The books of the figures, folded in memory in front of the stored ones."""

    def __init__(self, connection: Connection, stored: StoredBooks, rules: Rules, work: Work) -> None:
        self._work = work
        self._rows = {book: MemoryRows(stored_rows(connection, stored.ids[book.name])) for book in _STAGES}
        self._rules = {book: rules.with_policy(book.policy) for book in _STAGES}

    def move(self, histories: Mapping[str, Sequence[Event]]) -> list[FigureChange]:
        """Put these histories in the place of what the books have of them; the changes of figures."""
        self._work.add(_STEPS_PER_FOLDED_EVENT * sum(map(len, histories.values())))
        try:
            with self._work.enclosing():
                return self._fold(histories)
        except FoldError as error:
            if isinstance(error.__cause__, TooMuchWork):
                raise error.__cause__ from None
            raise

    def _fold(self, histories: Mapping[str, Sequence[Event]]) -> list[FigureChange]:
        cents: dict[tuple[FigureKey, str], int] = defaultdict(int)
        history_rows = HistoryRows(histories)
        for book, stages in _STAGES.items():
            rules = self._rules[book]
            changes = fold(stages, history_rows.of(stages, rules), self._rows[book], rules)
            for sign, rows in ((-1, changes.removed), (1, changes.added)):
                for row in (row for row in rows if type(row) is _ROW_TYPES[book]):
                    for key, value in _figures_of(row):
                        cents[key, row.customer_id] += sign * value  # type: ignore[attr-defined]
        return [
            FigureChange(key, customer, value) for (key, customer), value in sorted(cents.items()) if value
        ]

    def move_by_events(
        self, events: Sequence[tuple[int, Event]], placed: Mapping[str, Sequence[tuple[int, Event]]]
    ) -> dict[int, list[FigureChange]]:
        """Move by one event after the other; the changes by those that change any figure, by position."""
        changes = {}
        for position, event in events:
            histories = {
                name: canonical(each for at, each in placed[name] if at <= position)
                for name in _touched((event,))
            }
            if of_event := self.move(histories):
                changes[position] = of_event
        return changes


def _touched(events: Iterable[Event]) -> set[str]:
    """The histories, of those on which figures depend, that the events touch."""
    names = {name for event in events for name in subjects(event)}
    return {name for name in names if name.split("|", 1)[0] in _KINDS}


async def _read_touched(ledger: Ledger, view: AsyncConnection, start: int, end: int) -> list[str]:
    """The names of the histories that the events after `start`, up to `end`, touch."""
    names: set[str] = set()
    for first in range(start, end, _BATCH):
        query = partial(read_events, position=first, limit=min(_BATCH, end - first))
        names |= _touched(event for _, event in await ledger.read(query))
        await _keep(view)
    return sorted(names)


def _read_placed(
    connection: Connection, ledger: Ledger, since: int, until: int
) -> tuple[list[tuple[int, Event]], dict[str, list[tuple[int, Event]]]]:
    """The events after `since`, up to `until`, and the histories up to there that they touch."""
    events = read_events(connection, since, until - since)
    names = _touched(event for _, event in events)
    return events, read_placed_histories(connection, names, until, ledger.vault)


async def _read_changed_events(
    ledger: Ledger, changes: Mapping[int, list[FigureChange]], rules: Rules
) -> list[EventChanges]:
    """The events at the positions of `changes`, in order."""
    positions = sorted(changes)
    rows: list[Any] = []
    for first in range(0, len(positions), _BATCH):
        rows += await ledger.read(partial(_read_events, positions=positions[first : first + _BATCH]))
    return [
        EventChanges(
            position=row[0],
            event=to_event(row),
            recorded_at_us=row[-1],
            day=day_of(from_us(row[-1]), rules.zone).isoformat(),
            changes=changes[row[0]],
        )
        for row in rows
    ]


def _read_events(connection: Connection, positions: list[int]) -> list[Any]:
    return _SELECT_TOLD.run(connection, positions)


async def _in_view(view: AsyncConnection, work: Callable[[], T]) -> T:
    """Run a plain function that reads from the view."""
    await _keep(view)
    return await view.run_sync(lambda _: work())


async def _keep(view: AsyncConnection) -> None:
    """Use the view: PostgreSQL ends a transaction that is idle for a minute."""
    await view.execute(select(1))


def _figures_of(row: Row) -> Iterable[tuple[FigureKey, int]]:
    """What a row is of each figure."""
    total = TOTAL_OF_ROWS[type(row)]
    measured = dict(zip(total.sums, total.measure(row), strict=True))
    for figure, (_, row_type, column) in FIGURES.items():
        if row_type is type(row) and measured[column]:
            yield FigureKey(figure, row.currency, row.account, row.date), measured[column]  # type: ignore[attr-defined]
