"""MRR at the end of a day, and its movements by month or day."""

from datetime import date, timedelta
from typing import Any

from msgspec import json
from sqlalchemy import func, select

from projections.mrr import MOVEMENT_KINDS, Movement
from service.books.tables import ROWS, TOTALS
from service.books.view import View, format_fraction, sum_columns
from service.core import cadence
from service.core.money import round_half_away

_CUSTOMER_VERBS = dict(
    zip(MOVEMENT_KINDS, ("new", "reactivated", "expanded", "contracted", "churned"), strict=True)
)


def mrr(view: View) -> dict[str, Any]:
    """MRR at the end of `today`, by the events known now."""
    days, today = TOTALS["mrr_days"], view.scope.today.isoformat()
    by_schedule = view.all(
        select(days.c.interval, days.c.every, *sum_columns(days, ("contracts", "mrr_cents")))
        .where(*view.filters(days, "mrr"), days.c.date <= today)
        .group_by(days.c.interval, days.c.every)
    )
    schedules = [
        {
            "interval": row.interval,
            "every": row.every,
            "schedule": cadence.schedule_label(row.interval, row.every),
            "contracts": row.contracts,
            "mrr_cents": row.mrr_cents,
        }
        for row in sorted(by_schedule, key=lambda r: (cadence.INTERVALS.index(r.interval), r.every))
        if row.contracts or row.mrr_cents
    ]
    other_currencies = view.all(
        select(days.c.currency, *sum_columns(days, ("contracts", "mrr_cents")))
        .where(*view.filters(days, "mrr", currency=False), days.c.date <= today)
        .where(days.c.currency != view.scope.currency)
        .group_by(days.c.currency)
        .order_by(days.c.currency)
    )
    total = sum(row["mrr_cents"] for row in schedules)
    customers = paying_customers(view)
    count = {(row["interval"], row["every"]): row["contracts"] for row in schedules}
    return {
        **describe_counting(view),
        "date": today,
        "mrr_cents": total,
        "arr_cents": total * 12,
        "active_contracts": sum(row["contracts"] for row in schedules),
        "customers": customers,
        "arpa_cents": round_half_away(total, customers) if customers else None,
        "by_schedule": schedules,
        "weekly_count": count.get(("week", 1), 0),
        "four_week_count": count.get(("week", 4), 0),
        "ten_week_count": count.get(("week", 10), 0),
        "other_currencies": [
            {"currency": row.currency, "mrr_cents": row.mrr_cents, "active_contracts": row.contracts}
            for row in other_currencies
            if row.contracts or row.mrr_cents
        ],
    }


def describe_counting(view: View) -> dict[str, Any]:
    """The fields of an answer that say in which currency and by which rules MRR is counted."""
    return {
        "currency": view.scope.currency,
        "policy": view.scope.policy,
        "weeks_per_month": format_fraction(view.rules().weeks_per_month),
    }


def paying_customers(view: View) -> int:
    """How many customers have MRR at the end of `today`."""
    days = TOTALS["movement_days"]
    names = ("new_customers", "reactivation_customers", "churn_customers")
    query = select(*sum_columns(days, names)).where(
        *view.filters(days, "mrr"), days.c.date <= view.scope.today.isoformat()
    )
    new, reactivated, churned = view.one(query)
    return int(new + reactivated - churned)


def movements(view: View, first: date, last: date, by: str) -> dict[str, Any]:
    """Opening MRR, its movements and closing MRR for every period from `first` to `last`."""
    days = TOTALS["movement_days"]
    width = 7 if by == "month" else 10
    period = func.substr(days.c.date, 1, width).label("period")
    amounts = tuple(f"{kind}_cents" for kind in MOVEMENT_KINDS)
    counts = tuple(f"{kind}_customers" for kind in MOVEMENT_KINDS)
    rows = view.all(
        select(period, *sum_columns(days, (*amounts, *counts)))
        .where(*view.filters(days, "mrr"), days.c.date.between(first.isoformat(), last.isoformat()))
        .group_by(period)
    )
    rows_by_period = {row.period: row for row in rows}
    before = view.one(
        select(*sum_columns(days, amounts)).where(*view.filters(days, "mrr"), days.c.date < first.isoformat())
    )
    level = sum(before)
    periods = []
    for name in _periods(first, last, width):
        row = rows_by_period.get(name)
        change = {name: getattr(row, name) if row else 0 for name in amounts}
        opening, level = level, level + sum(change.values())
        customers = {
            f"{_CUSTOMER_VERBS[kind]}_customers": getattr(row, f"{kind}_customers") if row else 0
            for kind in MOVEMENT_KINDS
        }
        periods.append(
            {"period": name, "opening_cents": opening, **change, "closing_cents": level, **customers}
        )
    return {**describe_counting(view), "by": by, "periods": periods}


def movement_rows(view: View, first: date, last: date) -> list[dict[str, Any]]:
    """The customers' movements behind the periods, each with its causes."""
    table = ROWS[Movement]
    names = (
        "date",
        "customer_id",
        "kind",
        "amount_cents",
        "opening_cents",
        "closing_cents",
        "processor",
        "account",
        "trust",
        "causes",
    )
    query = view.with_names(select(*(table.c[name] for name in names)), table).where(
        *view.filters(table, "mrr"), table.c.date.between(first.isoformat(), last.isoformat())
    )
    rows = view.all(query.order_by(table.c.date, table.c.customer_id, table.c.processor, table.c.account))
    return [{**row._mapping, "causes": json.decode(row.causes)} for row in rows]  # noqa: SLF001


def _periods(first: date, last: date, width: int) -> list[str]:
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return list(dict.fromkeys(day.isoformat()[:width] for day in days))
