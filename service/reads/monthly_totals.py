"""Totals by month: bills by bill date, cash by the day it moved."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from msgspec import UNSET, Struct, UnsetType, json
from sqlalchemy import case, distinct, func, select

from projections.bills import Bill
from projections.collections import CASH_KINDS, Cash
from service.books.tables import ROWS, TOTALS
from service.books.view import View, customer_key, sum_columns
from service.reads.answers import (
    Account,
    BilledCents,
    Causes,
    CollectedCents,
    Currency,
    CustomerId,
    Day,
    Link,
    Month,
    NameOfCustomer,
    OpenCents,
    Processor,
    SourceId,
    Trust,
    about,
    cents,
    day,
)
from service.reads.months import months_between

_bills = ROWS[Bill]
_cash = ROWS[Cash]
_bill_days = TOTALS["bill_days"]
_cash_days = TOTALS["cash_days"]
_CASH_SUMS = tuple(f"{kind}_cents" for kind in CASH_KINDS)
_BILL_SUMS = ("billed_cents", "open_cents", "uncollectible_cents", "bills", "drafts", "stated_bills")
_NO_BILLS, _NO_CASH = dict.fromkeys(_BILL_SUMS, 0), dict.fromkeys(_CASH_SUMS, 0)
_ISSUED = _bills.c.status.not_in(("uncollectible", "upcoming", "draft"))


class MonthTotals(Struct, frozen=True, kw_only=True):
    """What was billed, and what cash moved, in a month."""

    month: Month
    billed_cents: BilledCents
    collected_cents: CollectedCents
    refunded_cents: Annotated[int, cents("refunds that succeeded, by their own day")]
    disputed_cents: Annotated[int, cents("disputes lost, by the day they were lost")]
    net_cents: Annotated[int, cents("collected less refunded less disputed")]
    open_cents: OpenCents
    uncollectible_cents: Annotated[int, cents("bills given up as uncollectible, by bill date")]
    bills: Annotated[int, about("how many bills were issued")]
    customers: Annotated[int, about("how many distinct customers were billed")]


class CashRow(Struct, frozen=True, kw_only=True):
    """A payment, refund or lost dispute."""

    date: Annotated[Day, day("the day on which it was paid, refunded or lost")]
    kind: Annotated[Literal["collected", "refunded", "disputed"], about("what became of the money")]
    amount_cents: Annotated[int, cents("how much; negative where collected money was taken back")]
    customer_id: CustomerId
    customer_name: NameOfCustomer
    source_id: SourceId
    link: Link
    processor: Processor
    account: Account
    trust: Trust
    causes: Causes


class MonthlyTotals(Struct, frozen=True, kw_only=True):
    """Totals by month: bills by bill date, cash by the day it moved."""

    currency: Currency
    months: Annotated[list[MonthTotals], about("every month of the range")]
    cash: Annotated[
        list[CashRow] | UnsetType,
        about("the money behind the months, by date; only with `detail=cash`"),
    ] = UNSET


def monthly_totals(view: View, first: date, last: date, *, with_cash: bool) -> MonthlyTotals:
    """Totals of every month from `first` to `last`; `with_cash` lists the money behind them."""
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
            MonthTotals(
                month=name,
                billed_cents=of_bills["billed_cents"],
                **of_cash,
                net_cents=of_cash["collected_cents"] - returned,
                open_cents=of_bills["open_cents"],
                uncollectible_cents=of_bills["uncollectible_cents"],
                bills=of_bills["bills"] - of_bills["drafts"] - of_bills["stated_bills"],
                customers=customers.get(name, {"customers": 0})["customers"],
            )
        )
    return MonthlyTotals(
        currency=view.scope.currency,
        months=months,
        cash=_cash_rows(view, *range_) if with_cash else UNSET,
    )


def _cash_rows(view: View, first: str, last: str) -> list[CashRow]:
    """The money behind the months' cash, by date, each with its causes."""
    query = view.with_names(select(_cash), _cash).where(
        *view.filters(_cash, "collections"), _cash.c.date.between(first, last)
    )
    order = "date customer_id kind source_id part processor account".split()
    return [
        CashRow(
            date=row.date,
            kind=row.kind,
            amount_cents=row.amount_cents,
            customer_id=row.customer_id,
            customer_name=row.customer_name,
            source_id=row.source_id,
            link=row.link or None,
            processor=row.processor,
            account=row.account,
            trust=row.trust,
            causes=json.decode(row.causes),
        )
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
