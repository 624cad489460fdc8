"""A fitted model, and the estimates that its survival curves give for a customer; needs no numpy.

Two kinds of curves (Kaplan and Meier, 1958), each by stratum, and pooled under `ALL`:

    tenure   a live contract: days from the day that MRR rose from 0 to the day that it falls to 0
    gap      everybody else: days from a purchase, or from the end of a contract, to the next purchase

A contract belongs to the stratum of its billing period, which is known from its first order. Everybody else
belongs to the stratum of the average days between their orders.

Days are ordinals (`date.toordinal()`), money is minor units of one currency. A curve holds only for the ages
`start` to `end`, at which enough spells were observed; beyond them there is no estimate, only a reason.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

from msgspec import Struct

Kind = Literal["tenure", "gap"]

ALL = "all"
ONE_ORDER = "One order"
ENDED = "Contract ended"
FREQUENCY_BOUNDS = (("Monthly", 30), ("Quarterly", 90), ("Bi-Annual", 180))  # days between orders, at most
LEAST_FREQUENT = "Annual+"

NEW_DAYS = 30  # until then "One order" tells nothing about a contract: its second bill was hardly due
MONTH_DAYS = 365 / 12
PERIODS = (*(days / MONTH_DAYS for days in (7, 14, 28)), 1.0, 2.0, 3.0, 6.0, 12.0, 24.0, 36.0)  # months
PERIOD_BOUNDS = (  # between two of them lies one period; below the first and above the last there is none
    PERIODS[0] / math.sqrt(2),
    *(math.sqrt(short * long) for short, long in pairwise(PERIODS)),
    PERIODS[-1] * math.sqrt(2),
)

MIN_SPELLS = 30
MIN_EVENTS = 10
HORIZON_DAYS = 90
LIFETIME_DAYS = 1095  # 36 months
STEP_DAYS = 15  # divides both
_NORMAL_QUANTILE_95 = 1.959963984540054  # the normal quantile of a 95 % interval


class Curve(Struct, frozen=True, kw_only=True):
    """Survival by age, from 1.0 at age `start`: the steps only, valid until age `end`.

    `greenwood` is the sum of d / (n (n - d)) up to each step. `renewals` (gaps only) is the expected number
    of purchases within 0, 15, 30 … 1095 days of a purchase, when every gap follows this curve.
    """

    n: int
    events: int
    start: int
    end: int
    days: tuple[int, ...]
    survival: tuple[float, ...]
    greenwood: tuple[float, ...]
    renewals: tuple[float, ...] = ()


class Model(Struct, frozen=True, kw_only=True):
    """The curves fitted to all events up to the close of `day`, in the ledger up to `position`.

    `reasons` says by kind and stratum why a curve is missing.
    """

    day: int
    horizon_days: int
    tenure: dict[str, Curve]
    gap: dict[str, Curve]
    reasons: dict[str, dict[str, str]]
    position: int = 0


class Estimate(Struct, frozen=True):
    """A value with its 95 % interval; no interval where no event was seen, and so no variance."""

    value: float
    low: float | None = None
    high: float | None = None


class Facts(Struct, frozen=True, kw_only=True):
    """The facts about one customer, at the close of `today`, that predictions use.

    `tenure_day` is when MRR last rose from 0, `ended_day` when it last fell to 0. `orders` counts every
    order, `revenue_cents` is net of refunds. `last_order_cents` is what was ordered on `last_day`, and
    `last_order_mrr_cents` the MRR at its close: the billing period follows from the two.

    Of live contracts: `bills` are those to come, (day, minor units) by day, for 36 months;
    `undated_mrr_cents` is the MRR of those that bill on no stated date. `overdue_date` is the stated date
    of the next bill, where it is past, and no other to come. `ends_date` is when the last is set to end.
    """

    today: int
    orders: int = 0
    first_day: int | None = None
    last_day: int | None = None
    revenue_cents: int = 0
    average_order_cents: int = 0
    last_order_cents: int = 0
    last_order_mrr_cents: int = 0
    mrr_cents: int = 0
    tenure_day: int | None = None
    ended_day: int | None = None
    bills: tuple[tuple[int, int], ...] = ()
    undated_mrr_cents: int = 0
    overdue_date: str | None = None
    ends_date: str | None = None


class State(Struct, frozen=True):
    """Which curve applies to a customer, and the age from which to read it."""

    kind: Kind
    stratum: str
    age: int


class CurveChoice(Struct, frozen=True):
    """The curve for a state; `reason` says why it is not the stratum's own, or why there is none."""

    curve: Curve | None
    reason: str | None


def stratum_of(orders: int, first_day: int, last_day: int) -> str:
    """The class of the average days between purchases, (last - first) / (orders - 1)."""
    if orders < 2:
        return ONE_ORDER
    for name, bound in FREQUENCY_BOUNDS:
        if last_day - first_day <= bound * (orders - 1):
            return name
    return LEAST_FREQUENT


def billing_period(order_cents: int, mrr_cents: int) -> float | None:
    """The billing period, in months, for which an order pays; None where that is none of `PERIODS`."""
    if mrr_cents <= 0:
        return None
    number = bisect_right(PERIOD_BOUNDS, order_cents / mrr_cents)
    return PERIODS[number - 1] if 0 < number <= len(PERIODS) else None


def stratum_of_period(months: float) -> str:
    """The class of a billing period, by the bounds of `stratum_of`; a month counts 30 days."""
    return next((name for name, bound in FREQUENCY_BOUNDS if months * 30 <= bound), LEAST_FREQUENT)


def state_of(facts: Facts) -> State | None:
    """The kind, stratum and age of a customer; None without both a live contract and a purchase."""
    first, last, ended = facts.first_day or 0, facts.last_day or 0, facts.ended_day or 0
    if facts.mrr_cents > 0 and facts.tenure_day is not None:
        age = max(facts.today - facts.tenure_day, 0)
        is_billed = facts.orders and last >= facts.tenure_day
        months = billing_period(facts.last_order_cents, facts.last_order_mrr_cents) if is_billed else None
        if months is not None:
            return State("tenure", stratum_of_period(months), age)
        new = facts.orders < 2 and age <= NEW_DAYS
        return State("tenure", ALL if new else stratum_of(facts.orders, first, last), age)
    if not facts.orders:
        return None
    name = ENDED if ended >= last else stratum_of(facts.orders, first, last)
    return State("gap", name, max(facts.today - max(last, ended), 0))


def choose_curve(model: Model, state: State, days_ahead: int) -> CurveChoice:
    """The first curve that covers the next `days_ahead`: the stratum's, else the pooled one, or none."""
    curves = model.tenure if state.kind == "tenure" else model.gap
    reasons: list[str] = []
    for name in dict.fromkeys((state.stratum, ALL)):
        curve = curves.get(name)
        if curve is None:
            reasons.append(model.reasons.get(state.kind, {}).get(name) or shortage_reason(name, 0, 0))
        elif curve.start <= state.age and state.age + days_ahead <= curve.end:
            return CurveChoice(curve, "; ".join(reasons) or None)
        else:
            reasons.append(
                f"{name}: no history that long, days {state.age} to {state.age + days_ahead} are asked, "
                f"{curve.start} to {curve.end} known"
            )
    return CurveChoice(None, "; ".join(reasons))


def shortage_reason(name: str, spells: int, events: int) -> str:
    """Why a curve is missing: how many spells and events there were, and how many are needed."""
    return f"{name}: {spells} spells and {events} events, {MIN_SPELLS} and {MIN_EVENTS} are needed"


def survival_probability(curve: Curve, age: int, days_ahead: int) -> Estimate:
    """P(survives until age + days_ahead | survived until age), with the log-log Greenwood interval.

    Both ages must lie within the curve: see `choose_curve`.
    """
    start, end = bisect_right(curve.days, age), bisect_right(curve.days, age + days_ahead)
    if start == end:
        return Estimate(1.0)
    before, variance = (curve.survival[start - 1], curve.greenwood[start - 1]) if start else (1.0, 0.0)
    value = curve.survival[end - 1] / before
    if not 0.0 < value < 1.0:
        return Estimate(value)
    log = math.log(value)
    spread = math.exp(min(_NORMAL_QUANTILE_95 * math.sqrt(curve.greenwood[end - 1] - variance) / -log, 50.0))
    return Estimate(value, math.exp(log * spread), math.exp(log / spread))


def expected_paid_months(curve: Curve, age: int, days: int) -> Estimate:
    """Expected months under contract in the next `days`: the area under the curve, by steps of 15 days."""
    points = _step_days(days)
    chances = [survival_probability(curve, age, point) for point in points]

    def area(heights: list[float]) -> float:
        return (
            sum(
                (v - u) * (a + b) / 2
                for (u, v), (a, b) in zip(pairwise(points), pairwise(heights), strict=True)
            )
            / MONTH_DAYS
        )

    return Estimate(
        area([chance.value for chance in chances]),
        area([chance.value if chance.low is None else chance.low for chance in chances]),
        area([chance.value if chance.high is None else chance.high for chance in chances]),
    )


def expected_bills(curve: Curve, age: int, bills: Iterable[tuple[int, int]]) -> Estimate:
    """The sum of bills (days ahead, amount), each times the survival to its day.

    No day may lie beyond the curve.
    """
    chances = [(survival_probability(curve, age, days_ahead), amount) for days_ahead, amount in bills]
    value = sum(chance.value * amount for chance, amount in chances)
    if all(chance.low is None for chance, _ in chances):
        return Estimate(value)
    return Estimate(
        value,
        sum((chance.value if chance.low is None else chance.low) * amount for chance, amount in chances),
        sum((chance.value if chance.high is None else chance.high) * amount for chance, amount in chances),
    )


def expected_orders(
    curve: Curve, later_gaps: Curve | None, age: int, first_days: int, total_days: int
) -> Estimate:
    """Expected purchases in the next `total_days`, if the first of them comes within `first_days`.

    Summed over the steps of `curve`: P(the next purchase falls in the step) x (1 + renewals of `later_gaps`
    in the remaining days). The interval is that of the probability of the first purchase.
    """
    points = _step_days(first_days)
    survivals = [survival_probability(curve, age, point).value for point in points]
    value = sum(
        (a - b) * (1 + (_renewals(later_gaps, total_days - u) + _renewals(later_gaps, total_days - v)) / 2)
        for (u, v), (a, b) in zip(pairwise(points), pairwise(survivals), strict=True)
    )
    at_end = survival_probability(curve, age, first_days)
    if at_end.low is None or at_end.high is None:
        return Estimate(value)
    scale = value / (1 - at_end.value)
    return Estimate(value, scale * (1 - at_end.high), scale * (1 - at_end.low))


def _step_days(days: int) -> list[int]:
    return [*range(0, days, STEP_DAYS), days]


def _renewals(curve: Curve | None, days: int) -> float:
    if curve is None or not curve.renewals:
        return 0.0
    steps, rest = divmod(min(days, LIFETIME_DAYS), STEP_DAYS)
    at_step = curve.renewals[steps]
    return at_step + (curve.renewals[steps + 1] - at_step) * rest / STEP_DAYS if rest else at_step


def expected_units(model: Model, state: State, days: int) -> tuple[Estimate | None, CurveChoice, int]:
    """Months of MRR (tenure) or orders (gap) in the next `days`; the curve; how many days it reaches.

    The days beyond the curve count nothing: the estimate is a restricted mean.
    """
    choice = choose_curve(model, state, min(days, model.horizon_days))
    if choice.curve is None:
        choice = choose_curve(model, state, min(days, 1))
    if choice.curve is None:
        return None, choice, 0
    reach = min(days, choice.curve.end - state.age)
    if state.kind == "tenure":
        return expected_paid_months(choice.curve, state.age, reach), choice, reach
    return expected_orders(choice.curve, later_gap_curve(model, state), state.age, reach, days), choice, reach


def later_gap_curve(model: Model, state: State) -> Curve | None:
    """The curve of the gaps that follow the next order."""
    own_curve = None if state.stratum in {ONE_ORDER, ENDED} else model.gap.get(state.stratum)
    return own_curve or model.gap.get(ALL)


def later_order_probability(curve: Curve, later_gaps: Curve, age: int, days: int) -> float:
    """P(an order comes after the next `days`): the customer has not left for good by then.

    Any order is the last one with the probability that a gap of `later_gaps` never ends, as far as the curve
    goes. So a customer has left if no order comes at all, or with that probability after each of the orders
    that are expected within `days`.
    """
    reach = min(curve.end - age, LIFETIME_DAYS)
    chance_of_none = survival_probability(curve, age, reach).value
    chance_of_last_order = survival_probability(
        later_gaps, later_gaps.start, min(later_gaps.end, LIFETIME_DAYS) - later_gaps.start
    ).value
    orders = expected_orders(curve, later_gaps, age, min(days, reach), days).value
    return min(max(1 - chance_of_none - chance_of_last_order * orders, 0.0), 1.0)
