"""A fitted model, and what its curves say of an age: survival, read without numpy.

Two kinds of curves (Kaplan and Meier, 1958), each by stratum, and pooled under `ALL`:

    tenure   a live contract: days from the day that MRR rose from 0 to the day that it falls to 0
    gap      everybody else: days from a purchase, or from the end of a contract, to the next purchase

A contract is of the stratum of its billing period, which its first order tells; everybody else of that of the
days between their orders.

Days are ordinals (`date.toordinal()`), money is minor units of one currency. A curve says something only of
the ages `start` to `end`, where enough spells were followed; beyond them there is no estimate, only a reason.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

from msgspec import Struct

from service.core.cadence import FREQUENCIES

Kind = Literal["tenure", "gap"]

ALL = "all"
ONE_ORDER = "One order"
ENDED = "Contract ended"
RHYTHMS = tuple((name, days) for name, days in FREQUENCIES.items() if days)
SLOWEST = next(name for name, days in FREQUENCIES.items() if days is None)

NEW_DAYS = 30  # so long "One order" says nothing of a contract: its second bill was hardly due
MONTH_DAYS = 365 / 12
PERIODS = (*(days / MONTH_DAYS for days in (7, 14, 28)), 1.0, 2.0, 3.0, 6.0, 12.0, 24.0, 36.0)  # months
PERIOD_BOUNDS = (  # below the first, between two, above the last; an order of less or more tells no period
    PERIODS[0] / math.sqrt(2),
    *(math.sqrt(short * long) for short, long in pairwise(PERIODS)),
    PERIODS[-1] * math.sqrt(2),
)

MIN_SPELLS = 30
MIN_EVENTS = 10
HORIZON_DAYS = 90
LIFETIME_DAYS = 1095  # 36 months
STEP_DAYS = 15  # divides both
_Z = 1.959963984540054  # the normal quantile of a 95 % interval


class Curve(Struct, frozen=True, kw_only=True):
    """Survival by age, from 1.0 at age `start`: the steps only, good until age `end`.

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
    """What was learnt up to the close of `day`, of the ledger up to `position`.

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
    """One customer at the close of `today`.

    `tenure_day` is when MRR last rose from 0, `ended_day` when it last fell to 0. `orders` counts every
    order, `revenue_cents` is net of refunds. `last_order_cents` is what was ordered on `last_day`, and
    `last_order_mrr_cents` the MRR at its close: together they tell the billing period.

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
    """All that a curve needs to know of a customer: which one to read, and from which age."""

    kind: Kind
    stratum: str
    age: int


class Source(Struct, frozen=True):
    """The curve that was found for a state; `reason` says why it is not the stratum's own, or is none."""

    curve: Curve | None
    reason: str | None


def stratum(orders: int, first_day: int, last_day: int) -> str:
    """The class of the average days between purchases, (last - first) / (orders - 1)."""
    if orders < 2:
        return ONE_ORDER
    for name, bound in RHYTHMS:
        if last_day - first_day <= bound * (orders - 1):
            return name
    return SLOWEST


def period(order_cents: int, mrr_cents: int) -> float | None:
    """The months that an order pays for, as contracts bill; None where that is none of `PERIODS`."""
    if mrr_cents <= 0:
        return None
    number = bisect_right(PERIOD_BOUNDS, order_cents / mrr_cents)
    return PERIODS[number - 1] if 0 < number <= len(PERIODS) else None


def period_stratum(months: float) -> str:
    """The class of a billing period, by the bounds of `stratum`; a month has 30 days."""
    return next((name for name, bound in RHYTHMS if months * 30 <= bound), SLOWEST)


def state(facts: Facts) -> State | None:
    """The kind, stratum and age of a customer; None without a live contract and any purchase."""
    first, last, ended = facts.first_day or 0, facts.last_day or 0, facts.ended_day or 0
    if facts.mrr_cents > 0 and facts.tenure_day is not None:
        age = max(facts.today - facts.tenure_day, 0)
        is_billed = facts.orders and last >= facts.tenure_day
        months = period(facts.last_order_cents, facts.last_order_mrr_cents) if is_billed else None
        if months is not None:
            return State("tenure", period_stratum(months), age)
        new = facts.orders < 2 and age <= NEW_DAYS
        return State("tenure", ALL if new else stratum(facts.orders, first, last), age)
    if not facts.orders:
        return None
    name = ENDED if ended >= last else stratum(facts.orders, first, last)
    return State("gap", name, max(facts.today - max(last, ended), 0))


def source(model: Model, at: State, ahead: int) -> Source:
    """The first curve that covers `ahead` days from the age: the stratum's, else the pooled one, or none."""
    curves = model.tenure if at.kind == "tenure" else model.gap
    reasons: list[str] = []
    for name in dict.fromkeys((at.stratum, ALL)):
        curve = curves.get(name)
        if curve is None:
            reasons.append(model.reasons.get(at.kind, {}).get(name) or needed(name, 0, 0))
        elif curve.start <= at.age and at.age + ahead <= curve.end:
            return Source(curve, "; ".join(reasons) or None)
        else:
            reasons.append(
                f"{name}: no history that long, days {at.age} to {at.age + ahead} are asked, "
                f"{curve.start} to {curve.end} known"
            )
    return Source(None, "; ".join(reasons))


def needed(name: str, spells: int, events: int) -> str:
    """The reason of a missing curve: how much there was and how much is needed."""
    return f"{name}: {spells} spells and {events} events, {MIN_SPELLS} and {MIN_EVENTS} are needed"


def survival(curve: Curve, age: int, ahead: int) -> Estimate:
    """P(still there at age + ahead | there at age), with the log-log interval of Greenwood's variance.

    Both ages must lie within the curve: see `source`.
    """
    start, end = bisect_right(curve.days, age), bisect_right(curve.days, age + ahead)
    if start == end:
        return Estimate(1.0)
    before, variance = (curve.survival[start - 1], curve.greenwood[start - 1]) if start else (1.0, 0.0)
    value = curve.survival[end - 1] / before
    if not 0.0 < value < 1.0:
        return Estimate(value)
    log = math.log(value)
    spread = math.exp(min(_Z * math.sqrt(curve.greenwood[end - 1] - variance) / -log, 50.0))
    return Estimate(value, math.exp(log * spread), math.exp(log / spread))


def paid_months(curve: Curve, age: int, days: int) -> Estimate:
    """Expected months under contract in the next `days`: the area under the curve, by steps of 15 days."""
    points = _points(days)
    chances = [survival(curve, age, point) for point in points]

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


def billed(curve: Curve, age: int, bills: Iterable[tuple[int, int]]) -> Estimate:
    """Bills (days ahead, amount), each times the survival to its day. No day may lie beyond the curve."""
    found = [(survival(curve, age, ahead), amount) for ahead, amount in bills]
    value = sum(chance.value * amount for chance, amount in found)
    if all(chance.low is None for chance, _ in found):
        return Estimate(value)
    return Estimate(
        value,
        sum((chance.value if chance.low is None else chance.low) * amount for chance, amount in found),
        sum((chance.value if chance.high is None else chance.high) * amount for chance, amount in found),
    )


def further_orders(curve: Curve, later: Curve | None, age: int, days: int, whole: int) -> Estimate:
    """Expected purchases in the next `whole` days, the first of them in `days`, as far as the curve goes.

    Σ over steps of P(the next purchase falls in the step) x (1 + renewals of `later` in what remains). The
    interval is that of the first purchase's probability.
    """
    points = _points(days)
    left = [survival(curve, age, point).value for point in points]
    value = sum(
        (a - b) * (1 + (_renewals(later, whole - u) + _renewals(later, whole - v)) / 2)
        for (u, v), (a, b) in zip(pairwise(points), pairwise(left), strict=True)
    )
    last = survival(curve, age, days)
    if last.low is None or last.high is None:
        return Estimate(value)
    scale = value / (1 - last.value)
    return Estimate(value, scale * (1 - last.high), scale * (1 - last.low))


def _points(days: int) -> list[int]:
    return [*range(0, days, STEP_DAYS), days]


def _renewals(curve: Curve | None, days: int) -> float:
    if curve is None or not curve.renewals:
        return 0.0
    whole, part = divmod(min(days, LIFETIME_DAYS), STEP_DAYS)
    low = curve.renewals[whole]
    return low + (curve.renewals[whole + 1] - low) * part / STEP_DAYS if part else low


def expected_units(model: Model, at: State, days: int) -> tuple[Estimate | None, Source, int]:
    """Months of MRR (tenure) or orders (gap) in the next `days`; the curve; how many days it reaches.

    What lies beyond the curve counts nothing: it is a restricted mean.
    """
    found = source(model, at, min(days, model.horizon_days))
    if found.curve is None:
        found = source(model, at, min(days, 1))
    if found.curve is None:
        return None, found, 0
    reach = min(days, found.curve.end - at.age)
    if at.kind == "tenure":
        return paid_months(found.curve, at.age, reach), found, reach
    return further_orders(found.curve, following(model, at), at.age, reach, days), found, reach


def following(model: Model, at: State) -> Curve | None:
    """The curve of the gaps that follow the next order."""
    own = None if at.stratum in {ONE_ORDER, ENDED} else model.gap.get(at.stratum)
    return own or model.gap.get(ALL)


def still_buys(curve: Curve, later: Curve, age: int, days: int) -> float:
    """P(an order comes after the next `days`): the buyer has not gone for good by then.

    Any order is the last with the probability that a gap of `later` never ends, as far as it is known. So
    they have gone if none comes at all, or with that probability for each order that is expected in `days`.
    """
    reach = min(curve.end - age, LIFETIME_DAYS)
    never = survival(curve, age, reach).value
    last = survival(later, later.start, min(later.end, LIFETIME_DAYS) - later.start).value
    orders = further_orders(curve, later, age, min(days, reach), days).value
    return min(max(1 - never - last * orders, 0.0), 1.0)
