"""The figures of months and of upcoming bills: bills by bill date, cash by the day it moved."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace
from sqlalchemy import ColumnElement, and_, case, false, func, or_, select, union

from projections.bills import UPCOMING_STATUSES, Contract
from projections.collections import CASH_KINDS, Cash
from projections.contracts import ContractStates
from projections.mrr import Step
from service.books.overdue import is_overdue
from service.books.tables import ROWS
from service.books.view import View, customer_key
from service.core.events import join_key
from service.reads.bill_rows import BILLS, is_shown
from service.reads.coming import (
    MonthForecast,
    contracts_that_bill_again,
    forecast_month,
    rolled_schedules,
)
from service.reads.explain import mrr
from service.reads.explain.rows import (
    Explainer,
    Explanation,
    Figure,
    RowSource,
    by_formula,
    matches_row,
)
from service.reads.months import month_bounds

_contracts = ROWS[Contract]
_cash = ROWS[Cash]
_states = ROWS[ContractStates]
_steps = ROWS[Step]

_DISTINCT = "distinct customers: one row of each"
_LISTED = BILLS.c.status != "uncollectible"  # uncollectible bills are listed, but not in totals
_ISSUED = BILLS.c.status.not_in(("uncollectible", "upcoming", "draft"))


def _if(condition: ColumnElement[bool], cents: Any = 1) -> ColumnElement[Any]:
    return case((condition, cents), else_=0)


def _first_of(
    group: Sequence[Any], among: ColumnElement[bool], first: Any, contribution: Any
) -> ColumnElement[Any]:
    """The contribution of the first row of each group, among the rows that meet a condition."""
    order = (first, BILLS.c.date, BILLS.c.key, BILLS.c.invoice_id.nulls_first())
    number = func.row_number().over(partition_by=(_if(among), *group), order_by=order)
    return _if(among & (number == 1), contribution)


def _customers(among: ColumnElement[bool]) -> ColumnElement[Any]:
    return _first_of((customer_key(BILLS),), among, BILLS.c.date, 1)


# The contribution of a bill to each figure; on the day of the read, stated bills before it are overdue.
_amount = BILLS.c.amount_cents
_Contributions = dict[str, ColumnElement[Any]]


def bill_contributions(today: str) -> _Contributions:
    """What a bill adds to each figure of a month, by the figure's name."""
    counted = _LISTED & is_shown(today)
    is_upcoming = BILLS.c.status.in_(UPCOMING_STATUSES) & is_shown(today) & ~is_overdue(today)
    return {
        "total_cents": _if(counted, _amount),
        "schedule_total_cents": _if(counted, _amount),
        "later_cents": _if(false()),
        "billed_cents": _if(_ISSUED, _amount),
        "upcoming_cents": _if(is_upcoming, _amount),
        "overdue_cents": _if(is_overdue(today), _amount),
        "open_cents": _if(_LISTED, BILLS.c.open_cents),
        "payments": _if(counted),
        "customers": _customers(counted),
    }


_MONTH_CONTRIBUTIONS: _Contributions = {
    "billed_cents": _if(_ISSUED, _amount),
    "open_cents": _if(_LISTED, BILLS.c.open_cents),
    "uncollectible_cents": _if(~_LISTED, BILLS.c.uncollectible_cents),
    "bills": _if(_ISSUED),
    "customers": _customers(_ISSUED),
}


def _upcoming_contributions(today: str) -> _Contributions:
    stated = BILLS.c.status.in_(UPCOMING_STATUSES) & is_shown(today)
    cents, count = _if(stated, _amount), _if(stated)
    return {
        "total_cents": cents,
        "daily_revenue_cents": cents,
        "payments_count": count,
        "payment_count": count,
        "customers_count": _customers(stated),
    }


# The contribution of a cash row to each figure.
_CASH_CONTRIBUTIONS: dict[str, ColumnElement[Any]] = {
    **{f"{kind}_cents": _if(_cash.c.kind == kind, _cash.c.amount_cents) for kind in CASH_KINDS},
    "net_cents": case((_cash.c.kind == "collected", _cash.c.amount_cents), else_=-_cash.c.amount_cents),
}


def _bills_between(view: View, first: str, last: str) -> list[ColumnElement[bool]]:
    return [*view.filters(BILLS, "bills"), BILLS.c.date.between(first, last)]


def sum_of_bills(
    view: View, first: str, last: str, contribution: ColumnElement[Any], name: str
) -> Explanation:
    """The bills between two days; `name` is the figure's, since customers count once."""
    rows = RowSource(table=BILLS, where=_bills_between(view, first, last), contribution=contribution)
    return Explanation(sources=[rows], counting=_DISTINCT if name.startswith("customers") else None)


def contracts_source(view: View, first: str, last: str, contributions: dict[str, int]) -> RowSource:
    """The contracts with these contributions by key, which they make between two days by rolling on."""
    return RowSource(
        table=_contracts,
        where=contracts_that_bill_again(view, first, last),
        contribution=lambda row: contributions.get(row.parent_key, 0),
    )


def _sum_of_cash(view: View, first: str, last: str, name: str) -> Explanation:
    where = [*view.filters(_cash, "collections"), _cash.c.date.between(first, last)]
    return Explanation(sources=[RowSource(table=_cash, where=where, contribution=_CASH_CONTRIBUTIONS[name])])


# A month


def _today(view: View) -> str:
    return view.scope.today.isoformat()


def _bounds(figure: Figure) -> tuple[str, str]:
    return month_bounds(figure.document["year"], figure.document["month"])


def _in_month(figure: Figure) -> Explanation:
    if figure.name in _CASH_CONTRIBUTIONS:
        return _sum_of_cash(figure.view, *_bounds(figure), figure.name)
    return _in_range(figure, *_bounds(figure))


def _in_week(figure: Figure) -> Explanation:
    return _in_range(figure, figure.row["from"], figure.row["to"])


def _on_day(figure: Figure) -> Explanation:
    return _in_range(figure, figure.row["date"], figure.row["date"])


def _in_range(figure: Figure, first: str, last: str) -> Explanation:
    """The bills of a part of the month, and the contracts that rolling on adds to it."""
    view, name = figure.view, figure.name
    contribution = bill_contributions(_today(view))[name]
    explanation = sum_of_bills(view, first, last, contribution, name)
    forecast = forecast_month(view, *_bounds(figure))
    added = _forecast_contributions(view, forecast, first, last, name)
    source = contracts_source(view, *_bounds(figure), added)
    return replace(explanation, sources=[*explanation.sources, *([source] if added else [])])


def _forecast_contributions(
    view: View, forecast: MonthForecast, first: str, last: str, name: str
) -> dict[str, int]:
    """What each contract adds to a figure between two days of a month, by its key."""
    bills = [bill for bill in forecast.bills if first <= bill.date <= last]
    if name == "customers":
        return new_customers(view, [bill.contract for bill in bills], first, last)
    contributions: dict[str, int] = {}
    for bill in bills:
        amounts = {
            "payments": 1,
            "total_cents": bill.amount_cents,
            "upcoming_cents": bill.amount_cents,
            "later_cents": bill.later_cents,
            "schedule_total_cents": bill.amount_cents + bill.later_cents,
        }
        key = bill.contract.parent_key
        contributions[key] = contributions.get(key, 0) + amounts.get(name, 0)
    for each in forecast.later if name in ("later_cents", "schedule_total_cents") else ():
        if first <= each.schedule.next_bill_date <= last:
            key = each.contract.parent_key
            contributions[key] = contributions.get(key, 0) + each.cents
    return contributions


def new_customers(view: View, contracts: Iterable[Any], first: str, last: str) -> dict[str, int]:
    """One contract of each customer who has no other bill between two days, by its key."""
    query = select(customer_key(BILLS)).where(
        *_bills_between(view, first, last), _LISTED, is_shown(_today(view))
    )
    seen = {row[0] for row in view.all(query.distinct())}
    contributions: dict[str, int] = {}
    for contract in contracts:
        if contract.customer not in seen:
            seen.add(contract.customer)
            contributions[contract.parent_key] = 1
    return contributions


def _mrr_billed(figure: Figure) -> Explanation:
    """The steps of each contract that bills, until the bill on whose day its MRR is the highest."""
    view, (first, last) = figure.view, _bounds(figure)
    counted = [*_bills_between(view, first, last), _LISTED, is_shown(_today(view))]
    query = select(BILLS.c.key, BILLS.c.date, BILLS.c.mrr_cents).where(*counted)
    bills = [(row.key, row.date, row.mrr_cents) for row in view.all(query)]
    forecast = forecast_month(view, first, last).bills
    bills += [(bill.contract.parent_key, bill.date, bill.mrr_cents) for bill in forecast]
    days = {key: day for key, day, _ in sorted(bills, key=lambda bill: bill[2])}
    contracts = union(
        select(BILLS.c.key).where(*counted),
        select(_contracts.c.parent_key).where(*contracts_that_bill_again(view, first, last)),
    )
    customers = select(_states.c.parent_key).where(
        _states.c.book == view.books["bills"], _states.c.key.in_(contracts)
    )
    rows = RowSource(
        table=_steps,
        where=[*view.filters(_steps, "mrr", currency=False), _steps.c.key.in_(customers)],
        contribution=lambda row: row.mrr_cents if row.date <= days.get(_contract_key(row), "") else 0,
    )
    return Explanation(
        sources=[rows], counting="the contracts' MRR on the day of their bill, each contract once"
    )


def _contract_key(step: Any) -> str:
    """The key of a step's contract, which its bills have."""
    return join_key("subscription", step.parent_key.partition("|")[0], step.account, step.contract_id)


def _bill(figure: Figure, names: str, contribution: str | None = None) -> Explanation:
    """One bill, selected by the named columns; a forecast one by its contract."""
    if figure.row.get("status") == "forecast":
        return Explanation(sources=[_forecast_contract(figure, contribution or figure.name)])
    where = [*figure.view.filters(BILLS, "bills"), *matches_row(BILLS, figure.row, names)]
    return Explanation(
        sources=[RowSource(table=BILLS, where=where, contribution=BILLS.c[contribution or figure.name])]
    )


def _forecast_contract(figure: Figure, name: str) -> RowSource:
    """The contract of a forecast bill, which contributes its amount; nothing of that is open yet."""
    names = "customer_id contract_id processor causes"
    where = [*figure.view.filters(_contracts, "bills"), *matches_row(_contracts, figure.row, names)]
    return RowSource(table=_contracts, where=where, contribution=lambda _: int(figure.row[name]))


def _bills_mrr(figure: Figure) -> Explanation:
    """The steps of a bill's contract until its day."""
    row = figure.row
    customer_key = join_key(*(str(row[name]) for name in ("processor", "account", "customer_id")))
    steps = [*figure.view.filters(_steps, "mrr", currency=False), _steps.c.date <= row["date"]]
    steps += [_steps.c.key == customer_key, _steps.c.contract_id == row["contract_id"]]
    return Explanation(sources=[RowSource(table=_steps, where=steps, contribution=_steps.c.mrr_cents)])


def _largest_bill(figure: Figure) -> Explanation:
    """One of the largest bills: a stored one or, where there is none like it, a forecast one's contract."""
    stored = _bill(figure, _TOP)
    where = stored.sources[0].where
    if figure.view.one(select(func.count()).select_from(BILLS).where(*where))[0]:
        return stored
    names = "customer_id causes"
    contracts = [*figure.view.filters(_contracts, "bills"), *matches_row(_contracts, figure.row, names)]
    cents = int(figure.row["amount_cents"])
    return Explanation(sources=[RowSource(table=_contracts, where=contracts, contribution=lambda _: cents)])


def _top_share(figure: Figure) -> Explanation:
    largest = [and_(*matches_row(BILLS, row, _TOP)) for row in figure.document["top"]]
    where = [*_bills_between(figure.view, *_bounds(figure)), or_(false(), *largest)]
    stored = {
        (row.date, row.customer_id, row.amount_cents, row.causes)
        for row in figure.view.all(select(BILLS).where(*where))
    }
    forecast: dict[str, int] = {}
    for bill in forecast_month(figure.view, *_bounds(figure)).bills:
        row = {"date": bill.date, "customer_id": bill.contract.customer_id, "amount_cents": bill.amount_cents}
        is_largest = any(row.items() <= listed.items() for listed in figure.document["top"])
        if is_largest and (*row.values(), bill.contract.causes) not in stored:
            key = bill.contract.parent_key
            forecast[key] = forecast.get(key, 0) + bill.amount_cents
    sources = [RowSource(table=BILLS, where=where, contribution=_amount)]
    sources += [contracts_source(figure.view, *_bounds(figure), forecast)] if forecast else []
    return Explanation(
        sources=sources,
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
    return sum_of_bills(figure.view, first, last, _MONTH_CONTRIBUTIONS[figure.name], figure.name)


def _cash_row(figure: Figure) -> Explanation:
    names = "date customer_id kind source_id amount_cents processor account causes"
    where = [*figure.view.filters(_cash, "collections"), *matches_row(_cash, figure.row, names)]
    return Explanation(sources=[RowSource(table=_cash, where=where, contribution=_cash.c.amount_cents)])


# Upcoming


def _upcoming(figure: Figure) -> Explanation:
    first, last = (figure.args[name].isoformat() for name in ("from", "to"))
    if figure.name.startswith("forecast_"):
        return _rolled(figure, first, last)
    return _stated_between(figure, first, last)


def _rolled(figure: Figure, first: str, last: str) -> Explanation:
    """The contracts whose schedules bill after their next bill."""
    contributions: dict[str, int] = {}
    for each in rolled_schedules(figure.view, first, last):
        key, added = (
            each.contract.parent_key,
            each.cents if figure.name == "forecast_cents" else each.counts.bills,
        )
        contributions[key] = contributions.get(key, 0) + added
    return Explanation(sources=[contracts_source(figure.view, first, last, contributions)])


def _upcoming_on_day(figure: Figure) -> Explanation:
    return _stated_between(figure, figure.row["billing_date"], figure.row["billing_date"])


def _stated_between(figure: Figure, first: str, last: str) -> Explanation:
    return sum_of_bills(
        figure.view, first, last, _upcoming_contributions(_today(figure.view))[figure.name], figure.name
    )


def _upcoming_bill(figure: Figure) -> Explanation:
    return _bill(_dated(figure), _UPCOMING_BILL, "amount_cents")


def _dated(figure: Figure) -> Figure:
    row = figure.row | {"date": figure.row["next_bill_date"]}
    return replace(figure, holders=[*figure.holders[:-1], row])


_BILL = "date customer_id contract_id invoice_id processor account interval every"
_UPCOMING_BILL = "date customer_id contract_id invoice_id processor causes interval every"
_TOP = "date customer_id amount_cents causes"
_TALLY = ("customers", "payments", "total_cents")

CURRENT_MONTH: dict[str, Explainer] = {
    **{f"summary/{name}": _in_month for name in (*bill_contributions(""), "collected_cents")},
    "summary/mrr_cents": _mrr_billed,
    "summary/book_customers": mrr.customers,
    "summary/book_mrr_cents": mrr.level,
    **{f"weeks/*/{name}": _in_week for name in _TALLY},
    **{f"days/*/{name}": _on_day for name in _TALLY},
    "top/*/amount_cents": _largest_bill,
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
            *("open_cents", "uncollectible_cents", "bills", "customers"),
        )
    },
    "cash/*/amount_cents": _cash_row,
}
UPCOMING_BILLS: dict[str, Explainer] = {
    **dict.fromkeys(
        ("total_cents", "payments_count", "customers_count", "forecast_cents", "forecast_count"), _upcoming
    ),
    **{f"days/*/{name}": _upcoming_on_day for name in ("payment_count", "daily_revenue_cents")},
    "payments/*/amount_cents": _upcoming_bill,
    "payments/*/days_until_payment": by_formula(
        "the days from `today` to the bill's date", of=_upcoming_bill
    ),
}
