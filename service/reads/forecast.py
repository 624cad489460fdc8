"""Billed and upcoming amounts by month and quarter; contracts bill on by their interval."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from operator import mul
from typing import Annotated, Any

from msgspec import Struct, field
from sqlalchemy import select

from service.books.view import View, customer_key
from service.core.cadence import add_months
from service.core.errors import ParameterError
from service.reads.answers import (
    BilledCents,
    Bills,
    Currency,
    Customers,
    Day,
    Month,
    OverdueCents,
    TotalCents,
    UpcomingCents,
    about,
    day,
)
from service.reads.bill_rows import BILLS, is_shown
from service.reads.coming import BillCounts, RolledSchedule, rolled_schedules
from service.reads.months import month_bounds, months_between

_MOST_COUNTS = 1_000_000  # of a kind of schedules and a month: some seconds


class ForecastMonth(Struct, frozen=True, kw_only=True):
    """The bills of a month."""

    month: Month
    billed_cents: BilledCents
    upcoming_cents: UpcomingCents
    overdue_cents: OverdueCents
    total_cents: TotalCents
    customers: Customers
    bills: Bills


class ForecastQuarter(Struct, frozen=True, kw_only=True):
    """The bills of a quarter."""

    quarter: Annotated[str, about('the quarter, such as "2025-Q4"')]
    from_: Annotated[Day, day("the first day")] = field(name="from")
    to: Annotated[Day, day("the last day")]
    billed_cents: BilledCents
    upcoming_cents: UpcomingCents
    overdue_cents: OverdueCents
    total_cents: TotalCents
    customers: Customers
    bills: Bills
    months: Annotated[list[ForecastMonth], about("the quarter's three months")]


class QuarterlyForecast(Struct, frozen=True, kw_only=True):
    """The bills of some quarters."""

    currency: Currency
    quarters: Annotated[list[ForecastQuarter], about("from the one that holds `today`")]


class AnnualForecast(Struct, frozen=True, kw_only=True):
    """The bills of a year."""

    year: Annotated[int, about("the calendar year")]
    currency: Currency
    billed_cents: BilledCents
    upcoming_cents: UpcomingCents
    overdue_cents: OverdueCents
    total_cents: TotalCents
    customers: Customers
    bills: Bills
    months: Annotated[list[ForecastMonth], about("the year's twelve months")]


class _Tally:
    """The bills of a month, quarter or year."""

    def __init__(self) -> None:
        self.cents = {"billed_cents": 0, "upcoming_cents": 0, "overdue_cents": 0}
        self.bills = 0
        self.customers: set[str] = set()

    def add(self, customers: Iterable[str], bills: int, cents: int, name: str) -> None:
        """Add so many bills of these customers, and the sum of them."""
        self.bills += bills
        self.customers.update(customers)
        self.cents[name] += cents

    def figures(self) -> dict[str, int]:
        return {
            **self.cents,
            "total_cents": sum(self.cents.values()),
            "customers": len(self.customers),
            "bills": self.bills,
        }


def quarters(view: View, count: int) -> QuarterlyForecast:
    """`count` quarters from the one that holds `today`."""
    today = view.scope.today
    first = date(today.year, (today.month - 1) // 3 * 3 + 1, 1)
    starts = [add_months(first, 3 * n, 1) for n in range(count)]
    last = date.fromisoformat(_month_end(add_months(starts[-1], 2, 1)))
    tallies = _tallies(view, first, last, lambda date_: (date_[:7], quarter_of(date_)))
    return QuarterlyForecast(
        currency=view.scope.currency,
        quarters=[
            ForecastQuarter(
                quarter=quarter_of(start.isoformat()),
                from_=start.isoformat(),
                to=_month_end(add_months(start, 2, 1)),
                **tallies[quarter_of(start.isoformat())].figures(),
                months=_months(tallies, start, add_months(start, 2, 1)),
            )
            for start in starts
        ],
    )


def year(view: View, number: int) -> AnnualForecast:
    """The twelve months of a year, and the year."""
    first, last = date(number, 1, 1), date(number, 12, 31)
    tallies = _tallies(view, first, last, lambda date_: (date_[:7], date_[:4]))
    return AnnualForecast(
        year=number,
        currency=view.scope.currency,
        **tallies[f"{number:04d}"].figures(),
        months=_months(tallies, first, last),
    )


def _months(tallies: dict[str, _Tally], first: date, last: date) -> list[ForecastMonth]:
    return [ForecastMonth(month=name, **tallies[name].figures()) for name in months_between(first, last)]


def quarter_of(date_: str) -> str:
    """ "2025-Q4" for a day in it."""
    return f"{date_[:4]}-Q{(int(date_[5:7]) - 1) // 3 + 1}"


def _month_end(date_: date) -> str:
    return month_bounds(date_.year, date_.month)[1]


def _tallies(view: View, first: date, last: date, parts_of: Any) -> dict[str, _Tally]:
    """Tallies of the bills of whole months, and of what the contracts' schedules add.

    `parts_of` gives the names of the month, quarter or year tallies in which a day counts. Raises
    ParameterError where there are too many schedules for so many months.
    """
    start, end, today = first.isoformat(), last.isoformat(), view.scope.today.isoformat()
    tallies: dict[str, _Tally] = defaultdict(_Tally)

    def add(date_: str, customers: Iterable[str], bills: int, cents: int, name: str) -> None:
        for part in parts_of(date_):
            tallies[part].add(customers, bills, cents, name)

    columns = BILLS.c.date, BILLS.c.status, BILLS.c.amount_cents, customer_key(BILLS).label("customer")
    bills = select(*columns).where(
        *view.filters(BILLS, "bills"), BILLS.c.status != "uncollectible", is_shown(today)
    )
    for row in view.all(bills.where(BILLS.c.date.between(start, end))):
        add(row.date, (row.customer,), 1, row.amount_cents, _sum_of(row, today))
    alike: dict[BillCounts, list[RolledSchedule]] = defaultdict(list)
    for each in rolled_schedules(view, start, end):
        alike[each.counts].append(each)
    months = [month_bounds(int(month[:4]), int(month[5:])) for month in months_between(first, last)]
    if len(alike) * len(months) > _MOST_COUNTS:
        raise ParameterError(
            f"too much to add up: {len(alike):,} kinds of schedules in {len(months)} months; "
            "fewer quarters, or one account, are less"
        )
    for counts, schedules in alike.items():
        customers = {each.contract.customer for each in schedules}
        amounts = [sum(cents) for cents in zip(*map(_amounts, schedules), strict=True)]
        for month in months:
            by_amount = counts.between(*month)
            if any(by_amount):
                cents = sum(map(mul, by_amount, amounts))
                add(month[0], customers, sum(by_amount) * len(schedules), cents, "upcoming_cents")
    return tallies


def _amounts(rolled: RolledSchedule) -> list[int]:
    return [cents for _, cents in rolled.schedule.amounts]


def _sum_of(row: Any, today: str) -> str:
    """The sum in which a bill counts."""
    if row.status == "upcoming":
        return "overdue_cents" if row.date < today else "upcoming_cents"
    return "upcoming_cents" if row.status == "draft" else "billed_cents"
