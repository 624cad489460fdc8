"""Billed and upcoming amounts by month and quarter; contracts bill on by their interval."""

from collections import defaultdict
from datetime import date
from typing import Any

from sqlalchemy import select

from service.books.view import View, customer_key
from service.core.cadence import add_months
from service.reads.bill_rows import BILLS, is_shown
from service.reads.coming import rolled_schedules
from service.reads.months import month_bounds, months_between


class _Tally:
    """The bills of a month, quarter or year."""

    def __init__(self) -> None:
        self.cents = {"billed_cents": 0, "upcoming_cents": 0, "overdue_cents": 0}
        self.bills = 0
        self.customers: set[str] = set()

    def add(self, customer: str, cents: int, name: str) -> None:
        self.bills += 1
        self.customers.add(customer)
        self.cents[name] += cents

    def document(self) -> dict[str, int]:
        return {
            **self.cents,
            "total_cents": sum(self.cents.values()),
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
    """Tallies of the bills between two days, and of what the contracts' schedules add.

    `parts_of` gives the names of the month, quarter or year tallies in which a day counts.
    """
    start, end, today = first.isoformat(), last.isoformat(), view.scope.today.isoformat()
    tallies: dict[str, _Tally] = defaultdict(_Tally)

    def add(day: str, customer: str, cents: int, name: str) -> None:
        for part in parts_of(day):
            tallies[part].add(customer, cents, name)

    columns = BILLS.c.date, BILLS.c.status, BILLS.c.amount_cents, customer_key(BILLS).label("customer")
    bills = select(*columns).where(
        *view.filters(BILLS, "bills"), BILLS.c.status != "uncollectible", is_shown(today)
    )
    for row in view.all(bills.where(BILLS.c.date.between(start, end))):
        add(row.date, row.customer, row.amount_cents, _sum_of(row, today))
    for each in rolled_schedules(view, start, end):
        for day in each.days:
            add(day, each.contract.customer, each.schedule.amount_on(day), "upcoming_cents")
    return tallies


def _sum_of(row: Any, today: str) -> str:
    """The sum in which a bill counts."""
    if row.status == "upcoming":
        return "overdue_cents" if row.date < today else "upcoming_cents"
    return "upcoming_cents" if row.status == "draft" else "billed_cents"
