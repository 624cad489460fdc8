"""Billed and upcoming amounts by month and quarter; contracts bill on by their interval."""

from collections import defaultdict
from datetime import date
from itertools import takewhile
from typing import Any

from msgspec.structs import replace
from sqlalchemy import select

from projections.bills import UPCOMING_STATUSES, Bill, Contract
from projections.schedules import BillingSchedule, decode
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
            _bills.c.interval,
            _bills.c.every,
            _bills.c.status,
            _bills.c.amount_cents,
            customer_key(_bills).label("customer"),
        )
        .where(*view.filters(_bills, "bills"), _bills.c.status != "uncollectible")
        .where(_bills.c.date.between(start, end) | (_bills.c.status == "upcoming"))
    )
    not_billed_yet = {
        (row.key, row.interval, row.every, row.date) for row in bills if row.status == "upcoming"
    }
    for row in bills:
        if row.status != "upcoming" and start <= row.date <= end:
            for part in parts_of(row.date):
                tallies[part].add(row.customer, row.amount_cents, upcoming=row.status in UPCOMING_STATUSES)
    days_by_rule: dict[BillingSchedule, list[str]] = {}  # many contracts bill on the same days
    for row in _contracts_until(view, end):
        for schedule in decode(row.schedules):
            rule = replace(schedule, amounts=())
            days = days_by_rule.get(rule)
            if days is None:
                days = days_by_rule[rule] = _bill_days(rule, start, end)
            key = row.parent_key, schedule.interval, schedule.every, schedule.next_bill_date
            for day in days:
                cents = schedule.amount_on(day)
                is_billed = day == schedule.next_bill_date and key not in not_billed_yet
                if cents and not is_billed:
                    for part in parts_of(day):
                        tallies[part].add(row.customer, cents, upcoming=True)
    return tallies


def _bill_days(schedule: BillingSchedule, start: str, end: str) -> list[str]:
    """The days from `start` to `end` on which a schedule bills."""
    return [day for day in takewhile(lambda day: day <= end, schedule.bill_days(start)) if day >= start]


def _contracts_until(view: View, end: str) -> list[Any]:
    query = select(
        _contracts.c.parent_key, _contracts.c.schedules, customer_key(_contracts).label("customer")
    )
    return view.all(query.where(*view.filters(_contracts, "bills"), _contracts.c.next_bill_date <= end))
