"""The metrics of recurring revenue: movements, what became of the MRR at the beginning, and payments."""

from datetime import date
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import ColumnElement, case, func, literal, select

from projections.mrr import MOVEMENT_KINDS, Movement
from projections.revenue import Failure, Order
from service.books.tables import ROWS
from service.reads.explain.mrr import PAYING, movements_source
from service.reads.explain.rows import (
    ROUNDED,
    Explainer,
    Explanation,
    Figure,
    RowSource,
    by_formula,
)
from service.reads.metrics import PERIODS, cohort_of, customers_with_mrr

_movements = ROWS[Movement]
_orders = ROWS[Order]
_failures = ROWS[Failure]

_AMOUNT = _movements.c.amount_cents
_KINDS_OF_CUSTOMERS = {
    "new_customers": "new",
    "reactivated_customers": "reactivation",
    "churned_customers": "churn",
}


# Movements


def _opening(contribution: ColumnElement[Any]) -> Explainer:
    return _summed(contribution, lambda row: _movements.c.date < row["from"])


def _closing(contribution: ColumnElement[Any]) -> Explainer:
    return _summed(contribution, lambda row: _movements.c.date <= row["to"])


def _moved(contribution: ColumnElement[Any]) -> Explainer:
    return _summed(contribution, lambda row: _movements.c.date.between(row["from"], row["to"]))


def _summed(contribution: ColumnElement[Any], days: Any) -> Explainer:
    """The sum over the movements on the `days` of a period."""
    return lambda figure: Explanation(sources=[movements_source(figure.view, contribution, days(figure.row))])


def _of_kind(kind: str, contribution: Any = _AMOUNT) -> Explainer:
    return _moved(case((_movements.c.kind == kind, contribution), else_=0))


# Churn and retention


def _of_cohort(
    formula: str, contribution: ColumnElement[Any], *terms: str, only_less: bool = False
) -> Explainer:
    """A formula of the customers with MRR when the period begins, and their movements until its end.

    `terms` are fields of their `Cohort`. `only_less`: the movements in the period of those who have less.
    """

    def explain(figure: Figure) -> Explanation:
        row, view = figure.row, figure.view
        days = date.fromisoformat(row["from"]), date.fromisoformat(row["to"])
        customers, cohort = customers_with_mrr(view, *days), asdict(cohort_of(view, *days))
        keys, since = select(customers.c.key), "" if not only_less else row["from"]
        if only_less:
            keys = keys.where(customers.c.closing < customers.c.opening)
        conditions = _movements.c.key.in_(keys), _movements.c.date.between(since, row["to"])
        return Explanation(
            sources=[movements_source(view, contribution, *conditions)],
            formula=formula,
            terms={name: cohort[name] for name in terms},
        )

    return explain


_IS_LAST = func.row_number().over(partition_by=_movements.c.key, order_by=_movements.c.date.desc()) == 1
_LEFT = case((_IS_LAST & (_movements.c.closing_cents == 0), 1), else_=0)
_SIX = "to six digits"


def _lifetime_value(figure: Figure) -> Explanation:
    churned = _of_cohort("", _LEFT, "left", "customers")(figure)
    terms = {name: figure.row[name] for name in ("closing_cents", "closing_customers")}
    return Explanation(
        sources=churned.sources,
        formula=f"closing_cents ÷ closing_customers × months ÷ (left ÷ customers), {ROUNDED}",
        terms=terms | churned.terms | {"months": PERIODS[figure.document["by"]]},
    )


# Payments


def _failed(figure: Figure, contribution: ColumnElement[Any]) -> RowSource:
    return RowSource(
        table=_failures,
        where=[
            *figure.view.filters(_failures, "revenue"),
            _failures.c.date.between(figure.row["from"], figure.row["to"]),
        ],
        contribution=contribution,
    )


def _failed_payments(figure: Figure) -> Explanation:
    return Explanation(sources=[_failed(figure, literal(1))])


def _recovered_payments(figure: Figure) -> Explanation:
    return Explanation(sources=[_failed(figure, case((_failures.c.recovered, 1), else_=0))])


def _payments(figure: Figure) -> Explanation:
    days = _orders.c.date.between(figure.row["from"], figure.row["to"])
    orders = RowSource(
        table=_orders,
        where=[*figure.view.filters(_orders, "revenue"), days],
        contribution=case((_orders.c.paid_first_try, 1), else_=0),
    )
    return Explanation(sources=[orders, _failed(figure, literal(1))])


_MOVES = tuple(f"{kind}_cents" for kind in MOVEMENT_KINDS)

METRICS: dict[str, Explainer] = {
    f"periods/*/{name}": explainer
    for name, explainer in {
        "opening_cents": _opening(_AMOUNT),
        **{f"{kind}_cents": _of_kind(kind) for kind in MOVEMENT_KINDS},
        "closing_cents": _closing(_AMOUNT),
        "opening_customers": _opening(PAYING),
        **{name: _of_kind(kind, 1) for name, kind in _KINDS_OF_CUSTOMERS.items()},
        "closing_customers": _closing(PAYING),
        "arr_cents": by_formula("12 × closing_cents", "closing_cents", of=_closing(_AMOUNT)),
        "arpa_cents": by_formula(
            f"closing_cents ÷ closing_customers, {ROUNDED}",
            *("closing_cents", "closing_customers"),
            of=_closing(_AMOUNT),
        ),
        "customer_churn_rate": _of_cohort(
            f"left ÷ customers, of those with MRR before, {_SIX}", _LEFT, "left", "customers"
        ),
        "gross_mrr_churn_rate": _of_cohort(
            f"lost_cents ÷ opening_cents, of those with MRR before, {_SIX}",
            -_AMOUNT,
            *("lost_cents", "opening_cents"),
            only_less=True,
        ),
        "net_mrr_churn_rate": _of_cohort(
            f"1 − closing_cents ÷ opening_cents, of those with MRR before, {_SIX}",
            _AMOUNT,
            *("closing_cents", "opening_cents"),
        ),
        "net_revenue_retention": _of_cohort(
            f"closing_cents ÷ opening_cents, of those with MRR before, {_SIX}",
            _AMOUNT,
            *("closing_cents", "opening_cents"),
        ),
        "quick_ratio": by_formula(
            f"(new + reactivation + expansion) ÷ −(contraction + churn), in cents, {_SIX}",
            *_MOVES,
            of=_moved(_AMOUNT),
        ),
        "ltv_cents": _lifetime_value,
        "payments": _payments,
        "failed_payments": _failed_payments,
        "recovered_payments": _recovered_payments,
        "failed_payment_rate": by_formula(
            f"failed_payments ÷ payments, {_SIX}", "failed_payments", "payments", of=_failed_payments
        ),
        "recovery_rate": by_formula(
            f"recovered_payments ÷ failed_payments, {_SIX}",
            *("recovered_payments", "failed_payments"),
            of=_recovered_payments,
        ),
    }.items()
}
