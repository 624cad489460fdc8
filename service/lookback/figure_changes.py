"""What each event changed of the figures: the books are folded once more, event by event.

Only the histories that the events touch are folded. Of all others the books hold the rows that they had at
any of these events, and a later stage reads them there: contracts of the same customer, payments that may be
an invoice's.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.bills import BILLS, Bill
from projections.book import Book, Row, Rules, Stage
from projections.collections import CASH_KINDS, COLLECTIONS, Cash
from projections.fold import AS_STORED, Fold, stages_to
from projections.mrr import MRR, Step
from service.books.store import BookStore, partition_of
from service.books.tables import STATEMENTS
from service.core.errors import Unavailable
from service.core.events import Event, subjects
from service.core.moments import day_of, from_us
from service.core.order import canonical
from service.ledger import tables
from service.ledger.history import EVENT_COLUMNS, read_events, read_placed_histories, to_event
from service.ledger.store import Ledger
from service.reads.restatements import MRR_FIGURE
from service.storage.statements import HotStatement, any_of

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

    `view` is the view in which `stored` was read. Each partition may be at another position: what any event
    between touches is folded as far as its partition has it, and at `since`.
    """
    start, end = min(since, *stored.positions.values()), max(until, *stored.positions.values())
    names = await _read_touched(ledger, view, start, end)
    folds = {book: Fold(stages, store.rules) for book, stages in _STAGES.items()}
    for first in range(0, len(names), _BATCH):
        batch = names[first : first + _BATCH]
        query = partial(read_placed_histories, names=batch, up_to=end, vault=ledger.vault)
        for name, placed in (await ledger.read(query)).items():
            for book, fold in folds.items():
                stored_at = stored.positions[book.name, partition_of(name, store.partitions)]
                fold.read(name, _growing(placed, stored_at, since, until))
        await _keep(view)
    for book, fold in folds.items():
        await view.run_sync(partial(_read_rows, fold=fold, book_id=stored.ids[book.name]))
    changes = _changes_by_moment(folds)
    of_stored = changes.pop(since, [])
    of_events = await _read_changed_events(ledger, changes, store.rules)
    return Changes(of_stored, of_events)


async def _read_touched(ledger: Ledger, view: AsyncConnection, start: int, end: int) -> list[str]:
    """The histories, of those on which figures depend, that the events after `start`, up to `end`, touch."""
    names: set[str] = set()
    for first in range(start, end, _BATCH):
        query = partial(read_events, position=first, limit=min(_BATCH, end - first))
        names.update(name for _, event in await ledger.read(query) for name in subjects(event))
        await _keep(view)
    return sorted(name for name in names if name.split("|", 1)[0] in _KINDS)


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


async def _keep(view: AsyncConnection) -> None:
    """Use the view: PostgreSQL ends a transaction that is idle for a minute."""
    await view.execute(select(1))


def _growing(
    placed: Sequence[tuple[int, Event]], stored_at: int, since: int, until: int
) -> Iterator[tuple[int, list[Event]]]:
    """A history as the books have it stored, then at `since`, and then after each event up to `until`."""
    ends = {since, *(position for position, _ in placed if since < position <= until)}
    for moment, end in [(AS_STORED, stored_at), *((end, end) for end in sorted(ends))]:
        yield moment, canonical(event for position, event in placed if position <= end)


def _read_rows(connection: Connection, fold: Fold, book_id: int) -> None:
    def stored(stage: Stage, keys: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for row_type in stage.reads:
            statements = STATEMENTS[row_type]  # type: ignore[index]  # a later stage reads row types
            for _id, key, *values in statements.by_parent_key.run(connection, book_id, list(keys)):
                yield key, statements.to_row(values)

    fold.read_rows(stored)


def _changes_by_moment(folds: Mapping[Book, Fold]) -> dict[int, list[FigureChange]]:
    """The changes of figures at each moment that has any, apart from what is stored."""
    cents: dict[int, dict[tuple[FigureKey, str], int]] = defaultdict(lambda: defaultdict(int))
    for book, fold in folds.items():
        for moment, row, sign in fold.moves(_ROW_TYPES[book]):
            if moment != AS_STORED:
                for key, value in _figures_of(row):
                    cents[moment][key, row.customer_id] += sign * value  # type: ignore[attr-defined]
    changes = {
        moment: [FigureChange(key, customer, value) for (key, customer), value in sorted(of.items()) if value]
        for moment, of in cents.items()
    }
    return {moment: of for moment, of in changes.items() if of}


def _figures_of(row: Row) -> Iterable[tuple[FigureKey, int]]:
    """What a row is of each figure."""
    total = TOTAL_OF_ROWS[type(row)]
    measured = dict(zip(total.sums, total.measure(row), strict=True))
    for figure, (_, row_type, column) in FIGURES.items():
        if row_type is type(row) and measured[column]:
            yield FigureKey(figure, row.currency, row.account, row.date), measured[column]  # type: ignore[attr-defined]
