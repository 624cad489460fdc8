"""Totals by month: bills by bill date, cash by the day it moved."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from msgspec import json
from sqlalchemy import case, distinct, func, select

from projections.bills import Bill
from projections.collections import CASH_KINDS, Cash
from service.books.tables import ROWS, TOTALS
from service.books.view import View, customer_key, sum_columns
from service.reads.months import months_between

_bills = ROWS[Bill]
_cash = ROWS[Cash]
_bill_days = TOTALS["bill_days"]
_cash_days = TOTALS["cash_days"]
_CASH_SUMS = tuple(f"{kind}_cents" for kind in CASH_KINDS)
_BILL_SUMS = ("billed_cents", "open_cents", "uncollectible_cents", "bills", "drafts", "stated_bills")
_NO_BILLS, _NO_CASH = dict.fromkeys(_BILL_SUMS, 0), dict.fromkeys(_CASH_SUMS, 0)
_ISSUED = _bills.c.status.not_in(("uncollectible", "upcoming", "draft"))


def monthly_totals(view: View, first: date, last: date) -> dict[str, Any]:
    """Totals of every month from `first` to `last`: bills by bill date, cash by the day it moved."""
    range_ = first.isoformat(), last.isoformat()
    bills = _by_month(view, sum_columns(_bill_days, _BILL_SUMS), _bill_days, "bills", *range_)
    cash = _by_month(view, sum_columns(_cash_days, _CASH_SUMS), _cash_days, "collections", *range_)
    distinct_customers = func.count(distinct(case((_ISSUED, customer_key(_bills))))).label("customers")
    customers = _by_month(view, [distinct_customers], _bills, "bills", *range_)
    months = []
    for name in months_between(first, last):
        of_bills, of_cash = bills.get(name, _NO_BILLS), cash.get(name, _NO_CASH)
        returned = of_cash["refunded_cents"] + of_cash["disputed_cents"]
        months.append(
            {
                "month": name,
                "billed_cents": of_bills["billed_cents"],
                **of_cash,
                "net_cents": of_cash["collected_cents"] - returned,
                "open_cents": of_bills["open_cents"],
                "uncollectible_cents": of_bills["uncollectible_cents"],
                "bills": of_bills["bills"] - of_bills["drafts"] - of_bills["stated_bills"],
                "customers": customers.get(name, {"customers": 0})["customers"],
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


def _by_month(
    view: View, columns: list[Any], table: Any, book: str, first: str, last: str
) -> dict[str, Mapping[str, int]]:
    """The columns of each month's rows."""
    month = func.substr(table.c.date, 1, 7).label("month")
    query = select(month, *columns).where(*view.filters(table, book), table.c.date.between(first, last))
    rows = (dict(row._mapping) for row in view.all(query.group_by("month")))  # noqa: SLF001
    return {row.pop("month"): row for row in rows}
