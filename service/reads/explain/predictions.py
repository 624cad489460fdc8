"""What is expected of a customer: estimates, with the rows that they start from, which are no sums."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from msgspec.structs import replace
from sqlalchemy import literal

from projections.bills import Contract
from projections.mrr import Movement
from projections.revenue import Order
from service.books.tables import ROWS
from service.core.events import join_key
from service.reads.customers.customer import dated_bills
from service.reads.explain.customers import (
    AMOUNT,
    count_orders,
    is_customers,
    net_revenue,
    on_last_day,
    orders_source,
)
from service.reads.explain.rows import (
    ROUNDED,
    Explainer,
    Explanation,
    Figure,
    RowSource,
    by_formula,
)
from service.reads.months import month_bounds
from service.reads.parameters import months_back

_contracts = ROWS[Contract]
_movements = ROWS[Movement]
_orders = ROWS[Order]

_LEARNT = "what was learnt of all customers is applied to this one"


# The rows of a customer


def _contracts_source(figure: Figure, contribution: Any) -> RowSource:
    where = [*figure.view.filters(_contracts, "bills"), *is_customers(figure, _contracts)]
    return RowSource(table=_contracts, where=where, contribution=contribution)


def contracts_of_customer(figure: Figure) -> Explanation:
    """Every contract of the customer counts 1."""
    return Explanation(sources=[_contracts_source(figure, literal(1))])


def _movements_source(figure: Figure) -> RowSource:
    customer, view = figure.holder("customer_id"), figure.view
    identity = (customer[name] for name in ("processor", "account", "customer_id"))
    key = join_key(*identity, view.scope.currency)
    conditions = _movements.c.key == key, _movements.c.date <= view.scope.today.isoformat()
    where = [*view.filters(_movements, "mrr", currency=False), *conditions]
    return RowSource(table=_movements, where=where, contribution=literal(1))


def _history(figure: Figure) -> Explanation:
    """The orders, the movements of MRR and the contracts of the customer, each counting 1."""
    return Explanation(
        sources=[
            *count_orders(figure).sources,
            _movements_source(figure),
            *contracts_of_customer(figure).sources,
        ]
    )


# Predictions


def _estimate(formula: str, *terms: str, of: Explainer = _history) -> Explainer:
    return by_formula(formula, *terms, of=of, is_estimate=True)


_CHANCE = f"the probability after a history like these rows: {_LEARNT}"
churn_risk = _estimate(_CHANCE)

_PREDICTIONS: dict[str, Explainer] = {
    "estimated_ltv_cents": _estimate(
        f"net revenue so far, which is the sum, and what the next 36 months are expected to bring: {_LEARNT}",
        of=net_revenue,
    ),
    "next_purchase_probability": churn_risk,
    "next_purchase_predicted_date": _estimate(
        "the stated next bill of a live contract, else the median day after a history like these rows: "
        f"{_LEARNT}"
    ),
    "churn_risk_score": churn_risk,
}
PREDICTIONS: dict[str, Explainer] = {
    f"predictions/{place}": explainer
    for name, explainer in _PREDICTIONS.items()
    for place in (name, f"basis/{name}/interval/*")
}

OPPORTUNITIES: dict[str, Explainer] = {
    f"{kind}/*/because/{name}": explainer
    for kind in ("opportunities", "actions")
    for name, explainer in {
        "orders": count_orders,
        "days_quiet": by_formula("the days from the last order to `today`", of=on_last_day),
        "churn_risk": churn_risk,
    }.items()
}


# Forecasts


def _bills(figure: Figure, months: Sequence[str]) -> Explanation:
    """What each contract bills in these months by its schedules."""
    (first, _), (_, last) = (month_bounds(*map(int, months[place].split("-"))) for place in (0, -1))
    source = _contracts_source(figure, lambda row: sum(cents for _, cents in dated_bills([row], first, last)))
    return Explanation(sources=[source])


def _amounts(figure: Figure) -> Explanation:
    return Explanation(sources=[orders_source(figure, AMOUNT)])


def _in_full_months(figure: Figure, contribution: Any) -> Explanation:
    """The orders of the full months by which `frequency` goes."""
    today, months = figure.view.scope.today, figure.document["factors"]["frequency"]["months"]
    start, end = months_back(today, months), months_back(today, 0) - timedelta(days=1)
    days = _orders.c.date.between(start.isoformat(), end.isoformat())
    return Explanation(sources=[orders_source(figure, contribution, days)])


def _expected(figure: Figure, months: Sequence[str]) -> Explanation:
    """An amount that is expected in some months: of bills, or of orders like those before."""
    if figure.name in ("contract_cents", "other_cents") and figure.value == 0:
        return Explanation(sources=[_contracts_source(figure, literal(0))], counting=_NOTHING)
    if (figure.document["method"] or "").startswith("scheduled"):
        rows, formula = _bills(figure, months), _BY_BILLS
    else:
        rows, formula = _amounts(figure), _BY_ORDERS
    if figure.name in ("low_cents", "high_cents"):
        formula = f"a bound of the 80 % interval around expected_cents: {formula}"
    return replace(rows, formula=formula, terms=_chances(figure, months), is_estimate=True)


def _chances(figure: Figure, months: Sequence[str]) -> dict[str, Any]:
    """The probability by the end of the last of these months, where it is known."""
    place = [row["month"] for row in figure.document["monthly"]].index(months[-1])
    chances = figure.document["factors"]["survival"]["by_month"]
    return {"probability": chances[place]} if chances else {}


def _in_month(figure: Figure) -> Explanation:
    return _expected(figure, [figure.row["month"]])


def _in_year(figure: Figure) -> Explanation:
    return _expected(figure, [row["month"] for row in figure.document["monthly"][:_YEAR]])


_YEAR = 12
_NOTHING = "nothing is expected of this kind: contracts with dated bills bill them, all others order"
_BY_BILLS = "the bills of these contracts, each times the probability that there is a contract on its day"
_BY_ORDERS = "the level, trend and season of these orders, times the probability of not having gone for good"
_EXPECTED = ("expected_cents", "low_cents", "high_cents")
_one_each = partial(_in_full_months, contribution=literal(1))

FORECAST: dict[str, Explainer] = {
    "confidence_score": _estimate(
        "expected ÷ (expected + half the interval) × months of history ÷ (months of history + 6), "
        "the history being these rows"
    ),
    **{f"monthly/*/{name}": _in_month for name in (*_EXPECTED, "contract_cents", "other_cents")},
    **{f"annual/{name}": _in_year for name in _EXPECTED},
    "factors/frequency/orders_per_month": by_formula(
        "the sum ÷ months, to four digits", "months", of=_one_each
    ),
    "factors/frequency/avg_order_value_cents": by_formula(
        f"the sum ÷ count, {ROUNDED}", of=partial(_in_full_months, contribution=AMOUNT)
    ),
    "factors/frequency/months": by_formula(
        "the full months since the first order, at most the last twelve", of=_one_each
    ),
    "factors/trend/cents_per_month": _estimate("the slope through the months of these orders", of=_amounts),
    "factors/seasonality/indices/*": _estimate(
        "the calendar month's part of the full years of these orders, 1 on average", of=_amounts
    ),
    "factors/survival/by_month/*": churn_risk,
}
