"""The predictions for one customer, as the API shows them: each with its basis, or why it is missing."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from datetime import date
from fractions import Fraction
from functools import cache
from operator import neg
from typing import Any

from msgspec import Struct

from service.core.money import round_fraction
from service.predictions.model import (
    LIFETIME_DAYS,
    Curve,
    CurveChoice,
    Estimate,
    Facts,
    Model,
    State,
    choose_curve,
    expected_bills,
    expected_paid_months,
    expected_units,
    state_of,
    survival_probability,
)

STATED = "stated"
KAPLAN_MEIER = "kaplan-meier"


class Basis(Struct, frozen=True, kw_only=True):
    """The method and sample behind a figure; without a figure, the reason why there is none."""

    method: str | None = None
    n: int | None = None
    events: int | None = None
    interval: tuple[float | str | None, float | str | None] | None = None
    reason: str | None = None


class Predictions(Struct, frozen=True, kw_only=True):
    """The fields of the API; `basis` has an entry for each of the four."""

    estimated_ltv_cents: int | None
    next_purchase_probability: float | None
    next_purchase_predicted_date: str | None
    churn_risk_score: float | None
    basis: dict[str, Basis]


class Outlook(Struct, frozen=True, kw_only=True):
    """What is predicted alike for all customers in one state.

    Survival over the horizon; units in 36 months, by the curve `units_choice` as far as it reaches; quartiles
    of the days until the next purchase.
    """

    choice: CurveChoice
    survival: Estimate | None
    units: Estimate | None
    units_choice: CurveChoice
    reach: int
    quartiles: tuple[int | None, int | None, int | None]


def build_outlook(model: Model, state: State) -> Outlook:
    """The estimates that the curves give for a state."""
    choice = choose_curve(model, state, model.horizon_days)
    units, units_choice, reach = expected_units(model, state, LIFETIME_DAYS)
    curve = choice.curve
    return Outlook(
        choice=choice,
        survival=survival_probability(curve, state.age, model.horizon_days) if curve else None,
        units=units,
        units_choice=units_choice,
        reach=reach,
        quartiles=(
            (
                _days_until_event(curve, state.age, 0.25),
                _days_until_event(curve, state.age, 0.5),
                _days_until_event(curve, state.age, 0.75),
            )
            if curve and state.kind == "gap"
            else (None, None, None)
        ),
    )


def predict(facts: Facts, model: Model) -> Predictions:
    """The predictions for one customer; for many customers, see `predictor`."""
    return _predict(facts, model, lambda state: build_outlook(model, state))


def predictor(model: Model) -> Callable[[Facts], Predictions]:
    """`predict` for many customers by one model: the outlook of each state is computed once."""
    outlooks = cache(lambda state: build_outlook(model, state))
    return lambda facts: _predict(facts, model, outlooks)


_Figure = tuple[Any, Basis]


def _predict(facts: Facts, model: Model, outlooks: Callable[[State], Outlook]) -> Predictions:
    state = state_of(facts)
    if state is None:
        nothing = None, Basis(reason="no purchase and no live contract")
        return _predictions(nothing, nothing, nothing, nothing)
    outlook = outlooks(state)
    value = _lifetime_value(facts, state, outlook)
    if state.kind == "tenure":
        chance, day = _next_bill(facts, model, state)
        return _predictions(value, chance, day, _churn_risk(facts, model, outlook))
    chance, risk = _purchase_and_churn(outlook)
    return _predictions(value, chance, _purchase_date(facts, outlook), risk)


def _predictions(value: _Figure, chance: _Figure, day: _Figure, risk: _Figure) -> Predictions:
    return Predictions(
        estimated_ltv_cents=value[0],
        next_purchase_probability=chance[0],
        next_purchase_predicted_date=day[0],
        churn_risk_score=risk[0],
        basis={
            "estimated_ltv_cents": value[1],
            "next_purchase_probability": chance[1],
            "next_purchase_predicted_date": day[1],
            "churn_risk_score": risk[1],
        },
    )


def _lifetime_value(facts: Facts, state: State, outlook: Outlook) -> _Figure:
    """Net revenue so far and what the next 36 months are expected to bring."""
    if state.kind == "tenure" and not (facts.bills or facts.undated_mrr_cents):
        end = facts.ends_date and f"set to end on {facts.ends_date}, before another bill"
        return facts.revenue_cents, Basis(method=STATED, reason=end or "no bill within the next 36 months")
    choice, curve, reach = outlook.units_choice, outlook.units_choice.curve, outlook.reach
    if outlook.units is None or curve is None:
        return None, Basis(reason=choice.reason)
    if state.kind == "gap":
        revenue, until, accrual = (
            _multiply(outlook.units, facts.average_order_cents),
            LIFETIME_DAYS,
            None,
        )
    else:
        revenue, until, accrual = _contract_revenue(facts, curve, state.age, reach)
    limit = f"counts {reach} of the next {LIFETIME_DAYS} days: no history that long"
    reason = "; ".join(filter(None, (choice.reason, accrual, limit if reach < until else None))) or None
    interval = None
    if revenue.low is not None and revenue.high is not None:
        interval = facts.revenue_cents + _cents(revenue.low), facts.revenue_cents + _cents(revenue.high)
    return facts.revenue_cents + _cents(revenue.value), _basis(curve, interval, reason)


def _contract_revenue(facts: Facts, curve: Curve, age: int, reach: int) -> tuple[Estimate, int, str | None]:
    """The revenue of live contracts in `reach` days; the last day ahead that has any; a note on undated ones.

    The MRR of a contract without a dated bill accrues evenly, until its stated end.
    """
    dated_bills = [(day - facts.today, cents) for day, cents in facts.bills]
    revenue = expected_bills(curve, age, [bill for bill in dated_bills if bill[0] <= reach])
    last_day = max((day for day, _ in dated_bills), default=0)
    if not facts.undated_mrr_cents:
        return revenue, last_day, None
    days = LIFETIME_DAYS if facts.ends_date is None else _ordinal(facts.ends_date) - facts.today
    days = min(max(days, 0), LIFETIME_DAYS)
    accrued = _multiply(expected_paid_months(curve, age, min(days, reach)), facts.undated_mrr_cents)
    return _add(revenue, accrued), max(days, last_day), "no next bill is dated: MRR accrues evenly"


def _churn_risk(facts: Facts, model: Model, outlook: Outlook) -> _Figure:
    """The risk that a live contract ends within the horizon."""
    if facts.ends_date is not None and _ordinal(facts.ends_date) - facts.today <= model.horizon_days:
        return 1.0, Basis(method=STATED, reason=f"set to end on {facts.ends_date}")
    return _probability(outlook.choice, outlook.survival and _complement(outlook.survival))


def _next_bill(facts: Facts, model: Model, state: State) -> tuple[_Figure, _Figure]:
    """The probability that a live contract reaches its next bill, and the stated date of that bill."""
    first = facts.bills[0][0] if facts.bills else None
    is_last = facts.ends_date is not None and not facts.undated_mrr_cents
    if is_last and (first is None or first >= _ordinal(str(facts.ends_date))):
        reason = f"set to end on {facts.ends_date}"
        return (0.0, Basis(method=STATED, reason=reason)), (None, Basis(reason=reason))
    if first is None or facts.overdue_date is not None:
        overdue = facts.overdue_date and f"the bill of {facts.overdue_date} is overdue"
        nothing = None, Basis(reason=overdue or "the contract has no next bill")
        return nothing, nothing
    days_ahead = first - facts.today
    choice = choose_curve(model, state, days_ahead)
    chance = _probability(
        choice, survival_probability(choice.curve, state.age, days_ahead) if choice.curve else None
    )
    return chance, (date.fromordinal(first).isoformat(), Basis(method=STATED))


def _purchase_and_churn(outlook: Outlook) -> tuple[_Figure, _Figure]:
    """The probability of a purchase within the horizon, and that of none."""
    return (
        _probability(outlook.choice, outlook.survival and _complement(outlook.survival)),
        _probability(outlook.choice, outlook.survival),
    )


def _purchase_date(facts: Facts, outlook: Outlook) -> _Figure:
    """The first day by which buying is at least as likely as not, between the quartiles."""
    curve = outlook.choice.curve
    if curve is None:
        return None, Basis(reason=outlook.choice.reason)
    early, middle, late = (
        None if days_ahead is None else date.fromordinal(facts.today + days_ahead).isoformat()
        for days_ahead in outlook.quartiles
    )
    if middle is None:
        reason = f"another purchase is less likely than not within the {curve.end} days that are known"
        return None, Basis(n=curve.n, events=curve.events, reason=reason)
    return middle, _basis(curve, (early, late), outlook.choice.reason)


def _days_until_event(curve: Curve, age: int, chance: float) -> int | None:
    """The fewest days after which the event has come with this probability; None if it never has."""
    start = bisect_right(curve.days, age)
    target = (curve.survival[start - 1] if start else 1.0) * (1 - chance) + 1e-12
    index = bisect_left(curve.survival, -target, lo=start, key=neg)
    return curve.days[index] - age if index < len(curve.days) else None


def _probability(choice: CurveChoice, estimate: Estimate | None) -> _Figure:
    if estimate is None or choice.curve is None:
        return None, Basis(reason=choice.reason)
    interval = None
    if estimate.low is not None and estimate.high is not None:
        interval = round(estimate.low, 4), round(estimate.high, 4)
    return round(estimate.value, 4), _basis(choice.curve, interval, choice.reason)


def _basis(curve: Curve, interval: tuple[Any, Any] | None, reason: str | None) -> Basis:
    return Basis(method=KAPLAN_MEIER, n=curve.n, events=curve.events, interval=interval, reason=reason)


def _complement(chance: Estimate) -> Estimate:
    if chance.low is None or chance.high is None:
        return Estimate(1 - chance.value)
    return Estimate(1 - chance.value, 1 - chance.high, 1 - chance.low)


def _multiply(units: Estimate, price: int) -> Estimate:
    """Units to money; a negative price (more refunded than paid) swaps the bounds."""
    if units.low is None or units.high is None:
        return Estimate(units.value * price)
    low, high = sorted((units.low * price, units.high * price))
    return Estimate(units.value * price, low, high)


def _add(first: Estimate, second: Estimate) -> Estimate:
    """The sum of two estimates by one curve: their bounds add up."""
    if first.low is None and second.low is None:
        return Estimate(first.value + second.value)
    low, high = (
        sum(
            getattr(estimate, name) if estimate.low is not None else estimate.value
            for estimate in (first, second)
        )
        for name in ("low", "high")
    )
    return Estimate(first.value + second.value, low, high)


def _cents(money: float) -> int:
    return round_fraction(Fraction(money))


def _ordinal(day: str) -> int:
    return date.fromisoformat(day).toordinal()
