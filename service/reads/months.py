"""A month's bills in detail: issued, drafted, stated, overdue and forecast."""

import calendar
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date
from itertools import groupby
from typing import Annotated, Any

from msgspec import Struct, field, json
from sqlalchemy import BigInteger, cast, func, select

from service.books.overdue import is_overdue
from service.books.tables import TOTALS
from service.books.view import View, customer_key, sum_columns
from service.core import cadence
from service.reads.answers import (
    BilledCents,
    Bills,
    Cadence,
    Causes,
    CollectedCents,
    Currency,
    CustomerId,
    Customers,
    Day,
    OpenCents,
    OverdueCents,
    TotalCents,
    Trust,
    UpcomingCents,
    about,
    cents,
    day,
)
from service.reads.bill_rows import BILLS, ORDER, ListedBill, bill_rows, forecast_row, is_shown, position
from service.reads.coming import ForecastBill, MonthForecast, forecast_month
from service.reads.mrr import mrr

_bill_days = TOTALS["bill_days"]
_cash_days = TOTALS["cash_days"]
_SUMS = ("bills", "stated_bills", "billed_cents", "drafted_cents", "stated_cents", "open_cents")
_TALLY = (
    "payments",
    "total_cents",
    "later_cents",
    "billed_cents",
    "open_cents",
    "upcoming_cents",
    "overdue_cents",
)

LaterCents = Annotated[int, cents("what contracts of short intervals add later in the month")]


class Summary(Struct, frozen=True, kw_only=True):
    """A month in figures."""

    customers: Customers
    payments: Bills
    total_cents: TotalCents
    later_cents: LaterCents
    billed_cents: BilledCents
    open_cents: OpenCents
    upcoming_cents: UpcomingCents
    overdue_cents: OverdueCents
    schedule_total_cents: Annotated[int, cents("`total_cents` and `later_cents` together")]
    mrr_cents: Annotated[int, cents("MRR of the contracts that bill in this month, each once")]
    collected_cents: CollectedCents
    book_customers: Annotated[int, about("customers with MRR in the whole active book at the end of `today`")]
    book_mrr_cents: Annotated[int, cents("MRR of the whole active book at the end of `today`")]


class Week(Struct, frozen=True, kw_only=True):
    """A week of a month."""

    week: Annotated[int, about("which week of the month: days 1–7, 8–14, 15–21, 22–28, 29–end")]
    from_: Annotated[Day, day("the first day")] = field(name="from")
    to: Annotated[Day, day("the last day")]
    customers: Customers
    payments: Bills
    total_cents: TotalCents


class BilledDay(Struct, frozen=True, kw_only=True):
    """A day that has bills."""

    date: Annotated[Day, day("the day")]
    customers: Customers
    payments: Bills
    total_cents: TotalCents


class TopBill(Struct, frozen=True, kw_only=True):
    """One of the ten largest bills of a month."""

    rank: Annotated[int, about("the place in the list, from 1")]
    customer_id: CustomerId
    date: Annotated[Day, day("the bill date")]
    amount_cents: Annotated[int, cents("what is due")]
    cadence: Cadence
    trust: Trust
    causes: Causes


class CurrentMonth(Struct, frozen=True, kw_only=True):
    """A month without its list of payments."""

    year: Annotated[int, about("the calendar year")]
    month: Annotated[int, about("the calendar month, 1 to 12")]
    currency: Currency
    summary: Annotated[Summary, about("the month in figures")]
    weeks: Annotated[list[Week], about("the month's weeks, all of them")]
    days: Annotated[list[BilledDay], about("the days that have bills")]
    top: Annotated[list[TopBill], about("the ten largest bills: amount down, then date, then customer id")]
    top_share: Annotated[float, about("the largest bills' part of `total_cents`, 0 to 1")]


class MonthDetail(CurrentMonth, frozen=True, kw_only=True):
    """A month with every bill."""

    payments: Annotated[
        list[ListedBill], about("every bill of the month, by date, then the customer's name or else id")
    ]


def month_detail(view: View, year: int, month: int) -> MonthDetail:
    """A month with every bill."""
    summary = month_summary(view, year, month)
    parts = {name: getattr(summary, name) for name in summary.__struct_fields__}
    return MonthDetail(**parts, payments=_month_payments(view, year, month))


def month_summary(view: View, year: int, month: int) -> CurrentMonth:
    """A month without its list of payments: summary, weeks, days and the ten largest bills."""
    first, last = month_bounds(year, month)
    forecast = forecast_month(view, first, last)
    customers = _BilledCustomers(view, first, last, forecast.bills)
    days = _by_day(view, first, last, forecast)
    top = _top(view, first, last, forecast.bills)
    book = mrr(view)
    tally = {name: sum(tally[name] for tally in days.values()) for name in _TALLY}
    total, top_cents = tally["total_cents"], sum(bill.amount_cents for bill in top)
    return CurrentMonth(
        year=year,
        month=month,
        currency=view.scope.currency,
        summary=Summary(
            customers=customers.count(),
            **tally,
            schedule_total_cents=total + tally["later_cents"],
            mrr_cents=_mrr_of_billed(view, first, last, forecast.bills),
            collected_cents=_collected_between(view, first, last),
            book_customers=book.customers,
            book_mrr_cents=book.mrr_cents,
        ),
        weeks=_weeks(first, last, days, customers),
        days=_days(days, customers),
        top=top,
        top_share=round(top_cents / total, 4) if total else 0.0,
    )


def _month_payments(view: View, year: int, month: int) -> list[ListedBill]:
    """The bills of a month, by date: issued, drafted, stated, overdue and forecast."""
    first, last = month_bounds(year, month)
    rows = bill_rows(view, first, last) + [
        forecast_row(bill) for bill in forecast_month(view, first, last).bills
    ]
    return sorted(rows, key=position)


def month_bounds(year: int, month: int) -> tuple[str, str]:
    """The first and the last day of a month."""
    last = calendar.monthrange(year, month)[1]
    return date(year, month, 1).isoformat(), date(year, month, last).isoformat()


def months_between(first: date, last: date) -> list[str]:
    """ "2025-01", … for every month that holds a day from `first` to `last`."""
    start, end = (day.year * 12 + day.month - 1 for day in (first, last))
    return [f"{n // 12:04d}-{n % 12 + 1:02d}" for n in range(start, end + 1)]


def _by_day(view: View, first: str, last: str, forecast: MonthForecast) -> dict[str, dict[str, int]]:
    """The tally of each day that has bills, by day."""
    today = view.scope.today.isoformat()
    tallies: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_TALLY, 0))
    query = select(_bill_days.c.date, *sum_columns(_bill_days, _SUMS)).where(
        *view.filters(_bill_days, "bills"), _bill_days.c.date.between(first, last)
    )
    for row in view.all(query.group_by(_bill_days.c.date)):
        is_past = row.date < today  # then stated bills may be overdue, or none
        if row.bills - (row.stated_bills if is_past else 0):
            _add_bills(tallies[row.date], row, is_past=is_past)
    for date_, count, amount_cents in _overdue(view, first, last):
        tallies[date_]["payments"] += count
        _add(tallies[date_], amount_cents, "overdue_cents")
    for date_, amount_cents in forecast.later_cents_of().items():
        tallies[date_]["later_cents"] += amount_cents
    for bill in forecast.bills:
        tallies[bill.date]["payments"] += 1
        tallies[bill.date]["later_cents"] += bill.later_cents
        _add(tallies[bill.date], bill.amount_cents, "upcoming_cents")
    return dict(sorted(tallies.items()))


def _add_bills(tally: dict[str, int], row: Any, *, is_past: bool) -> None:
    """Add a day's row of the totals, without the stated bills if its day is over."""
    tally["payments"] += row.bills - (row.stated_bills if is_past else 0)
    tally["open_cents"] += row.open_cents
    _add(tally, row.billed_cents, "billed_cents")
    _add(tally, row.drafted_cents + (0 if is_past else row.stated_cents), "upcoming_cents")


def _add(tally: dict[str, int], amount_cents: int, name: str) -> None:
    tally[name] += amount_cents
    tally["total_cents"] += amount_cents


def _overdue(view: View, first: str, last: str) -> list[Any]:
    """The day, number and amount of the overdue bills of each day that has some."""
    today = view.scope.today.isoformat()
    if first >= today:
        return []
    sums = func.count(), cast(func.coalesce(func.sum(BILLS.c.amount_cents), 0), BigInteger)
    query = select(BILLS.c.date, *sums).where(*_between(view, first, last), is_overdue(today))
    return view.all(query.group_by(BILLS.c.date))


def _days(days: dict[str, dict[str, int]], customers: "_BilledCustomers") -> list[BilledDay]:
    counts = customers.count_by(lambda date_: date_)
    return [
        BilledDay(
            date=date_,
            customers=counts[date_],
            payments=tally["payments"],
            total_cents=tally["total_cents"],
        )
        for date_, tally in days.items()
    ]


def _week_of(date_: str) -> int:
    """The week of a day's month: days 1–7, 8–14, 15–21, 22–28 and the rest of the month."""
    return min((int(date_[-2:]) - 1) // 7 + 1, 5)


def _weeks(
    first: str, last: str, days: dict[str, dict[str, int]], customers: "_BilledCustomers"
) -> list[Week]:
    counts = customers.count_by(_week_of)
    by_week = {week: [days[date_] for date_ in dates] for week, dates in groupby(days, key=_week_of)}
    return [
        Week(
            week=week,
            from_=f"{first[:8]}{week * 7 - 6:02d}",
            to=f"{first[:8]}{week * 7:02d}" if week < 5 else last,
            customers=counts.get(week, 0),
            payments=sum(tally["payments"] for tally in by_week.get(week, ())),
            total_cents=sum(tally["total_cents"] for tally in by_week.get(week, ())),
        )
        for week in range(1, _week_of(last) + 1)
    ]


class _BilledCustomers:
    """The customers with bills in a range, by day."""

    def __init__(self, view: View, first: str, last: str, forecast: Sequence[ForecastBill]) -> None:
        query = select(BILLS.c.date, customer_key(BILLS)).where(*_counted(view, first, last))
        self._pairs = {tuple(row) for row in view.all(query.distinct())}
        self._pairs |= {(bill.date, bill.contract.customer) for bill in forecast}

    def count(self) -> int:
        """How many distinct customers there are."""
        return len({customer for _, customer in self._pairs})

    def count_by(self, part_of: Callable[[str], Any]) -> dict[Any, int]:
        """How many distinct customers each part of the range has; `part_of` gives the part of a day."""
        parts: dict[Any, set[str]] = {}
        for date_, customer in self._pairs:
            parts.setdefault(part_of(date_), set()).add(customer)
        return {part: len(customers) for part, customers in parts.items()}


def _between(view: View, first: str, last: str) -> list[Any]:
    return [*view.filters(BILLS, "bills"), BILLS.c.date.between(first, last)]


def _counted(view: View, first: str, last: str) -> list[Any]:
    """The conditions for bills that count: uncollectible ones are listed, but not in totals."""
    is_counted = BILLS.c.status != "uncollectible"
    return [*_between(view, first, last), is_counted, is_shown(view.scope.today.isoformat())]


def _mrr_of_billed(view: View, first: str, last: str, forecast: Sequence[ForecastBill]) -> int:
    """The MRR of the contracts that bill in a range, each once: the highest on one of its bills' days."""
    query = select(BILLS.c.key, func.max(BILLS.c.mrr_cents)).where(
        *_counted(view, first, last), BILLS.c.contract_id.is_not(None)
    )
    highest = {row[0]: row[1] for row in view.all(query.group_by(BILLS.c.key))}
    for bill in forecast:
        key = bill.contract.parent_key
        highest[key] = max(highest.get(key, 0), bill.mrr_cents)
    return sum(highest.values())


def _top(view: View, first: str, last: str, forecast: Sequence[ForecastBill]) -> list[TopBill]:
    """The ten largest bills: amount down, then date, then customer."""
    query = select(BILLS).where(*_counted(view, first, last))
    stored = view.all(query.order_by(BILLS.c.amount_cents.desc(), *ORDER).limit(10))
    rows = [
        (row, row.date, row.amount_cents, cadence.cadence_label(row.interval, row.every)) for row in stored
    ]
    rows += [
        (
            bill.contract,
            bill.date,
            bill.amount_cents,
            cadence.cadence_label(bill.schedule.interval, bill.schedule.every),
        )
        for bill in forecast
    ]
    rows.sort(key=lambda each: (-each[2], each[1], each[0].customer_id))
    return [
        TopBill(
            rank=rank,
            customer_id=row.customer_id,
            date=date_,
            amount_cents=amount_cents,
            cadence=label,
            trust=row.trust,
            causes=json.decode(row.causes),
        )
        for rank, (row, date_, amount_cents, label) in enumerate(rows[:10], start=1)
    ]


def _collected_between(view: View, first: str, last: str) -> int:
    query = select(*sum_columns(_cash_days, ("collected_cents",))).where(
        *view.filters(_cash_days, "collections"), _cash_days.c.date.between(first, last)
    )
    return int(view.one(query)[0])
