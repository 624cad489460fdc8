"""The figures of MRR and of its movements: contracts' steps, and customers' movements."""

from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, case, func, select

from projections.mrr import MOVEMENT_KINDS, Movement, Step
from service.books.tables import ROWS
from service.books.view import View
from service.core.events import join_key
from service.reads.customers.customer import find_account
from service.reads.explain.rows import ROUNDED, Explainer, Explanation, Figure, RowSource, by_formula
from service.reads.mrr import Counting, describe_counting

_steps = ROWS[Step]
_movements = ROWS[Movement]

# What a movement adds to the number of paying customers.
PAYING = case(
    (_movements.c.kind.in_(("new", "reactivation")), 1), (_movements.c.kind == "churn", -1), else_=0
)

# At the end of `today`


def level(figure: Figure, *conditions: ColumnElement[bool], contribution: str = "mrr_cents") -> Explanation:
    """MRR: the sum of the contracts' steps until `today`."""
    where = [*_steps_until_today(figure.view), *conditions]
    return Explanation(sources=[RowSource(table=_steps, where=where, contribution=_steps.c[contribution])])


def customers(figure: Figure) -> Explanation:
    """Paying customers: the movements that begin a customer's MRR, less those that end it."""
    until_today = _movements.c.date <= figure.view.scope.today.isoformat()
    return Explanation(sources=[movements_source(figure.view, PAYING, until_today)])


def _steps_until_today(view: View, *, currency: bool = True) -> list[ColumnElement[bool]]:
    return [*view.filters(_steps, "mrr", currency=currency), _steps.c.date <= view.scope.today.isoformat()]


def _on_schedule(figure: Figure) -> Explanation:
    return level(figure, *_scheduled(figure.row["interval"], figure.row["every"]), contribution=figure.name)


def _scheduled(interval: str, every: int) -> list[ColumnElement[bool]]:
    return [_steps.c.interval == interval, _steps.c.every == every]


def _on_weeks(figure: Figure, every: int) -> Explanation:
    return level(figure, *_scheduled("week", every), contribution="contracts")


def _in_currency(figure: Figure, contribution: str) -> Explanation:
    where = [*_steps_until_today(figure.view, currency=False), _steps.c.currency == figure.row["currency"]]
    return Explanation(sources=[RowSource(table=_steps, where=where, contribution=_steps.c[contribution])])


MRR: dict[str, Explainer] = {
    "mrr_cents": level,
    "arr_cents": by_formula("12 × mrr_cents", "mrr_cents", of=level),
    "active_contracts": partial(level, contribution="contracts"),
    "customers": customers,
    "arpa_cents": by_formula(f"mrr_cents ÷ customers, {ROUNDED}", "mrr_cents", "customers", of=level),
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
    customer_id = args["customer_id"]
    processor, account = find_account(view, customer_id, args["processor"])
    today, key = view.scope.today.isoformat(), join_key(processor, account, customer_id, view.scope.currency)
    mrr_cents = view.one(
        select(func.coalesce(func.sum(_movements.c.amount_cents), 0)).where(
            *view.filters(_movements, "mrr", currency=False),
            _movements.c.key == key,
            _movements.c.date <= today,
        )
    )[0]
    return CustomerMrr(
        **describe_counting(view),
        date=today,
        customer_id=customer_id,
        processor=processor,
        account=account,
        mrr_cents=int(mrr_cents),
        arr_cents=12 * int(mrr_cents),
    )


def _steps_of_customer(figure: Figure) -> list[ColumnElement[bool]]:
    """The conditions for the steps of a row's customer, in the view's currency: by their parent key alone."""
    customer = figure.holder("customer_id")
    key = join_key(
        *(customer[name] for name in ("processor", "account", "customer_id")), figure.view.scope.currency
    )
    return [*figure.view.filters(_steps, "mrr", currency=False), _steps.c.parent_key == key]


def customer_level(figure: Figure, *conditions: ColumnElement[bool]) -> Explanation:
    """A customer's MRR: the sum of the steps until `today`."""
    where = [*_steps_of_customer(figure), _steps.c.date <= figure.view.scope.today.isoformat(), *conditions]
    return Explanation(sources=[RowSource(table=_steps, where=where, contribution=_steps.c.mrr_cents)])


def contract_level(figure: Figure) -> Explanation:
    """The MRR of a contract of a customer."""
    return customer_level(figure, _steps.c.contract_id == figure.term("contract_id"))


CUSTOMER_MRR: dict[str, Explainer] = {
    "mrr_cents": customer_level,
    "arr_cents": by_formula("12 × mrr_cents", "mrr_cents", of=customer_level),
}


# Movements

_CUSTOMER_COUNTS = {
    "new_customers": "new",
    "reactivated_customers": "reactivation",
    "expanded_customers": "expansion",
    "contracted_customers": "contraction",
    "churned_customers": "churn",
}


def movements_source(view: View, contribution: Any, *conditions: ColumnElement[bool]) -> RowSource:
    """The customers' movements that meet the conditions."""
    where = [*view.filters(_movements, "mrr"), *conditions]
    return RowSource(table=_movements, where=where, contribution=contribution)


def _sum_of_kind(figure: Figure, kind: str, contribution: Any = _movements.c.amount_cents) -> Explanation:
    in_period = _movements.c.date.between(*_bounds(figure))
    contribution = case((_movements.c.kind == kind, contribution), else_=0)
    return Explanation(sources=[movements_source(figure.view, contribution, in_period)])


def _opening(figure: Figure) -> Explanation:
    return _sum_of_movements(figure, _movements.c.date < _bounds(figure)[0])


def _closing(figure: Figure) -> Explanation:
    return _sum_of_movements(figure, _movements.c.date <= _bounds(figure)[1])


def _sum_of_movements(figure: Figure, days: ColumnElement[bool]) -> Explanation:
    return Explanation(sources=[movements_source(figure.view, _movements.c.amount_cents, days)])


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
