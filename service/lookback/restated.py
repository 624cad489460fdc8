"""Restatements: how late events changed the figures of past days, and the figures before and after each.

The figures at an earlier event are the stored ones, less what the books have since then, plus what they lack;
from there the changes by each event lead to those after it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, select

from service.books.store import BookStore
from service.books.tables import TOTALS
from service.books.view import sum_columns
from service.ledger.store import Ledger
from service.lookback.figure_changes import (
    FIGURES,
    TOTAL_OF_ROWS,
    EventChanges,
    FigureKey,
    StoredBooks,
    read_changes,
    read_stored_books,
)
from service.reads.restatements import MRR_FIGURE, Restatement


class LateChange(NamedTuple):
    """A change of a figure on the past days from `key.date` to `until`."""

    key: FigureKey
    until: str
    customer_id: str
    cents: int


async def find_restatements(ledger: Ledger, store: BookStore, since: int, until: int) -> list[Restatement]:
    """The restatements by the events after `since`, up to `until`, in order of the events.

    Raises Unavailable if there are no books yet, TooMuchWork if the events take too long to compare.
    """
    if since >= until:
        return []
    async with store.reading() as view:
        stored = await view.run_sync(partial(read_stored_books, store=store))
        changes = await read_changes(ledger, store, stored, view, since, until)
        late = {event.position: rows for event in changes.of_events if (rows := late_changes(event))}
        currencies = {row.key.currency for rows in late.values() for row in rows}
        totals = await view.run_sync(partial(_read_totals, stored=stored, currencies=currencies))
    for change in changes.of_stored:
        totals.add(change.key, change.cents)
    return [
        row
        for event in changes.of_events
        for row in _restatements(event, late.get(event.position, []), totals)
    ]


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


def _read_totals(connection: Connection, stored: StoredBooks, currencies: Iterable[str]) -> _Totals:
    """The stored figures in these currencies."""
    totals = _Totals()
    for figure, (book, row_type, column) in FIGURES.items():
        table = TOTALS[TOTAL_OF_ROWS[row_type].table]
        query = (
            select(table.c.currency, table.c.account, table.c.date, *sum_columns(table, (column,)))
            .where(table.c.book == stored.ids[book.name], table.c.currency.in_(sorted(currencies)))
            .group_by(table.c.currency, table.c.account, table.c.date)
        )
        for currency, account, day, cents in connection.execute(query):
            totals.add(FigureKey(figure, currency, account, day), cents)
    return totals


def _day_before(day: str) -> str:
    return (date.fromisoformat(day) - timedelta(days=1)).isoformat()
