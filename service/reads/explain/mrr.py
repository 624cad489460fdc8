"""The figures of MRR and of its movements: contracts' steps, and customers' movements."""

from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Table, case

from projections.mrr import MOVEMENT_KINDS, Movement, Step
from service.books.tables import ROWS
from service.books.view import View
from service.core.events import join_key
from service.reads.customers import customer as customers_reads
from service.reads.explain.rows import Explainer, Explanation, Figure, RowSource
from service.reads.mrr import Counting, describe_counting

_steps = ROWS[Step]
_movements = ROWS[Movement]


# At the end of `today`


def level(figure: Figure, *conditions: ColumnElement[bool], contribution: str = "mrr_cents") -> Explanation:
    """MRR: the sum of the contracts' steps until `today`."""
    where = [*_until_today(figure.view, _steps), *conditions]
    return Explanation(sources=[RowSource(table=_steps, where=where, contribution=_steps.c[contribution])])


def customers(figure: Figure) -> Explanation:
    """Paying customers: the movements that begin a customer's MRR, less those that end it."""
    contribution = case(
        (_movements.c.kind.in_(("new", "reactivation")), 1), (_movements.c.kind == "churn", -1), else_=0
    )
    return Explanation(
        sources=[
            RowSource(
                table=_movements, where=_until_today(figure.view, _movements), contribution=contribution
            )
        ]
    )


def _until_today(view: View, table: Table, *, currency: bool = True) -> list[ColumnElement[bool]]:
    return [*view.filters(table, "mrr", currency=currency), table.c.date <= view.scope.today.isoformat()]


def _arr(figure: Figure) -> Explanation:
    terms = {"mrr_cents": figure.document["mrr_cents"]}
    return Explanation(sources=level(figure).sources, formula="12 × mrr_cents", terms=terms)


def _arpa(figure: Figure) -> Explanation:
    terms = {name: figure.document[name] for name in ("mrr_cents", "customers")}
    formula = "mrr_cents ÷ customers, rounded half away from zero"
    return Explanation(sources=level(figure).sources, formula=formula, terms=terms)


def _on_schedule(figure: Figure) -> Explanation:
    return level(figure, *_scheduled(figure.row["interval"], figure.row["every"]), contribution=figure.name)


def _scheduled(interval: str, every: int) -> list[ColumnElement[bool]]:
    return [_steps.c.interval == interval, _steps.c.every == every]


def _on_weeks(figure: Figure, every: int) -> Explanation:
    return level(figure, *_scheduled("week", every), contribution="contracts")


def _in_currency(figure: Figure, contribution: str) -> Explanation:
    where = [*_until_today(figure.view, _steps, currency=False), _steps.c.currency == figure.row["currency"]]
    return Explanation(sources=[RowSource(table=_steps, where=where, contribution=_steps.c[contribution])])


MRR: dict[str, Explainer] = {
    "mrr_cents": level,
    "arr_cents": _arr,
    "active_contracts": partial(level, contribution="contracts"),
    "customers": customers,
    "arpa_cents": _arpa,
    "by_schedule/*/mrr_cents": _on_schedule,
    "by_schedule/*/contracts": _on_schedule,
    "weekly_count": partial(_on_weeks, every=1),
    "four_week_count": partial(_on_weeks, every=4),
    "ten_week_count": partial(_on_weeks, every=10),
    "other_currencies/*/mrr_cents": partial(_in_currency, contribution="mrr_cents"),
    "other_currencies/*/active_contracts": partial(_in_currency, contribution="contracts"),
}


# One customer


class CustomerMrr(Counting, frozen=True, kw_only=True):
    """A customer's MRR at the end of a day: no answer of a read, but with figures that can be explained."""

    date: str
    customer_id: str
    processor: str
    account: str
    mrr_cents: int
    arr_cents: int


def customer_mrr(view: View, args: dict[str, Any]) -> CustomerMrr:
    """A customer's MRR at the end of `today`.

    Raises NotFound, or ParameterError where several have this id.
    """
    view = view.with_policy(args["policy"])
    customer = customers_reads.find(view, args["customer_id"], args["processor"])
    mrr_cents = customer.movements[-1].closing_cents if customer.movements else 0
    return CustomerMrr(
        **describe_counting(view),
        date=view.scope.today.isoformat(),
        customer_id=customer.customer_id,
        processor=customer.processor,
        account=customer.account,
        mrr_cents=mrr_cents,
        arr_cents=12 * mrr_cents,
    )


def _steps_of_customer(figure: Figure) -> list[ColumnElement[bool]]:
    """The conditions for the steps of a row's customer, in the view's currency: by their parent key alone."""
    key = join_key(
        *(figure.row[name] for name in ("processor", "account", "customer_id")), figure.view.scope.currency
    )
    return [*figure.view.filters(_steps, "mrr", currency=False), _steps.c.parent_key == key]


def _customer_figure(figure: Figure) -> Explanation:
    where = [*_steps_of_customer(figure), _steps.c.date <= figure.view.scope.today.isoformat()]
    rows = [RowSource(table=_steps, where=where, contribution=_steps.c.mrr_cents)]
    if figure.name == "mrr_cents":
        return Explanation(sources=rows)
    return Explanation(
        sources=rows, formula="12 × mrr_cents", terms={"mrr_cents": figure.document["mrr_cents"]}
    )


CUSTOMER_MRR: dict[str, Explainer] = {"mrr_cents": _customer_figure, "arr_cents": _customer_figure}


# Movements

_CUSTOMER_COUNTS = {
    "new_customers": "new",
    "reactivated_customers": "reactivation",
    "expanded_customers": "expansion",
    "contracted_customers": "contraction",
    "churned_customers": "churn",
}


def _sum_of_kind(figure: Figure, kind: str, contribution: Any = _movements.c.amount_cents) -> Explanation:
    first, last = _bounds(figure)
    where = [*figure.view.filters(_movements, "mrr"), _movements.c.date.between(first, last)]
    contribution = case((_movements.c.kind == kind, contribution), else_=0)
    return Explanation(sources=[RowSource(table=_movements, where=where, contribution=contribution)])


def _opening(figure: Figure) -> Explanation:
    return _sum_of_movements(figure, _movements.c.date < _bounds(figure)[0])


def _closing(figure: Figure) -> Explanation:
    return _sum_of_movements(figure, _movements.c.date <= _bounds(figure)[1])


def _sum_of_movements(figure: Figure, days: ColumnElement[bool]) -> Explanation:
    where = [*figure.view.filters(_movements, "mrr"), days]
    return Explanation(
        sources=[RowSource(table=_movements, where=where, contribution=_movements.c.amount_cents)]
    )


def _bounds(figure: Figure) -> tuple[str, str]:
    """The first and last day of a period ("2025-11" or "2025-11-13"), limited to the range."""
    period = figure.row["period"]
    days = (f"{period}-01", f"{period}-31") if len(period) == 7 else (period, period)
    return max(days[0], figure.args["from"].isoformat()), min(days[1], figure.args["to"].isoformat())


def _sum_of_steps(figure: Figure, days: ColumnElement[bool]) -> Explanation:
    rows = RowSource(table=_steps, where=[*_steps_of_customer(figure), days], contribution=_steps.c.mrr_cents)
    return Explanation(sources=[rows])


def _movement(figure: Figure) -> Explanation:
    return _sum_of_steps(figure, _steps.c.date == figure.row["date"])


def _before(figure: Figure) -> Explanation:
    return _sum_of_steps(figure, _steps.c.date < figure.row["date"])


def _after(figure: Figure) -> Explanation:
    return _sum_of_steps(figure, _steps.c.date <= figure.row["date"])


MOVEMENTS: dict[str, Explainer] = {
    "periods/*/opening_cents": _opening,
    **{f"periods/*/{kind}_cents": partial(_sum_of_kind, kind=kind) for kind in MOVEMENT_KINDS},
    "periods/*/closing_cents": _closing,
    **{
        f"periods/*/{name}": partial(_sum_of_kind, kind=kind, contribution=1)
        for name, kind in _CUSTOMER_COUNTS.items()
    },
    "movements/*/amount_cents": _movement,
    "movements/*/opening_cents": _before,
    "movements/*/closing_cents": _after,
}
