"""What is told of one customer: the API's figures, each with where it comes from or why it is missing."""

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
    Estimate,
    Facts,
    Model,
    Source,
    State,
    billed,
    expected_units,
    paid_months,
    source,
    state,
    survival,
)

STATED = "stated"
KAPLAN_MEIER = "kaplan-meier"


class Basis(Struct, frozen=True, kw_only=True):
    """Where a figure comes from; without a figure, why there is none."""

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
    """What all of one state share: survival over the horizon, units of 36 months, quartiles of days."""

    found: Source
    survival: Estimate | None
    units: Estimate | None
    units_from: Source
    reach: int
    quartiles: tuple[int | None, int | None, int | None]


def outlook(model: Model, at: State) -> Outlook:
    """All that the curves say of a state."""
    found = source(model, at, model.horizon_days)
    units, units_from, reach = expected_units(model, at, LIFETIME_DAYS)
    curve = found.curve
    return Outlook(
        found=found,
        survival=survival(curve, at.age, model.horizon_days) if curve else None,
        units=units,
        units_from=units_from,
        reach=reach,
        quartiles=(
            (
                _days_until(curve, at.age, 0.25),
                _days_until(curve, at.age, 0.5),
                _days_until(curve, at.age, 0.75),
            )
            if curve and at.kind == "gap"
            else (None, None, None)
        ),
    )


def predict(facts: Facts, model: Model) -> Predictions:
    """What the API says of one customer; for many, see `predictor`."""
    return _tell(facts, model, lambda at: outlook(model, at))


def predictor(model: Model) -> Callable[[Facts], Predictions]:
    """`predict` for many customers of one model: what those of one state share is computed once."""
    outlooks = cache(lambda at: outlook(model, at))
    return lambda facts: _tell(facts, model, outlooks)


_Figure = tuple[Any, Basis]


def _tell(facts: Facts, model: Model, outlooks: Callable[[State], Outlook]) -> Predictions:
    at = state(facts)
    if at is None:
        nothing = None, Basis(reason="no purchase and no live contract")
        return _predictions(nothing, nothing, nothing, nothing)
    view = outlooks(at)
    value = _lifetime(facts, at, view)
    if at.kind == "tenure":
        chance, day = _next_bill(facts, model, at)
        return _predictions(value, chance, day, _churn(facts, model, view))
    chance, risk = _purchase(view)
    return _predictions(value, chance, _purchase_date(facts, view), risk)


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


def _lifetime(facts: Facts, at: State, view: Outlook) -> _Figure:
    """Net revenue so far and what the next 36 months are expected to bring."""
    if at.kind == "tenure" and not (facts.bills or facts.undated_mrr_cents):
        end = facts.ends_date and f"set to end on {facts.ends_date}, before another bill"
        return facts.revenue_cents, Basis(method=STATED, reason=end or "no bill within the next 36 months")
    found, curve, reach = view.units_from, view.units_from.curve, view.reach
    if view.units is None or curve is None:
        return None, Basis(reason=found.reason)
    if at.kind == "gap":
        money, until, accrual = _times(view.units, facts.average_order_cents), LIFETIME_DAYS, None
    else:
        money, until, accrual = _contracted(facts, curve, at.age, reach)
    short = f"counts {reach} of the next {LIFETIME_DAYS} days: no history that long"
    reason = "; ".join(filter(None, (found.reason, accrual, short if reach < until else None))) or None
    interval = None
    if money.low is not None and money.high is not None:
        interval = facts.revenue_cents + _cents(money.low), facts.revenue_cents + _cents(money.high)
    return facts.revenue_cents + _cents(money.value), _basis(curve, interval, reason)


def _contracted(facts: Facts, curve: Curve, age: int, reach: int) -> tuple[Estimate, int, str | None]:
    """What live contracts bring in `reach` days; how far ahead they bring something; whether any is undated.

    The MRR of an undated one accrues evenly, until the stated end.
    """
    ahead = [(day - facts.today, cents) for day, cents in facts.bills]
    money = billed(curve, age, [bill for bill in ahead if bill[0] <= reach])
    until = max((day for day, _ in ahead), default=0)
    if not facts.undated_mrr_cents:
        return money, until, None
    days = LIFETIME_DAYS if facts.ends_date is None else _ordinal(facts.ends_date) - facts.today
    days = min(max(days, 0), LIFETIME_DAYS)
    accrued = _times(paid_months(curve, age, min(days, reach)), facts.undated_mrr_cents)
    return _both(money, accrued), max(days, until), "no next bill is dated: MRR accrues evenly"


def _churn(facts: Facts, model: Model, view: Outlook) -> _Figure:
    """A live contract's risk to end within the horizon."""
    if facts.ends_date is not None and _ordinal(facts.ends_date) - facts.today <= model.horizon_days:
        return 1.0, Basis(method=STATED, reason=f"set to end on {facts.ends_date}")
    return _chance(view.found, view.survival and _complement(view.survival))


def _next_bill(facts: Facts, model: Model, at: State) -> tuple[_Figure, _Figure]:
    """Whether and when a live contract bills next: the date is known, whether it lives until then is not."""
    first = facts.bills[0][0] if facts.bills else None
    is_last = facts.ends_date is not None and not facts.undated_mrr_cents
    if is_last and (first is None or first >= _ordinal(str(facts.ends_date))):
        reason = f"set to end on {facts.ends_date}"
        return (0.0, Basis(method=STATED, reason=reason)), (None, Basis(reason=reason))
    if first is None or facts.overdue_date is not None:
        overdue = facts.overdue_date and f"the bill of {facts.overdue_date} is overdue"
        nothing = None, Basis(reason=overdue or "the contract has no next bill")
        return nothing, nothing
    ahead = first - facts.today
    found = source(model, at, ahead)
    chance = _chance(found, survival(found.curve, at.age, ahead) if found.curve else None)
    return chance, (date.fromordinal(first).isoformat(), Basis(method=STATED))


def _purchase(view: Outlook) -> tuple[_Figure, _Figure]:
    """The probability to buy within the horizon, and that of not buying."""
    return (
        _chance(view.found, view.survival and _complement(view.survival)),
        _chance(view.found, view.survival),
    )


def _purchase_date(facts: Facts, view: Outlook) -> _Figure:
    """The first day by which buying is at least as likely as not, between the quartiles."""
    curve = view.found.curve
    if curve is None:
        return None, Basis(reason=view.found.reason)
    early, middle, late = (
        None if ahead is None else date.fromordinal(facts.today + ahead).isoformat()
        for ahead in view.quartiles
    )
    if middle is None:
        reason = f"another purchase is less likely than not within the {curve.end} days that are known"
        return None, Basis(n=curve.n, events=curve.events, reason=reason)
    return middle, _basis(curve, (early, late), view.found.reason)


def _days_until(curve: Curve, age: int, chance: float) -> int | None:
    """The fewest days from `age` by which the event has come with this probability; None if it never has."""
    start = bisect_right(curve.days, age)
    left = (curve.survival[start - 1] if start else 1.0) * (1 - chance) + 1e-12
    found = bisect_left(curve.survival, -left, lo=start, key=neg)
    return curve.days[found] - age if found < len(curve.days) else None


def _chance(found: Source, estimate: Estimate | None) -> _Figure:
    if estimate is None or found.curve is None:
        return None, Basis(reason=found.reason)
    interval = None
    if estimate.low is not None and estimate.high is not None:
        interval = round(estimate.low, 4), round(estimate.high, 4)
    return round(estimate.value, 4), _basis(found.curve, interval, found.reason)


def _basis(curve: Curve, interval: tuple[Any, Any] | None, reason: str | None) -> Basis:
    return Basis(method=KAPLAN_MEIER, n=curve.n, events=curve.events, interval=interval, reason=reason)


def _complement(chance: Estimate) -> Estimate:
    if chance.low is None or chance.high is None:
        return Estimate(1 - chance.value)
    return Estimate(1 - chance.value, 1 - chance.high, 1 - chance.low)


def _times(units: Estimate, price: int) -> Estimate:
    """Units to money; a negative price (more refunded than paid) turns the interval around."""
    if units.low is None or units.high is None:
        return Estimate(units.value * price)
    low, high = sorted((units.low * price, units.high * price))
    return Estimate(units.value * price, low, high)


def _both(one: Estimate, other: Estimate) -> Estimate:
    """Two sums by one curve: their bounds add up."""
    if one.low is None and other.low is None:
        return Estimate(one.value + other.value)
    low, high = (
        sum(getattr(each, name) if each.low is not None else each.value for each in (one, other))
        for name in ("low", "high")
    )
    return Estimate(one.value + other.value, low, high)


def _cents(money: float) -> int:
    return round_fraction(Fraction(money))


def _ordinal(day: str) -> int:
    return date.fromisoformat(day).toordinal()
