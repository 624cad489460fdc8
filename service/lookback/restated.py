"""What late events changed of days already gone: each event's own difference, and the figure around it.

Figures are sums of what single histories contribute. So what an event changed is what its histories
contribute with it less what they did without it, whatever else the books hold; and from the totals that stand
now, the totals at any event are those less what came after.
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
from projections.collections import CASH_KINDS, COLLECTIONS, Cash, invoice_cash_rows, payment_cash_rows
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
_CONTRIBUTE: dict[str, Callable[[Sequence[Event], Rules], list[Row]]] = {
    "subscription": step_rows,
    "invoice": lambda history, rules: [
        *bill_rows(invoice_rows(history, rules), rules),  # type: ignore[arg-type]
        *invoice_cash_rows(history, rules),
    ],
    "payment": payment_cash_rows,
}
# Each figure's book, and the column of its one total of such rows.
_FIGURES: dict[str, tuple[Book, type[Row], str]] = {
    MRR_FIGURE: (MRR, Step, "mrr_cents"),
    "billed_cents": (BILLS, Bill, "billed_cents"),
    **{f"{kind}_cents": (COLLECTIONS, Cash, f"{kind}_cents") for kind in CASH_KINDS},
}
_TOTAL = {total.row_type: total for book in (MRR, BILLS, COLLECTIONS) for total in book.totals}

_events = tables.Event.__table__  # type: ignore[attr-defined]
_RECORDED = HotStatement(
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


class Change(NamedTuple):
    """What an event changed in what one history contributes; `name` is the history's."""

    name: str
    key: FigureKey
    customer_id: str
    cents: int


class Told(Struct, frozen=True, kw_only=True):
    """An event, the day on which it was recorded, and what it changed."""

    position: int
    event: Event
    recorded_at_us: int
    day: str
    changes: list[Change]


class LateChange(NamedTuple):
    """A change of a figure from one day gone to another."""

    key: FigureKey
    until: str
    customer_id: str
    cents: int


async def restate(ledger: Ledger, store: BookStore, since: int, until: int) -> list[Restatement]:
    """What the events after `since`, up to `until`, changed of days before they were recorded; in order.

    Raises Unavailable if there are no books yet.
    """
    told = await _told(ledger, store.rules, since, until)
    late = {each.position: found for each in told if (found := restated(each))}
    if not late:
        return []
    currencies = {row.key.currency for rows in late.values() for row in rows}
    async with store.reading() as connection:
        totals, reached = await connection.run_sync(partial(_standing, store=store, currencies=currencies))
    # The books as they stand, brought to `since`: without what they took in after it, with what they lack.
    earlier = await _told(ledger, store.rules, min(reached.values()), since)
    later = await _told(ledger, store.rules, until, max(reached.values()))
    for each in (*earlier, *told, *later):
        for change in each.changes:
            part = partition_of(change.name, store.partitions)
            taken_in = each.position <= reached[_FIGURES[change.key.figure][0].name, part]
            if taken_in == (each.position > since):
                totals.add(change.key, -change.cents if taken_in else change.cents)
    return [row for each in told for row in _around(each, late.get(each.position, []), totals)]


def restated(told: Told) -> list[LateChange]:
    """What an event changed of days before the one on which it was recorded.

    MRR stands until it moves again: it differs from a day to another, at most to the last one gone.
    """
    changed: dict[FigureKey, int] = defaultdict(int)
    of: dict[tuple[FigureKey, str], int] = defaultdict(int)
    for change in told.changes:
        changed[change.key] += change.cents
        of[change.key, change.customer_id] += change.cents
    customers = {key: customer for (key, customer), cents in sorted(of.items(), reverse=True) if cents}
    found = [
        LateChange(key, key.date, customers[key], cents)
        for key, cents in changed.items()
        if cents and key.figure != MRR_FIGURE and key.date < told.day
    ]
    moves: dict[tuple[str, str], list[FigureKey]] = defaultdict(list)
    for key, cents in changed.items():
        if cents and key.figure == MRR_FIGURE:
            moves[key.currency, key.account].append(key)
    for spots in moves.values():
        level = 0
        ordered = sorted(spots)
        for key, following in zip(ordered, [*(key.date for key in ordered[1:]), told.day], strict=True):
            level += changed[key]
            if level and key.date < told.day:
                found.append(LateChange(key, _day_before(min(following, told.day)), customers[key], level))
    return sorted(found)


def contributed(name: str, history: Sequence[Event], rules: Rules) -> dict[tuple[FigureKey, str], int]:
    """What one history adds to each figure, by customer."""
    found: dict[tuple[FigureKey, str], int] = defaultdict(int)
    for row in _CONTRIBUTE[name.split("|", 1)[0]](history, rules) if history else ():
        total = _TOTAL[type(row)]
        measured = dict(zip(total.sums, total.measure(row), strict=True))
        for figure, (_, kind, column) in _FIGURES.items():
            if kind is type(row) and measured[column]:
                key = FigureKey(figure, row.currency, row.account, row.date)  # type: ignore[attr-defined]
                found[key, row.customer_id] += measured[column]  # type: ignore[attr-defined]
    return found


class _Totals:
    """Figures by day: of each account, and of all (None)."""

    def __init__(self) -> None:
        self._days: dict[tuple[str, str, str | None], dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, key: FigureKey, cents: int) -> None:
        for account in (key.account, None):
            self._days[key.figure, key.currency, account][key.date] += cents

    def figure(self, key: FigureKey, account: str | None) -> int:
        """MRR at the end of the key's day; of anything else its month's."""
        days = self._days[key.figure, key.currency, account].items()
        if key.figure == MRR_FIGURE:
            return sum(cents for day, cents in days if day <= key.date)
        return sum(cents for day, cents in days if day[:7] == key.date[:7])

    def figures(self, key: FigureKey) -> tuple[int, int]:
        return self.figure(key, key.account), self.figure(key, None)


def _around(told: Told, late: Sequence[LateChange], totals: _Totals) -> list[Restatement]:
    """An event's restatements, with the figures before and after it; the totals move on over it."""
    before = [totals.figures(row.key) for row in late]
    for change in told.changes:
        totals.add(change.key, change.cents)
    return [
        Restatement(
            position=told.position,
            part=part,
            recorded_at_us=told.recorded_at_us,
            cause=told.event.cause,
            type=told.event.type,
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


def _standing(
    connection: Connection, store: BookStore, currencies: Iterable[str]
) -> tuple[_Totals, Mapping[tuple[str, int], int]]:
    """The figures as they stand, and the position of each partition of each book at that."""
    positions = store.positions(connection)
    if len(positions.books) < len(store.books):
        raise Unavailable("the books are not laid out yet")
    totals = _Totals()
    for figure, (book, kind, column) in _FIGURES.items():
        table = TOTALS[_TOTAL[kind].table]
        query = (
            select(table.c.currency, table.c.account, table.c.date, *sum_columns(table, (column,)))
            .where(table.c.book == positions.books[book.name], table.c.currency.in_(sorted(currencies)))
            .group_by(table.c.currency, table.c.account, table.c.date)
        )
        for currency, account, day, cents in connection.execute(query):
            totals.add(FigureKey(figure, currency, account, day), cents)
    books = {book.name: positions.books[book.name] for book, _, _ in _FIGURES.values()}
    return totals, store.checkpoints(connection, books)


async def _told(ledger: Ledger, rules: Rules, since: int, until: int) -> list[Told]:
    """The events after `since`, up to `until`, that changed a figure; each with what it changed."""
    found: list[Told] = []
    for start in range(since, until, _BATCH):
        query = partial(_batch, start=start, end=min(start + _BATCH, until), vault=ledger.vault)
        events, recorded, told = await ledger.read(query)
        found += _changing(events, recorded, told, rules)
    return found


def _batch(
    connection: Connection, start: int, end: int, vault: Vault
) -> tuple[list[tuple[int, Event]], list[int], dict[str, list[Event]]]:
    """Some events, when each was recorded, and what was told before of the histories that they touch."""
    events = read_events(connection, start, end - start)
    names = {name for _, event in events for name in _names(event)}
    recorded = [row[0] for row in _RECORDED.run(connection, start, end)]
    return events, recorded, read_histories(connection, names, start, vault)


def _changing(
    events: Sequence[tuple[int, Event]],
    recorded: Sequence[int],
    told: dict[str, list[Event]],
    rules: Rules,
) -> list[Told]:
    """Of a batch, the events that changed a figure. `told` grows by them."""
    found = []
    standing = {name: contributed(name, canonical(history), rules) for name, history in told.items()}
    for (position, event), recorded_at_us in zip(events, recorded, strict=True):
        changes = []
        for name in _names(event):
            told[name].append(event)
            before, standing[name] = standing[name], contributed(name, canonical(told[name]), rules)
            changes += _difference(name, before, standing[name])
        if changes:
            day = day_of(from_us(recorded_at_us), rules.zone).isoformat()
            found.append(
                Told(
                    position=position,
                    event=event,
                    recorded_at_us=recorded_at_us,
                    day=day,
                    changes=changes,
                )
            )
    return found


def _difference(
    name: str, before: Mapping[tuple[FigureKey, str], int], now: Mapping[tuple[FigureKey, str], int]
) -> list[Change]:
    return [
        Change(name, key, customer, cents)
        for key, customer in sorted({*before, *now})
        if (cents := now.get((key, customer), 0) - before.get((key, customer), 0))
    ]


def _names(event: Event) -> list[str]:
    """The histories of an event that count in a figure."""
    return [name for name in subjects(event) if name.split("|", 1)[0] in _CONTRIBUTE]


def _day_before(day: str) -> str:
    return (date.fromisoformat(day) - timedelta(days=1)).isoformat()
