"""Restatements: how late events changed the figures of past days, and the figures before and after each.

A figure is the sum of the contributions of single histories. So an event changed a figure by its histories'
contributions with it less those without it, whatever else the books hold. And the figures at an earlier event
are the current ones less the changes by all events after it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from typing import NamedTuple

from msgspec import Struct
from sqlalchemy import Connection, bindparam, select

from projections.bills import BILLS, Bill, bill_rows, invoice_rows
from projections.book import Book, Row, Rules
from projections.collections import CASH_KINDS, COLLECTIONS, Cash, invoice_cash_alone, payment_cash_alone
from projections.contracts import contract_state_rows
from projections.mrr import MRR, Step, step_rows
from service.books.store import BookStore, partition_of
from service.books.tables import TOTALS
from service.books.view import sum_columns
from service.core.errors import Unavailable
from service.core.events import Event, subjects
from service.core.moments import day_of, from_us
from service.core.order import canonical
from service.ledger import tables
from service.ledger.history import read_events, read_histories
from service.ledger.store import Ledger
from service.ledger.vault import Vault
from service.reads.restatements import MRR_FIGURE, Restatement
from service.storage.statements import HotStatement

_BATCH = 1_000  # events whose histories are read at once
_CONTRIBUTIONS: dict[str, Callable[[Sequence[Event], Rules], list[Row]]] = {
    "subscription": lambda history, rules: step_rows(contract_state_rows(history, rules), rules),  # type: ignore[arg-type]
    "invoice": lambda history, rules: [
        *bill_rows(invoice_rows(history, rules), rules),  # type: ignore[arg-type]
        *invoice_cash_alone(history, rules),
    ],
    "payment": payment_cash_alone,
}
# Each figure's book, row type, and column in the one total of these rows.
_FIGURES: dict[str, tuple[Book, type[Row], str]] = {
    MRR_FIGURE: (MRR, Step, "mrr_cents"),
    "billed_cents": (BILLS, Bill, "billed_cents"),
    **{f"{kind}_cents": (COLLECTIONS, Cash, f"{kind}_cents") for kind in CASH_KINDS},
}
_TOTAL_OF_ROWS = {total.row_type: total for book in (MRR, BILLS, COLLECTIONS) for total in book.totals}

_events = tables.Event.__table__  # type: ignore[attr-defined]
_SELECT_RECORDED = HotStatement(
    lambda _: (
        select(_events.c.recorded_at_us)
        .where(_events.c.position > bindparam("after"), _events.c.position <= bindparam("last"))
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
    """An event's change of a figure through one history, whose name is `name`."""

    name: str
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


class LateChange(NamedTuple):
    """A change of a figure on the past days from `key.date` to `until`."""

    key: FigureKey
    until: str
    customer_id: str
    cents: int


async def find_restatements(ledger: Ledger, store: BookStore, since: int, until: int) -> list[Restatement]:
    """The restatements by the events after `since`, up to `until`, in order of the events.

    Raises Unavailable if there are no books yet.
    """
    events = await _read_changes(ledger, store.rules, since, until)
    late = {event.position: changes for event in events if (changes := late_changes(event))}
    if not late:
        return []
    currencies = {row.key.currency for rows in late.values() for row in rows}
    async with store.reading() as connection:
        totals, positions = await connection.run_sync(
            partial(_read_current_totals, store=store, currencies=currencies)
        )
    # Bring the current totals to `since`: take out the later events that each partition contains, and add
    # the earlier ones that it lacks.
    earlier = await _read_changes(ledger, store.rules, min(positions.values()), since)
    later = await _read_changes(ledger, store.rules, until, max(positions.values()))
    for event in (*earlier, *events, *later):
        for change in event.changes:
            part = partition_of(change.name, store.partitions)
            is_contained = event.position <= positions[_FIGURES[change.key.figure][0].name, part]
            if is_contained == (event.position > since):
                totals.add(change.key, -change.cents if is_contained else change.cents)
    return [row for event in events for row in _restatements(event, late.get(event.position, []), totals)]


def late_changes(event: EventChanges) -> list[LateChange]:
    """An event's changes of figures on days before the one on which it was recorded.

    MRR holds until it moves again, so a change of it lasts from one day to another, at most to the day
    before the event was recorded.
    """
    cents_by_key: dict[FigureKey, int] = defaultdict(int)
    cents_by_customer: dict[tuple[FigureKey, str], int] = defaultdict(int)
    for change in event.changes:
        cents_by_key[change.key] += change.cents
        cents_by_customer[change.key, change.customer_id] += change.cents
    ordered_customers = sorted(cents_by_customer.items(), reverse=True)
    customers = {key: customer for (key, customer), cents in ordered_customers if cents}
    changes = [
        LateChange(key, key.date, customers[key], cents)
        for key, cents in cents_by_key.items()
        if cents and key.figure != MRR_FIGURE and key.date < event.day
    ]
    moves: dict[tuple[str, str], list[FigureKey]] = defaultdict(list)
    for key, cents in cents_by_key.items():
        if cents and key.figure == MRR_FIGURE:
            moves[key.currency, key.account].append(key)
    for keys in moves.values():
        level = 0
        ordered = sorted(keys)
        for key, next_date in zip(ordered, [*(key.date for key in ordered[1:]), event.day], strict=True):
            level += cents_by_key[key]
            if level and key.date < event.day:
                changes.append(LateChange(key, _day_before(min(next_date, event.day)), customers[key], level))
    return sorted(changes)


def figure_contributions(
    name: str, history: Sequence[Event], rules: Rules
) -> dict[tuple[FigureKey, str], int]:
    """The contribution of one history to each figure, by customer."""
    contributions: dict[tuple[FigureKey, str], int] = defaultdict(int)
    for row in _CONTRIBUTIONS[name.split("|", 1)[0]](history, rules) if history else ():
        total = _TOTAL_OF_ROWS[type(row)]
        measured = dict(zip(total.sums, total.measure(row), strict=True))
        for figure, (_, row_type, column) in _FIGURES.items():
            if row_type is type(row) and measured[column]:
                key = FigureKey(figure, row.currency, row.account, row.date)  # type: ignore[attr-defined]
                contributions[key, row.customer_id] += measured[column]  # type: ignore[attr-defined]
    return contributions


class _Totals:
    """Figures by day, of each account and of all accounts (None)."""

    def __init__(self) -> None:
        self._days: dict[tuple[str, str, str | None], dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, key: FigureKey, cents: int) -> None:
        for account in (key.account, None):
            self._days[key.figure, key.currency, account][key.date] += cents

    def figure(self, key: FigureKey, account: str | None) -> int:
        """MRR at the end of the key's day; any other figure over the key's month."""
        days = self._days[key.figure, key.currency, account].items()
        if key.figure == MRR_FIGURE:
            return sum(cents for day, cents in days if day <= key.date)
        return sum(cents for day, cents in days if day[:7] == key.date[:7])

    def figures(self, key: FigureKey) -> tuple[int, int]:
        return self.figure(key, key.account), self.figure(key, None)


def _restatements(entry: EventChanges, late: Sequence[LateChange], totals: _Totals) -> list[Restatement]:
    """An event's restatements, with the figures before and after it; `totals` are moved past the event."""
    before = [totals.figures(row.key) for row in late]
    for change in entry.changes:
        totals.add(change.key, change.cents)
    return [
        Restatement(
            position=entry.position,
            part=part,
            recorded_at_us=entry.recorded_at_us,
            cause=entry.event.cause,
            type=entry.event.type,
            figure=row.key.figure,
            date=row.key.date,
            until=row.until,
            currency=row.key.currency,
            account=row.key.account,
            customer_id=row.customer_id,
            change_cents=row.cents,
            before_cents=before[part][0],
            after_cents=totals.figure(row.key, row.key.account),
            all_before_cents=before[part][1],
            all_after_cents=totals.figure(row.key, None),
        )
        for part, row in enumerate(late)
    ]


def _read_current_totals(
    connection: Connection, store: BookStore, currencies: Iterable[str]
) -> tuple[_Totals, Mapping[tuple[str, int], int]]:
    """The current figures, and the position of each partition of each book in the same view."""
    positions = store.positions(connection)
    if len(positions.books) < len(store.books):
        raise Unavailable("the books are not laid out yet")
    totals = _Totals()
    for figure, (book, row_type, column) in _FIGURES.items():
        table = TOTALS[_TOTAL_OF_ROWS[row_type].table]
        query = (
            select(table.c.currency, table.c.account, table.c.date, *sum_columns(table, (column,)))
            .where(table.c.book == positions.books[book.name], table.c.currency.in_(sorted(currencies)))
            .group_by(table.c.currency, table.c.account, table.c.date)
        )
        for currency, account, day, cents in connection.execute(query):
            totals.add(FigureKey(figure, currency, account, day), cents)
    books = {book.name: positions.books[book.name] for book, _, _ in _FIGURES.values()}
    return totals, store.checkpoints(connection, books)


async def _read_changes(ledger: Ledger, rules: Rules, since: int, until: int) -> list[EventChanges]:
    """The events after `since`, up to `until`, that changed a figure; each with its changes."""
    changed_events: list[EventChanges] = []
    for start in range(since, until, _BATCH):
        query = partial(_read_batch, start=start, end=min(start + _BATCH, until), vault=ledger.vault)
        events, recorded, histories = await ledger.read(query)
        changed_events += _changes_of_batch(events, recorded, histories, rules)
    return changed_events


def _read_batch(
    connection: Connection, start: int, end: int, vault: Vault
) -> tuple[list[tuple[int, Event]], list[int], dict[str, list[Event]]]:
    """Some events, the times at which they were recorded, and the earlier events of their histories."""
    events = read_events(connection, start, end - start)
    names = {name for _, event in events for name in _figure_histories(event)}
    recorded = [row[0] for row in _SELECT_RECORDED.run(connection, start, end)]
    return events, recorded, read_histories(connection, names, start, vault)


def _changes_of_batch(
    events: Sequence[tuple[int, Event]],
    recorded: Sequence[int],
    histories: dict[str, list[Event]],
    rules: Rules,
) -> list[EventChanges]:
    """The events of a batch that changed a figure. Each event is appended to its `histories`."""
    changed_events = []
    current = {
        name: figure_contributions(name, canonical(history), rules) for name, history in histories.items()
    }
    for (position, event), recorded_at_us in zip(events, recorded, strict=True):
        changes = []
        for name in _figure_histories(event):
            histories[name].append(event)
            before, current[name] = (
                current[name],
                figure_contributions(name, canonical(histories[name]), rules),
            )
            changes += _differences(name, before, current[name])
        if changes:
            day = day_of(from_us(recorded_at_us), rules.zone).isoformat()
            changed_events.append(
                EventChanges(
                    position=position,
                    event=event,
                    recorded_at_us=recorded_at_us,
                    day=day,
                    changes=changes,
                )
            )
    return changed_events


def _differences(
    name: str, before: Mapping[tuple[FigureKey, str], int], now: Mapping[tuple[FigureKey, str], int]
) -> list[FigureChange]:
    return [
        FigureChange(name, key, customer, cents)
        for key, customer in sorted({*before, *now})
        if (cents := now.get((key, customer), 0) - before.get((key, customer), 0))
    ]


def _figure_histories(event: Event) -> list[str]:
    """The names of an event's histories that contribute to figures."""
    return [name for name in subjects(event) if name.split("|", 1)[0] in _CONTRIBUTIONS]


def _day_before(day: str) -> str:
    return (date.fromisoformat(day) - timedelta(days=1)).isoformat()
