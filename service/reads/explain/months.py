"""The figures of months and of what is upcoming: bills by their date, cash by its own."""

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
from service.reads.explain.rows import Asked, Explain, Explained, Rows, same
from service.reads.months import month_bounds

_bills = ROWS[Bill]
_cash = ROWS[Cash]
_steps = ROWS[Step]

_DISTINCT = "distinct customers: one row of each"
_COUNTED = _bills.c.status != "uncollectible"  # those are listed, and not in totals
_COMING = _bills.c.status.in_(UPCOMING_STATUSES)
_ISSUED = _COUNTED & ~_COMING


def _if(condition: ColumnElement[bool], cents: Any = 1) -> ColumnElement[Any]:
    return case((condition, cents), else_=0)


def _first_of(group: Sequence[Any], among: ColumnElement[bool], first: Any, adds: Any) -> ColumnElement[Any]:
    """What the first row of each group adds, of the rows among these."""
    order = (first, _bills.c.date, _bills.c.key, _bills.c.invoice_id.nulls_first())
    number = func.row_number().over(partition_by=(_if(among), *group), order_by=order)
    return _if(among & (number == 1), adds)


def _customers(among: ColumnElement[bool]) -> ColumnElement[Any]:
    return _first_of((customer_key(_bills),), among, _bills.c.date, 1)


# What a bill adds to each figure.
_amount = _bills.c.amount_cents
_OF_BILLS: dict[str, ColumnElement[Any]] = {
    "total_cents": _if(_COUNTED, _amount),
    "later_cents": _if(_COUNTED, _bills.c.later_cents),
    "schedule_total_cents": _if(_COUNTED, _amount + _bills.c.later_cents),
    "billed_cents": _if(_ISSUED, _amount),
    "upcoming_cents": _if(_COMING, _amount),
    "open_cents": _if(_COUNTED, _bills.c.open_cents),
    "uncollectible_cents": _if(~_COUNTED, _amount),
    "payments": _if(_COUNTED),
    "customers": _customers(_COUNTED),
}
_OF_MONTHS = {
    **_OF_BILLS,
    "bills": _if(_ISSUED),
    "upcoming_bills": _if(_COMING),
    "customers": _customers(_ISSUED),
}
_OF_UPCOMING = {
    "total_cents": _if(_COMING, _amount),
    "daily_revenue_cents": _if(_COMING, _amount),
    "payments_count": _if(_COMING),
    "payment_count": _if(_COMING),
    "customers_count": _customers(_COMING),
}
# What money that moved adds.
_OF_CASH: dict[str, ColumnElement[Any]] = {
    **{f"{kind}_cents": _if(_cash.c.kind == kind, _cash.c.amount_cents) for kind in CASH_KINDS},
    "net_cents": case((_cash.c.kind == "collected", _cash.c.amount_cents), else_=-_cash.c.amount_cents),
}


def _within(view: View, first: str, last: str) -> list[ColumnElement[bool]]:
    return [*view.filters(_bills, "bills"), _bills.c.date.between(first, last)]


def _added(view: View, first: str, last: str, adds: ColumnElement[Any], name: str) -> Explained:
    rows = Rows(table=_bills, where=_within(view, first, last), contributes=adds)
    return Explained(rows=[rows], counting=_DISTINCT if name.startswith("customers") else None)


def _moved(view: View, first: str, last: str, name: str) -> Explained:
    where = [*view.filters(_cash, "collections"), _cash.c.date.between(first, last)]
    return Explained(rows=[Rows(table=_cash, where=where, contributes=_OF_CASH[name])])


# A month


def _bounds(asked: Asked) -> tuple[str, str]:
    return month_bounds(asked.document["year"], asked.document["month"])


def _in_month(asked: Asked) -> Explained:
    if asked.name in _OF_CASH:
        return _moved(asked.view, *_bounds(asked), asked.name)
    return _added(asked.view, *_bounds(asked), _OF_BILLS[asked.name], asked.name)


def _in_week(asked: Asked) -> Explained:
    return _added(asked.view, asked.row["from"], asked.row["to"], _OF_BILLS[asked.name], asked.name)


def _on_day(asked: Asked) -> Explained:
    return _added(asked.view, asked.row["date"], asked.row["date"], _OF_BILLS[asked.name], asked.name)


def _mrr_billed(asked: Asked) -> Explained:
    """The steps of each contract that bills, until the bill on whose day its MRR is the highest."""
    contract = (_bills.c.processor, _bills.c.account, _bills.c.contract_id)
    billed = _COUNTED & _bills.c.contract_id.is_not(None)
    first = _first_of(contract, billed, _bills.c.mrr_cents.desc(), 1)
    each = select(_bills.c.key, _bills.c.date, first.label("first"))
    each = each.where(*_within(asked.view, *_bounds(asked)))
    chosen = each.subquery()
    of_them = (_steps.c.key == chosen.c.key) & (_steps.c.date <= chosen.c.date) & (chosen.c.first == 1)
    rows = Rows(
        table=_steps,
        source=chosen.join(_steps, of_them),
        where=asked.view.filters(_steps, "mrr", currency=False),
        contributes=_steps.c.mrr_cents,
    )
    return Explained(rows=[rows], counting="the contracts' MRR on the day of their bill, each contract once")


def _bill(asked: Asked, names: str, adds: str | None = None) -> Explained:
    """One bill, found again by these of its columns."""
    where = [*asked.view.filters(_bills, "bills"), *same(_bills, asked.row, names)]
    return Explained(rows=[Rows(table=_bills, where=where, contributes=_bills.c[adds or asked.name])])


def _bills_mrr(asked: Asked) -> Explained:
    """The steps of a bill's contract until its day."""
    where = [*asked.view.filters(_bills, "bills"), *same(_bills, asked.row, _BILL)]
    steps = [*asked.view.filters(_steps, "mrr", currency=False), _steps.c.date <= asked.row["date"]]
    steps.append(_steps.c.key.in_(select(_bills.c.key).where(*where)))
    return Explained(rows=[Rows(table=_steps, where=steps, contributes=_steps.c.mrr_cents)])


def _top_share(asked: Asked) -> Explained:
    largest = [and_(*same(_bills, row, _TOP)) for row in asked.document["top"]]
    where = [*_within(asked.view, *_bounds(asked)), or_(false(), *largest)]
    return Explained(
        rows=[Rows(table=_bills, where=where, contributes=_amount)],
        formula="the ten largest bills ÷ total_cents, to four digits",
        terms={"total_cents": asked.document["summary"]["total_cents"]},
    )


# Months side by side


def _of_months(asked: Asked) -> Explained:
    year, month = map(int, asked.row["month"].split("-"))
    first, last = month_bounds(year, month)
    first = max(first, asked.args["from"].isoformat())
    last = min(last, asked.args["to"].isoformat())
    if asked.name in _OF_CASH:
        return _moved(asked.view, first, last, asked.name)
    return _added(asked.view, first, last, _OF_MONTHS[asked.name], asked.name)


def _cash_row(asked: Asked) -> Explained:
    names = "date customer_id kind source_id amount_cents processor account causes"
    where = [*asked.view.filters(_cash, "collections"), *same(_cash, asked.row, names)]
    return Explained(rows=[Rows(table=_cash, where=where, contributes=_cash.c.amount_cents)])


# Upcoming


def _coming(asked: Asked) -> Explained:
    first, last = (asked.args[name].isoformat() for name in ("from", "to"))
    return _added(asked.view, first, last, _OF_UPCOMING[asked.name], asked.name)


def _coming_on_day(asked: Asked) -> Explained:
    day = asked.row["billing_date"]
    return _added(asked.view, day, day, _OF_UPCOMING[asked.name], asked.name)


def _coming_bill(asked: Asked) -> Explained:
    return _bill(_dated(asked), _COMING_BILL, "amount_cents")


def _days_until(asked: Asked) -> Explained:
    found = _coming_bill(asked)
    return Explained(rows=found.rows, formula="the days from `today` to next_bill_date")


def _dated(asked: Asked) -> Asked:
    return replace(asked, row=asked.row | {"date": asked.row["next_bill_date"]})


_BILL = "date customer_id contract_id invoice_id processor account"
_COMING_BILL = "date customer_id contract_id invoice_id processor causes"
_TOP = "date customer_id amount_cents causes"
_TALLY = ("customers", "payments", "total_cents")

CURRENT_MONTH: dict[str, Explain] = {
    **{
        f"summary/{name}": _in_month
        for name in (*_OF_BILLS, "collected_cents")
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
MONTH_DETAIL: dict[str, Explain] = {
    **CURRENT_MONTH,
    "payments/*/amount_cents": partial(_bill, names=_BILL),
    "payments/*/open_cents": partial(_bill, names=_BILL),
    "payments/*/mrr_cents": _bills_mrr,
}
MONTHLY_TOTALS: dict[str, Explain] = {
    **{
        f"months/*/{name}": _of_months
        for name in (
            *("billed_cents", "collected_cents", "refunded_cents", "disputed_cents", "net_cents"),
            *("open_cents", "uncollectible_cents", "upcoming_cents", "bills", "upcoming_bills", "customers"),
        )
    },
    "cash/*/amount_cents": _cash_row,
}
UPCOMING_BILLS: dict[str, Explain] = {
    **dict.fromkeys(("total_cents", "payments_count", "customers_count"), _coming),
    **{f"days/*/{name}": _coming_on_day for name in ("payment_count", "daily_revenue_cents")},
    "payments/*/amount_cents": _coming_bill,
    "payments/*/days_until_payment": _days_until,
}
