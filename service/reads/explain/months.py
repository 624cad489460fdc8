"""The figures of months and of upcoming bills: bills by bill date, cash by the day it moved."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace
from sqlalchemy import ColumnElement, and_, case, false, func, or_, select

from projections.bills import UPCOMING_STATUSES, Bill
from projections.collections import CASH_KINDS, Cash
from projections.mrr import Step
from service.books.tables import ROWS
from service.books.view import View, customer_key
from service.reads.explain import mrr
from service.reads.explain.rows import Explainer, Explanation, Figure, RowSource, matches_row
from service.reads.months import month_bounds

_bills = ROWS[Bill]
_cash = ROWS[Cash]
_steps = ROWS[Step]

_DISTINCT = "distinct customers: one row of each"
_COUNTED = _bills.c.status != "uncollectible"  # uncollectible bills are listed, but not in totals
_UPCOMING = _bills.c.status.in_(UPCOMING_STATUSES)
_ISSUED = _COUNTED & ~_UPCOMING


def _if(condition: ColumnElement[bool], cents: Any = 1) -> ColumnElement[Any]:
    return case((condition, cents), else_=0)


def _first_of(
    group: Sequence[Any], among: ColumnElement[bool], first: Any, contribution: Any
) -> ColumnElement[Any]:
    """The contribution of the first row of each group, among the rows that meet a condition."""
    order = (first, _bills.c.date, _bills.c.key, _bills.c.invoice_id.nulls_first())
    number = func.row_number().over(partition_by=(_if(among), *group), order_by=order)
    return _if(among & (number == 1), contribution)


def _customers(among: ColumnElement[bool]) -> ColumnElement[Any]:
    return _first_of((customer_key(_bills),), among, _bills.c.date, 1)


# The contribution of a bill to each figure.
_amount = _bills.c.amount_cents
_BILL_CONTRIBUTIONS: dict[str, ColumnElement[Any]] = {
    "total_cents": _if(_COUNTED, _amount),
    "later_cents": _if(_COUNTED, _bills.c.later_cents),
    "schedule_total_cents": _if(_COUNTED, _amount + _bills.c.later_cents),
    "billed_cents": _if(_ISSUED, _amount),
    "upcoming_cents": _if(_UPCOMING, _amount),
    "open_cents": _if(_COUNTED, _bills.c.open_cents),
    "uncollectible_cents": _if(~_COUNTED, _bills.c.uncollectible_cents),
    "payments": _if(_COUNTED),
    "customers": _customers(_COUNTED),
}
_MONTH_CONTRIBUTIONS = {
    **_BILL_CONTRIBUTIONS,
    "bills": _if(_ISSUED),
    "upcoming_bills": _if(_UPCOMING),
    "customers": _customers(_ISSUED),
}
_UPCOMING_CONTRIBUTIONS = {
    "total_cents": _if(_UPCOMING, _amount),
    "daily_revenue_cents": _if(_UPCOMING, _amount),
    "payments_count": _if(_UPCOMING),
    "payment_count": _if(_UPCOMING),
    "customers_count": _customers(_UPCOMING),
}
# The contribution of a cash row to each figure.
_CASH_CONTRIBUTIONS: dict[str, ColumnElement[Any]] = {
    **{f"{kind}_cents": _if(_cash.c.kind == kind, _cash.c.amount_cents) for kind in CASH_KINDS},
    "net_cents": case((_cash.c.kind == "collected", _cash.c.amount_cents), else_=-_cash.c.amount_cents),
}


def _bills_between(view: View, first: str, last: str) -> list[ColumnElement[bool]]:
    return [*view.filters(_bills, "bills"), _bills.c.date.between(first, last)]


def _sum_of_bills(
    view: View, first: str, last: str, contribution: ColumnElement[Any], name: str
) -> Explanation:
    rows = RowSource(table=_bills, where=_bills_between(view, first, last), contribution=contribution)
    return Explanation(sources=[rows], counting=_DISTINCT if name.startswith("customers") else None)


def _sum_of_cash(view: View, first: str, last: str, name: str) -> Explanation:
    where = [*view.filters(_cash, "collections"), _cash.c.date.between(first, last)]
    return Explanation(sources=[RowSource(table=_cash, where=where, contribution=_CASH_CONTRIBUTIONS[name])])


# A month


def _bounds(figure: Figure) -> tuple[str, str]:
    return month_bounds(figure.document["year"], figure.document["month"])


def _in_month(figure: Figure) -> Explanation:
    if figure.name in _CASH_CONTRIBUTIONS:
        return _sum_of_cash(figure.view, *_bounds(figure), figure.name)
    return _sum_of_bills(figure.view, *_bounds(figure), _BILL_CONTRIBUTIONS[figure.name], figure.name)


def _in_week(figure: Figure) -> Explanation:
    return _sum_of_bills(
        figure.view, figure.row["from"], figure.row["to"], _BILL_CONTRIBUTIONS[figure.name], figure.name
    )


def _on_day(figure: Figure) -> Explanation:
    return _sum_of_bills(
        figure.view, figure.row["date"], figure.row["date"], _BILL_CONTRIBUTIONS[figure.name], figure.name
    )


def _mrr_billed(figure: Figure) -> Explanation:
    """The steps of each billed contract, until the bill on whose day its MRR was the highest."""
    contract = (_bills.c.processor, _bills.c.account, _bills.c.contract_id)
    billed = _COUNTED & _bills.c.contract_id.is_not(None)
    first = _first_of(contract, billed, _bills.c.mrr_cents.desc(), 1)
    query = select(_bills.c.key, _bills.c.date, first.label("first"))
    bills = query.where(*_bills_between(figure.view, *_bounds(figure))).subquery()
    is_of_contract = (_steps.c.key == bills.c.key) & (_steps.c.date <= bills.c.date) & (bills.c.first == 1)
    rows = RowSource(
        table=_steps,
        joined=bills.join(_steps, is_of_contract),
        where=figure.view.filters(_steps, "mrr", currency=False),
        contribution=_steps.c.mrr_cents,
    )
    return Explanation(
        sources=[rows], counting="the contracts' MRR on the day of their bill, each contract once"
    )


def _bill(figure: Figure, names: str, contribution: str | None = None) -> Explanation:
    """One bill, selected by the named columns."""
    where = [*figure.view.filters(_bills, "bills"), *matches_row(_bills, figure.row, names)]
    return Explanation(
        sources=[RowSource(table=_bills, where=where, contribution=_bills.c[contribution or figure.name])]
    )


def _bills_mrr(figure: Figure) -> Explanation:
    """The steps of a bill's contract until its day."""
    where = [*figure.view.filters(_bills, "bills"), *matches_row(_bills, figure.row, _BILL)]
    steps = [*figure.view.filters(_steps, "mrr", currency=False), _steps.c.date <= figure.row["date"]]
    steps.append(_steps.c.key.in_(select(_bills.c.key).where(*where)))
    return Explanation(sources=[RowSource(table=_steps, where=steps, contribution=_steps.c.mrr_cents)])


def _top_share(figure: Figure) -> Explanation:
    largest = [and_(*matches_row(_bills, row, _TOP)) for row in figure.document["top"]]
    where = [*_bills_between(figure.view, *_bounds(figure)), or_(false(), *largest)]
    return Explanation(
        sources=[RowSource(table=_bills, where=where, contribution=_amount)],
        formula="the ten largest bills ÷ total_cents, to four digits",
        terms={"total_cents": figure.document["summary"]["total_cents"]},
    )


# Totals by month


def _of_months(figure: Figure) -> Explanation:
    year, month = map(int, figure.row["month"].split("-"))
    first, last = month_bounds(year, month)
    first = max(first, figure.args["from"].isoformat())
    last = min(last, figure.args["to"].isoformat())
    if figure.name in _CASH_CONTRIBUTIONS:
        return _sum_of_cash(figure.view, first, last, figure.name)
    return _sum_of_bills(figure.view, first, last, _MONTH_CONTRIBUTIONS[figure.name], figure.name)


def _cash_row(figure: Figure) -> Explanation:
    names = "date customer_id kind source_id amount_cents processor account causes"
    where = [*figure.view.filters(_cash, "collections"), *matches_row(_cash, figure.row, names)]
    return Explanation(sources=[RowSource(table=_cash, where=where, contribution=_cash.c.amount_cents)])


# Upcoming


def _upcoming(figure: Figure) -> Explanation:
    first, last = (figure.args[name].isoformat() for name in ("from", "to"))
    return _sum_of_bills(figure.view, first, last, _UPCOMING_CONTRIBUTIONS[figure.name], figure.name)


def _upcoming_on_day(figure: Figure) -> Explanation:
    day = figure.row["billing_date"]
    return _sum_of_bills(figure.view, day, day, _UPCOMING_CONTRIBUTIONS[figure.name], figure.name)


def _upcoming_bill(figure: Figure) -> Explanation:
    return _bill(_dated(figure), _UPCOMING_BILL, "amount_cents")


def _days_until(figure: Figure) -> Explanation:
    explanation = _upcoming_bill(figure)
    return Explanation(sources=explanation.sources, formula="the days from `today` to next_bill_date")


def _dated(figure: Figure) -> Figure:
    return replace(figure, row=figure.row | {"date": figure.row["next_bill_date"]})


_BILL = "date customer_id contract_id invoice_id processor account"
_UPCOMING_BILL = "date customer_id contract_id invoice_id processor causes"
_TOP = "date customer_id amount_cents causes"
_TALLY = ("customers", "payments", "total_cents")

CURRENT_MONTH: dict[str, Explainer] = {
    **{
        f"summary/{name}": _in_month
        for name in (*_BILL_CONTRIBUTIONS, "collected_cents")
        if name != "uncollectible_cents"
    },
    "summary/mrr_cents": _mrr_billed,
    "summary/book_customers": mrr.customers,
    "summary/book_mrr_cents": mrr.level,
    **{f"weeks/*/{name}": _in_week for name in _TALLY},
    **{f"days/*/{name}": _on_day for name in _TALLY},
    "top/*/amount_cents": partial(_bill, names=_TOP),
    "top_share": _top_share,
}
MONTH_DETAIL: dict[str, Explainer] = {
    **CURRENT_MONTH,
    "payments/*/amount_cents": partial(_bill, names=_BILL),
    "payments/*/open_cents": partial(_bill, names=_BILL),
    "payments/*/mrr_cents": _bills_mrr,
}
MONTHLY_TOTALS: dict[str, Explainer] = {
    **{
        f"months/*/{name}": _of_months
        for name in (
            *("billed_cents", "collected_cents", "refunded_cents", "disputed_cents", "net_cents"),
            *("open_cents", "uncollectible_cents", "upcoming_cents", "bills", "upcoming_bills", "customers"),
        )
    },
    "cash/*/amount_cents": _cash_row,
}
UPCOMING_BILLS: dict[str, Explainer] = {
    **dict.fromkeys(("total_cents", "payments_count", "customers_count"), _upcoming),
    **{f"days/*/{name}": _upcoming_on_day for name in ("payment_count", "daily_revenue_cents")},
    "payments/*/amount_cents": _upcoming_bill,
    "payments/*/days_until_payment": _days_until,
}
