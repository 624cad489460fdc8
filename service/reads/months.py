"""A month's bills in detail, and totals by month."""

import calendar
from datetime import date
from typing import Any

from msgspec import json
from sqlalchemy import Integer, Select, case, cast, distinct, func, select

from projections.bills import UPCOMING_STATUSES, Bill
from projections.collections import CASH_KINDS, Cash
from service.books.tables import ROWS, TOTALS
from service.books.view import View, customer_key, sum_columns
from service.core import cadence
from service.reads.mrr import mrr

_bills = ROWS[Bill]
_bill_days = TOTALS["bill_days"]
_cash_days = TOTALS["cash_days"]
_cash = ROWS[Cash]
_CASH = tuple(f"{kind}_cents" for kind in CASH_KINDS)
_COUNTED = _bills.c.status != "uncollectible"  # uncollectible bills are listed, but not in totals
_ORDER = tuple(  # the same on every database, whatever order the rows were written in
    _bills.c[name].nulls_first()
    for name in "date customer_id contract_id invoice_id processor account".split()
)
_ISSUED = _COUNTED & _bills.c.status.not_in(UPCOMING_STATUSES)
_SUMS = (
    "bills",
    "upcoming_bills",
    "billed_cents",
    "upcoming_cents",
    "later_cents",
    "open_cents",
    "uncollectible_cents",
)


def month_summary(view: View, year: int, month: int) -> dict[str, Any]:
    """A month without its list of payments: summary, weeks, days and the ten largest bills."""
    first, last = month_bounds(year, month)
    days = _by_day(view, first, last)
    weeks = _weeks(view, first, last, days)
    top = _top(view, first, last)
    book = mrr(view)
    cash = _cash_between(view, first, last)
    total = sum(row["total_cents"] for row in days)
    tally = {name: sum(row[name] for row in days) for name in ("payments", *_SUMS[2:6])}
    top_cents = sum(row["amount_cents"] for row in top)
    return {
        "year": year,
        "month": month,
        "currency": view.scope.currency,
        "summary": {
            "customers": _count_customers(view, first, last),
            "payments": tally["payments"],
            "total_cents": total,
            "later_cents": tally["later_cents"],
            "schedule_total_cents": total + tally["later_cents"],
            "mrr_cents": _mrr_of_billed(view, first, last),
            "billed_cents": tally["billed_cents"],
            "collected_cents": cash["collected_cents"],
            "open_cents": tally["open_cents"],
            "upcoming_cents": tally["upcoming_cents"],
            "book_customers": book["customers"],
            "book_mrr_cents": book["mrr_cents"],
        },
        "weeks": weeks,
        "days": [
            {name: row[name] for name in ("date", "customers", "payments", "total_cents")} for row in days
        ],
        "top": top,
        "top_share": round(top_cents / total, 4) if total else 0.0,
    }


def month_payments(view: View, year: int, month: int) -> list[dict[str, Any]]:
    """The bills of a month, by date."""
    return bill_rows(view, *month_bounds(year, month))


def bill_rows(view: View, first: str, last: str, *, upcoming_only: bool = False) -> list[dict[str, Any]]:
    """The bills between two days, by date, with the customer's name."""
    query = view.with_names(select(_bills), _bills).where(*_between(view, first, last))
    if upcoming_only:
        query = query.where(_bills.c.status.in_(UPCOMING_STATUSES))
    query = query.order_by(*_ORDER)
    return [
        {
            "date": row.date,
            "customer_id": row.customer_id,
            "customer_name": row.customer_name,
            "contract_id": row.contract_id,
            "invoice_id": row.invoice_id,
            "amount_cents": row.amount_cents,
            "cadence": cadence.cadence_label(row.interval, row.every),
            "mrr_cents": row.mrr_cents,
            "status": row.status,
            "next_bill_date": row.next_bill_date,
            "open_cents": row.open_cents,
            "declined": row.declined,
            "schedule": cadence.schedule_label(row.interval, row.every),
            "processor": row.processor,
            "account": row.account,
            "trust": row.trust,
            "causes": json.decode(row.causes),
        }
        for row in view.all(query)
    ]


def monthly_totals(view: View, first: date, last: date) -> dict[str, Any]:
    """Totals of every month from `first` to `last`: bills by bill date, cash by the day it moved."""
    start, end = first.isoformat(), last.isoformat()
    bills_by_month = _by_month(
        view, select(_month(_bill_days), *sum_columns(_bill_days, _SUMS)), _bill_days, "bills", start, end
    )
    cash_by_month = _by_month(
        view,
        select(_month(_cash_days), *sum_columns(_cash_days, _CASH)),
        _cash_days,
        "collections",
        start,
        end,
    )
    count_query = select(_month(_bills), func.count(distinct(customer_key(_bills))).label("customers")).where(
        _ISSUED
    )
    customers_by_month = _by_month(view, count_query, _bills, "bills", start, end)
    months = []
    for name in months_between(first, last):
        bills, cash, customers = (
            bills_by_month.get(name),
            cash_by_month.get(name),
            customers_by_month.get(name),
        )
        collected, refunded, disputed = (getattr(cash, column) if cash else 0 for column in _CASH)
        months.append(
            {
                "month": name,
                "billed_cents": bills.billed_cents if bills else 0,
                "collected_cents": collected,
                "refunded_cents": refunded,
                "disputed_cents": disputed,
                "net_cents": collected - refunded - disputed,
                "open_cents": bills.open_cents if bills else 0,
                "uncollectible_cents": bills.uncollectible_cents if bills else 0,
                "upcoming_cents": bills.upcoming_cents if bills else 0,
                "bills": bills.bills - bills.upcoming_bills if bills else 0,
                "upcoming_bills": bills.upcoming_bills if bills else 0,
                "customers": customers.customers if customers else 0,
            }
        )
    return {"currency": view.scope.currency, "months": months}


def cash_rows(view: View, first: date, last: date) -> list[dict[str, Any]]:
    """The money behind the months' cash, by date, each with its causes."""
    days = _cash.c.date.between(first.isoformat(), last.isoformat())
    query = view.with_names(select(_cash), _cash).where(*view.filters(_cash, "collections"), days)
    order = "date customer_id kind source_id part processor account".split()
    return [
        {
            "date": row.date,
            "kind": row.kind,
            "amount_cents": row.amount_cents,
            "customer_id": row.customer_id,
            "customer_name": row.customer_name,
            "source_id": row.source_id,
            "link": row.link or None,
            "processor": row.processor,
            "account": row.account,
            "trust": row.trust,
            "causes": json.decode(row.causes),
        }
        for row in view.all(query.order_by(*(_cash.c[name] for name in order)))
    ]


def month_bounds(year: int, month: int) -> tuple[str, str]:
    """The first and the last day of a month."""
    last = calendar.monthrange(year, month)[1]
    return date(year, month, 1).isoformat(), date(year, month, last).isoformat()


def months_between(first: date, last: date) -> list[str]:
    """ "2025-01", … for every month that holds a day from `first` to `last`."""
    start, end = (day.year * 12 + day.month - 1 for day in (first, last))
    return [f"{n // 12:04d}-{n % 12 + 1:02d}" for n in range(start, end + 1)]


def _between(view: View, first: str, last: str) -> list[Any]:
    return [*view.filters(_bills, "bills"), _bills.c.date.between(first, last)]


def _month(table: Any) -> Any:
    return func.substr(table.c.date, 1, 7).label("month")


def _by_month(view: View, query: Select[Any], table: Any, book: str, first: str, last: str) -> dict[str, Any]:
    query = query.where(*view.filters(table, book), table.c.date.between(first, last)).group_by("month")
    return {row.month: row for row in view.all(query)}


def _by_day(view: View, first: str, last: str) -> list[dict[str, Any]]:
    rows = view.all(
        select(_bill_days.c.date, *sum_columns(_bill_days, _SUMS))
        .where(*view.filters(_bill_days, "bills"), _bill_days.c.date.between(first, last))
        .group_by(_bill_days.c.date)
        .order_by(_bill_days.c.date)
    )
    customers = _count_customers_by(view, _bills.c.date, first, last)
    return [
        {
            **{name: getattr(row, name) for name in _SUMS},
            "date": row.date,
            "customers": customers.get(row.date, 0),
            "payments": row.bills,
            "total_cents": row.billed_cents + row.upcoming_cents,
        }
        for row in rows
        if row.bills
    ]


def _weeks(view: View, first: str, last: str, days: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The weeks of a month: days 1–7, 8–14, 15–21, 22–28 and the rest of the month."""
    week_number = (cast(func.substr(_bills.c.date, 9, 2), Integer) - 1) // 7 + 1
    customers = _count_customers_by(view, case((week_number > 5, 5), else_=week_number), first, last)
    weeks = []
    for week in range(1, 6):
        starts, ends = week * 7 - 6, min(week * 7, int(last[-2:]))
        if starts > ends:
            break
        days_of_week = [day for day in days if starts <= int(day["date"][-2:]) <= ends]
        weeks.append(
            {
                "week": week,
                "from": f"{first[:8]}{starts:02d}",
                "to": f"{first[:8]}{ends:02d}",
                "customers": customers.get(week, 0),
                "payments": sum(day["payments"] for day in days_of_week),
                "total_cents": sum(day["total_cents"] for day in days_of_week),
            }
        )
    return weeks


def _count_customers_by(view: View, group: Any, first: str, last: str) -> dict[Any, int]:
    query = select(group.label("part"), func.count(distinct(customer_key(_bills))))
    return {
        row[0]: row[1]
        for row in view.all(query.where(*_between(view, first, last), _COUNTED).group_by("part"))
    }


def _count_customers(view: View, first: str, last: str) -> int:
    query = select(func.count(distinct(customer_key(_bills)))).where(*_between(view, first, last), _COUNTED)
    return int((view.one(query))[0])


def _mrr_of_billed(view: View, first: str, last: str) -> int:
    """The MRR of the billed contracts, each counted once."""
    contracts = (
        select(func.max(_bills.c.mrr_cents).label("mrr_cents"))
        .where(*_between(view, first, last), _COUNTED, _bills.c.contract_id.is_not(None))
        .group_by(_bills.c.processor, _bills.c.account, _bills.c.contract_id)
        .subquery()
    )
    return int((view.one(select(func.coalesce(func.sum(contracts.c.mrr_cents), 0))))[0])


def _top(view: View, first: str, last: str) -> list[dict[str, Any]]:
    query = (
        select(_bills)
        .where(*_between(view, first, last), _COUNTED)
        .order_by(_bills.c.amount_cents.desc(), *_ORDER)
        .limit(10)
    )
    return [
        {
            "rank": rank,
            "customer_id": row.customer_id,
            "date": row.date,
            "amount_cents": row.amount_cents,
            "cadence": cadence.cadence_label(row.interval, row.every),
            "trust": row.trust,
            "causes": json.decode(row.causes),
        }
        for rank, row in enumerate(view.all(query), start=1)
    ]


def _cash_between(view: View, first: str, last: str) -> dict[str, int]:
    query = select(*sum_columns(_cash_days, _CASH)).where(
        *view.filters(_cash_days, "collections"), _cash_days.c.date.between(first, last)
    )
    return dict((view.one(query))._mapping)  # noqa: SLF001
