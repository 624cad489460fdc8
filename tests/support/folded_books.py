"""A book made in memory from events alone: what the engine does, without a store."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from projections.bills import BILLS, Bill, Contract
from projections.book import Book, Row, Rules
from projections.collections import COLLECTIONS, Cash
from projections.fold import HistoryRows, MemoryRows, RowChanges, fold
from projections.mrr import MRR, Movement, Step
from service.core.events import Event, subjects
from service.core.order import canonical

RULES = Rules()


def rows_of(book: Book, events: Sequence[Event], rules: Rules = RULES) -> list[Row]:
    """Every row that a book holds after these events, whatever their order."""
    return moved(book, events, MemoryRows(), rules).added


def moved(book: Book, events: Sequence[Event], rows: MemoryRows, rules: Rules = RULES) -> RowChanges:
    """What changes in a book of these rows, if its histories become those of all these events."""
    named = sorted(((name, event) for event in events for name in subjects(event)), key=itemgetter(0))
    histories = {name: canonical(e for _, e in pairs) for name, pairs in groupby(named, key=itemgetter(0))}
    return fold(book.stages, HistoryRows(histories).of(book.stages, rules), rows, rules)


def mrr(events: Sequence[Event], day: str = "2999-12-31", rules: Rules = RULES, currency: str = "usd") -> int:
    """MRR at the end of a day."""
    steps = [row for row in rows_of(MRR, events, rules) if isinstance(row, Step)]
    return sum(s.mrr_cents for s in steps if s.currency == currency and s.date <= day)


def active(events: Sequence[Event], day: str = "2999-12-31") -> int:
    """How many contracts count at the end of a day."""
    return sum(s.contracts for s in rows_of(MRR, events) if isinstance(s, Step) and s.date <= day)


def movements(events: Sequence[Event], rules: Rules = RULES) -> list[tuple[str, str, int]]:
    """(date, kind, cents) of every movement."""
    found = [row for row in rows_of(MRR, events, rules) if isinstance(row, Movement)]
    return sorted((row.date, row.kind, row.amount_cents) for row in found)


def contract(events: Sequence[Event], rules: Rules = RULES) -> Contract:
    """The one contract."""
    (row,) = [row for row in rows_of(BILLS, events, rules) if isinstance(row, Contract)]
    return row


def next_bill(events: Sequence[Event], rules: Rules = RULES) -> str | None:
    """The one contract's next bill date."""
    return contract(events, rules).next_bill_date


def bills(events: Sequence[Event], rules: Rules = RULES) -> list[Bill]:
    """The bills, by date."""
    found = [row for row in rows_of(BILLS, events, rules) if isinstance(row, Bill)]
    return sorted(found, key=lambda bill: (bill.date, bill.status))


def listed(events: Sequence[Event], rules: Rules = RULES) -> list[tuple[str, str, int]]:
    """(date, status, cents) of every bill."""
    return [(bill.date, bill.status, bill.amount_cents) for bill in bills(events, rules)]


def cash(events: Sequence[Event], rules: Rules = RULES) -> list[tuple[str, str, int]]:
    """(date, kind, cents) of all money that moved."""
    found = [row for row in rows_of(COLLECTIONS, events, rules) if isinstance(row, Cash)]
    return sorted((row.date, row.kind, row.amount_cents) for row in found)
