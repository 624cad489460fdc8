"""Billed and upcoming amounts by month and quarter; contracts bill on by their interval."""

from collections import defaultdict
from datetime import date
from itertools import dropwhile, takewhile
from typing import Any

from msgspec import json
from sqlalchemy import select

from projections.bills import UPCOMING_STATUSES, Bill, Contract, amount_on, roll_bill_dates
from service.books.tables import ROWS
from service.books.view import View, customer_key
from service.core.cadence import add_months
from service.reads.months import month_bounds, months_between

_bills = ROWS[Bill]
_contracts = ROWS[Contract]


class _Tally:
    """The bills of a month, quarter or year."""

    def __init__(self) -> None:
        self.billed_cents = self.upcoming_cents = self.bills = 0
        self.customers: set[str] = set()

    def add(self, customer: str, cents: int, *, upcoming: bool) -> None:
        self.bills += 1
        self.customers.add(customer)
        if upcoming:
            self.upcoming_cents += cents
        else:
            self.billed_cents += cents

    def document(self) -> dict[str, int]:
        return {
            "billed_cents": self.billed_cents,
            "upcoming_cents": self.upcoming_cents,
            "total_cents": self.billed_cents + self.upcoming_cents,
            "customers": len(self.customers),
            "bills": self.bills,
        }


def quarters(view: View, count: int) -> dict[str, Any]:
    """`count` quarters from the one that holds `today`."""
    today = view.scope.today
    first = date(today.year, (today.month - 1) // 3 * 3 + 1, 1)
    starts = [add_months(first, 3 * n, 1) for n in range(count)]
    last = date.fromisoformat(_month_end(add_months(starts[-1], 2, 1)))
    tallies = _tallies(view, first, last, lambda day: (day[:7], quarter_of(day)))
    return {
        "currency": view.scope.currency,
        "quarters": [
            {
                "quarter": quarter_of(start.isoformat()),
                "from": start.isoformat(),
                "to": _month_end(add_months(start, 2, 1)),
                **tallies[quarter_of(start.isoformat())].document(),
                "months": [
                    {"month": name, **tallies[name].document()}
                    for name in months_between(start, add_months(start, 2, 1))
                ],
            }
            for start in starts
        ],
    }


def year(view: View, number: int) -> dict[str, Any]:
    """The twelve months of a year, and the year."""
    first, last = date(number, 1, 1), date(number, 12, 31)
    tallies = _tallies(view, first, last, lambda day: (day[:7], day[:4]))
    return {
        "year": number,
        "currency": view.scope.currency,
        **tallies[f"{number:04d}"].document(),
        "months": [{"month": name, **tallies[name].document()} for name in months_between(first, last)],
    }


def quarter_of(day: str) -> str:
    """ "2025-Q4" for a day in it."""
    return f"{day[:4]}-Q{(int(day[5:7]) - 1) // 3 + 1}"


def _month_end(day: date) -> str:
    return month_bounds(day.year, day.month)[1]


def _tallies(view: View, first: date, last: date, parts_of: Any) -> dict[str, _Tally]:
    """Tallies of the bills between two days: stated ones, and later ones by the contracts' intervals.

    `parts_of` gives the names of the month, quarter or year tallies in which a day counts.
    """
    start, end = first.isoformat(), last.isoformat()
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    bills = view.all(
        select(
            _bills.c.key,
            _bills.c.date,
            _bills.c.status,
            _bills.c.amount_cents,
            customer_key(_bills).label("customer"),
        )
        .where(*view.filters(_bills, "bills"), _bills.c.status != "uncollectible")
        .where(_bills.c.date.between(start, end) | (_bills.c.status == "upcoming"))
    )
    not_billed_yet = {row.key for row in bills if row.status == "upcoming"}
    for row in bills:
        if row.status != "upcoming" and start <= row.date <= end:
            for part in parts_of(row.date):
                tallies[part].add(row.customer, row.amount_cents, upcoming=row.status in UPCOMING_STATUSES)
    days_by_rule: dict[tuple[Any, ...], list[str]] = {}  # many contracts bill on the same days
    for row in _contracts_until(view, end):
        rule = row.next_bill_date, row.interval, row.every, row.anchor_day, row.ends_date
        days = days_by_rule.get(rule)
        if days is None:
            days = days_by_rule[rule] = _bill_dates(rule, start, end)
        amounts = json.decode(row.amounts) if days else []
        for day in days:
            is_billed = day == row.next_bill_date and row.key not in not_billed_yet
            cents = amount_on(amounts, day)
            if cents and not is_billed:
                for part in parts_of(day):
                    tallies[part].add(row.customer, cents, upcoming=True)
    return tallies


def _bill_dates(rule: tuple[Any, ...], start: str, end: str) -> list[str]:
    """The bill dates from `start` to `end` by a contract's rule, the arguments of `roll`."""
    days = dropwhile(lambda day: day < start, roll_bill_dates(*rule, since=start))
    return list(takewhile(lambda day: day <= end, days))


def _contracts_until(view: View, end: str) -> list[Any]:
    names = ("key", "next_bill_date", "interval", "every", "anchor_day", "ends_date", "amounts")
    query = select(*(_contracts.c[name] for name in names), customer_key(_contracts).label("customer"))
    return view.all(query.where(*view.filters(_contracts, "bills"), _contracts.c.next_bill_date <= end))
