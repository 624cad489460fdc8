"""The forecast of a customer's payments, by whole months from the one after today's.

Where a contract has a dated bill, its later bills follow by its interval, and each counts times the
probability that the customer is still under contract on its day. Nothing beside the bills is expected of such
a customer, since an order does not say to which contract it belongs. All others are expected to order as much
a month as before, by trend and season, times the probability that they have not left for good by its end.
Months for which that probability is not known have no estimate. Possible refunds are not deducted.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from fractions import Fraction
from typing import Annotated, Any, Literal

from msgspec import Struct
from msgspec.structs import asdict

from projections.schedules import decode
from service.books.view import Scope, View
from service.core.cadence import ONCE, add_months
from service.core.money import round_fraction, round_half_away
from service.predictions.model import (
    ALL,
    ENDED,
    LIFETIME_DAYS,
    MONTH_DAYS,
    Curve,
    Estimate,
    Facts,
    Model,
    State,
    choose_curve,
    later_gap_curve,
    later_order_probability,
    shortage_reason,
    state_of,
    survival_probability,
)
from service.reads.answers import Reason, about, cents, or_null
from service.reads.customers.customer import (
    Customer,
    CustomerHeader,
    dated_bills,
    facts_of,
    header,
    live_contracts,
    read_model,
)
from service.reads.customers.trend import (
    MIN_MONTHS,
    YEAR,
    Month,
    TrendLine,
    counted_months,
    damped_months,
    full_months,
    least_squares,
    season_weights,
    seasonal_indices,
)
from service.reads.months import month_bounds, months_between

_INTERVAL_RATIO = 1.2815515655446004 / 1.959963984540054  # normal quantiles: an 80 % interval from a 95 % one
_YEAR_DAYS = 400  # the next twelve whole months end earlier than that

_UNKNOWN = "where nothing can be said"
ExpectedCents = Annotated[int | None, or_null(cents("what is expected"), _UNKNOWN)]
LowCents = Annotated[int | None, or_null(cents("the lower bound of an 80 % interval"), "where there is none")]
HighCents = Annotated[int | None, or_null(cents("the upper bound"), "where there is none")]
Method = Literal["scheduled", "scheduled_survival", "orders", "orders_survival"]


class ExpectedMonth(Struct, frozen=True, kw_only=True):
    """What a customer is expected to pay in a month."""

    month: Annotated[str, about("a whole month, the first one after today's")]
    expected_cents: ExpectedCents
    low_cents: LowCents
    high_cents: HighCents
    contract_cents: Annotated[int | None, or_null(cents("of it, bills of contracts"), _UNKNOWN)]
    other_cents: Annotated[int | None, or_null(cents("of it, other orders"), _UNKNOWN)]


class ExpectedYear(Struct, frozen=True, kw_only=True):
    """What a customer is expected to pay in twelve months."""

    expected_cents: ExpectedCents
    low_cents: LowCents
    high_cents: HighCents


class FrequencyFactor(Struct, frozen=True, kw_only=True):
    """How often a customer orders."""

    orders_per_month: Annotated[float | None, about("orders a month; null without a full month")]
    avg_order_value_cents: Annotated[int | None, or_null(cents("revenue for each order"), "without orders")]
    months: Annotated[int, about("how many full months")]
    reason: Reason


class TrendFactor(Struct, frozen=True, kw_only=True):
    """How a customer's orders rise or fall."""

    cents_per_month: Annotated[
        float | None,
        or_null(cents("what a month has more than the one before"), "where there is no trend"),
    ]
    reason: Reason


class SeasonalityFactor(Struct, frozen=True, kw_only=True):
    """How a customer's orders depend on the calendar month."""

    indices: Annotated[
        dict[str, float] | None,
        about('by calendar month ("01"), 1 on average; null where there is too little history'),
    ]
    reason: Reason


class SurvivalFactor(Struct, frozen=True, kw_only=True):
    """Whether a customer is still there."""

    kind: Annotated[Literal["tenure", "gap"] | None, about("whose curve; null without one")]
    by_month: Annotated[
        list[float | None] | None,
        about(
            "the probability by the end of each month to be under contract, or not to have gone for good; "
            "null beyond what is known"
        ),
    ]
    reason: Reason


class ForecastFactors(Struct, frozen=True, kw_only=True):
    """What a forecast is made of."""

    frequency: Annotated[FrequencyFactor, about("of the last twelve full months, or as many as there are")]
    trend: Annotated[TrendFactor, about("by least squares over them, where it is beyond chance")]
    seasonality: Annotated[SeasonalityFactor, about("where there are two full years")]
    survival: Annotated[SurvivalFactor, about("whether the customer is still there")]


class CustomerForecast(CustomerHeader, frozen=True, kw_only=True):
    """What a customer is expected to pay, by month."""

    months: Annotated[int, about("how many months were asked for")]
    monthly: Annotated[list[ExpectedMonth], about("each of them")]
    annual: Annotated[
        ExpectedYear | None,
        about("the first twelve months together; null where fewer were asked for"),
    ]
    factors: Annotated[ForecastFactors, about("what it is made of")]
    method: Annotated[
        Method | None,
        about(
            "a contract's dated bills, or the orders of the last year; with survival where it is known; "
            "null where nothing can be said"
        ),
    ]
    confidence_score: Annotated[
        float | None,
        about(
            "0 to 1: expected ÷ (expected + half the width of the interval), of all months together, × "
            f"months of history ÷ (months of history + {MIN_MONTHS}); 0 where there is no interval, null "
            f"{_UNKNOWN}"
        ),
    ]
    reason: Annotated[str | None, about("what was left out or not known; null where there is nothing to say")]


class Survival(Struct, frozen=True, kw_only=True):
    """The survival curve of a customer in a state; without one, `reason` says why.

    `later_gaps`, for a gap, is the curve of the gaps after the next order.
    """

    state: State | None = None
    curve: Curve | None = None
    later_gaps: Curve | None = None
    reason: str | None = None

    @property
    def reach(self) -> int:
        """The days ahead that the curves cover: gaps follow each other, but a contract has one life."""
        if self.curve is None or self.state is None:
            return 0
        return LIFETIME_DAYS if self.later_gaps else self.curve.end - self.state.age

    def probability_after(self, days: int) -> Estimate | None:
        """P(still there in so many days): under contract, or to order again later. None beyond what is known.

        Without a curve it is 1: what is scheduled then counts as it is. The interval, of a contract only, is
        one of 80 %. A curve of n spells shows no chance below 1 ÷ (n + 2), by Laplace's rule of succession.
        """
        if self.curve is None or self.state is None:
            return Estimate(1)
        if days > self.reach:
            return None
        least = 1 / (self.curve.n + 2)
        if self.later_gaps:
            chance = later_order_probability(self.curve, self.later_gaps, self.state.age, days)
            return Estimate(max(chance, least))
        chance_to_live = narrow_interval(survival_probability(self.curve, self.state.age, days))
        if chance_to_live.value >= least:
            return chance_to_live
        return Estimate(least, chance_to_live.low, max(chance_to_live.high or 0, least))


class MonthlyForecast(Struct, frozen=True, kw_only=True):
    """The estimate for each month, in minor units.

    `annual_margin` is half the width of the interval of twelve months together.
    """

    method: Method | None
    months: list[Estimate | None]
    annual_margin: float | None = None
    factors: ForecastFactors
    reasons: list[str]


def forecast(view: View, customer: Customer, months: int) -> CustomerForecast:
    """The forecast of a customer's payments in the next `months` whole months."""
    return build_forecast(customer, view.scope, months, read_model(view))


def build_forecast(customer: Customer, scope: Scope, months: int, model: Model | None) -> CustomerForecast:
    """The forecast by the present contracts, whatever `today` is: see `_billed_since`."""
    facts = facts_of(customer, scope.today)
    names = months_between(add_months(scope.today, 1, 1), add_months(scope.today, months, 1))
    is_billed = _is_billed(customer, facts)
    calculate = _by_contracts if is_billed else _by_orders
    result = calculate(customer, facts, names, find_survival(facts, model))
    estimates = zip(names, result.months, strict=True)
    rows = [_expected_month(name, estimate, is_billed=is_billed) for name, estimate in estimates]
    return CustomerForecast(
        **asdict(header(customer, scope.currency)),
        months=months,
        monthly=rows,
        annual=_expected_year(rows[:YEAR], result.annual_margin) if months >= YEAR else None,
        factors=result.factors,
        method=result.method,
        confidence_score=_confidence(rows, facts),
        reason="; ".join(result.reasons) or None,
    )


def _is_billed(customer: Customer, facts: Facts) -> bool:
    """Whether the contracts' bills tell what is to come, even if that is nothing since the contracts end.

    A contract that bills nothing, as a free plan, tells nothing of what the customer orders beside it.
    """
    if facts.ends_date is not None:
        return True
    if not customer.orders:
        return any(row.next_bill_date for row in customer.contracts)
    first = add_months(date.fromordinal(facts.today), 1, 1)
    last = date.fromordinal(facts.today + LIFETIME_DAYS)
    return any(cents for _, cents in dated_bills(customer.contracts, first.isoformat(), last.isoformat()))


def _confidence(rows: Sequence[ExpectedMonth], facts: Facts) -> float | None:
    """How near the bounds are to what is expected, and how much history there is: see `confidence_score`."""
    known = [row for row in rows if row.expected_cents is not None]
    began = [day for day in (facts.first_day, facts.tenure_day) if day is not None]
    if not known:
        return None
    expected, low, high = (
        _sum_or_none([getattr(row, name) for row in known])
        for name in ("expected_cents", "low_cents", "high_cents")
    )
    if expected is None or low is None or high is None or not began:
        return 0.0
    months = (facts.today - min(began)) / MONTH_DAYS
    precision = 2 * expected / (2 * expected + high - low) if high else 1.0
    return round(precision * months / (months + MIN_MONTHS), 4)


def _expected_month(name: str, estimate: Estimate | None, *, is_billed: bool) -> ExpectedMonth:
    expected, low, high = map(
        _cents, (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    )
    return ExpectedMonth(
        month=name,
        expected_cents=expected,
        low_cents=low,
        high_cents=high,
        contract_cents=expected if is_billed else 0,
        other_cents=0 if is_billed else expected,
    )


def _expected_year(rows: Sequence[ExpectedMonth], margin: float | None) -> ExpectedYear:
    """Twelve months together. The bounds of bills add up, since one curve is behind all of them."""
    expected, low, high = (
        _sum_or_none([getattr(row, name) for row in rows])
        for name in ("expected_cents", "low_cents", "high_cents")
    )
    if expected is not None and margin is not None:
        half = round_fraction(Fraction(margin))
        low, high = max(expected - half, 0), expected + half
    return ExpectedYear(expected_cents=expected, low_cents=low, high_cents=high)


def _sum_or_none(amounts: Sequence[int | None]) -> int | None:
    present = [amount for amount in amounts if amount is not None]
    return sum(present) if len(present) == len(amounts) else None


def _cents(amount: float | None) -> int | None:
    return None if amount is None else round_fraction(Fraction(amount))


def _bounds(month: str) -> tuple[str, str]:
    return month_bounds(int(month[:4]), int(month[5:]))


def _days_to(day: str, today: int) -> int:
    return date.fromisoformat(day).toordinal() - today


# Survival


def find_survival(facts: Facts, model: Model | None) -> Survival:
    """A customer's curve: one that reaches a year ahead if there is one, whatever the forecast's length."""
    state = state_of(facts)
    if model is None:
        return Survival(state=state, reason="no survival is known of this day (yet)")
    if state is None:
        return Survival(reason="no order and no live contract to tell survival by")
    choices = [choose_curve(model, state, ahead) for ahead in (_YEAR_DAYS, model.horizon_days, 1)]
    choice = next((choice for choice in choices if choice.curve), choices[-1])
    later_gaps = later_gap_curve(model, state) if state.kind == "gap" else None
    if state.kind == "gap" and choice.curve and later_gaps is None:
        return Survival(
            state=state, reason=model.reasons.get("gap", {}).get(ALL) or shortage_reason(ALL, 0, 0)
        )
    return Survival(state=state, curve=choice.curve, later_gaps=later_gaps, reason=choice.reason)


def narrow_interval(chance: Estimate) -> Estimate:
    """The 80 % interval in place of the 95 % one: both are symmetric on the log(-log) scale.

    Where nobody left, or everybody did, Greenwood's variance is 0, and both bounds equal the value.
    """
    if chance.low is None or chance.high is None:
        return Estimate(chance.value, chance.value, chance.value)
    if chance.low <= 0 or chance.high >= 1:
        return chance
    power = (math.log(chance.low) / math.log(chance.value)) ** _INTERVAL_RATIO
    return Estimate(chance.value, chance.value**power, chance.value ** (1 / power))


def _survival_factor(survival: Survival, today: int, names: Sequence[str]) -> SurvivalFactor:
    """The `survival` factor: the probability by the last day of each month, null where it is not known."""
    kind = survival.state.kind if survival.state and survival.curve else None
    days_ahead = [_days_to(_bounds(name)[1], today) for name in names]
    chances = [survival.probability_after(days) for days in days_ahead]
    is_short = kind is not None and days_ahead[-1] > survival.reach
    note = f"survival is known for {survival.reach} days: nothing is said beyond" if is_short else None
    return SurvivalFactor(
        kind=kind,
        by_month=[None if chance is None else round(chance.value, 4) for chance in chances] if kind else None,
        reason="; ".join(filter(None, (survival.reason, note))) or None,
    )


# Contracts


def _by_contracts(
    customer: Customer, facts: Facts, names: Sequence[str], survival: Survival
) -> MonthlyForecast:
    """Bills times survival; where survival is not known, the bills as they are scheduled."""
    if survival.state and survival.state.kind == "gap":
        survival = Survival(reason="no contract counts in MRR (yet) to tell survival by")
    bills = scheduled_bills(customer.contracts, names)
    billed_since = _billed_since(customer.contracts, date.fromordinal(facts.today).isoformat())
    unknown_until = max((before[:7] for before, _ in billed_since.values()), default="")
    survived = _survival_factor(survival, facts.today, names)
    unused = "not used: a contract's bills are dated"
    return MonthlyForecast(
        method="scheduled_survival" if survival.curve else "scheduled",
        months=[
            _expected_bills(bills[name], facts.today, survival) if name > unknown_until else None
            for name in names
        ],
        factors=ForecastFactors(
            frequency=_frequency_factor([], unused),
            trend=TrendFactor(cents_per_month=None, reason=unused),
            seasonality=SeasonalityFactor(indices=None, reason=unused),
            survival=survived,
        ),
        reasons=[
            *_contract_notes(customer, facts),
            *(
                f"{name}: which bills came before {day} is not known"
                for name, (_, day) in billed_since.items()
            ),
            *filter(None, [survived.reason]),
        ],
    )


def scheduled_bills(contracts: Iterable[Any], names: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """The bills of these months, [(day, minor units), …] by month."""
    bills: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for day, amount_cents in dated_bills(contracts, _bounds(names[0])[0], _bounds(names[-1])[1]):
        bills[day[:7]].append((day, amount_cents))
    return bills


def _billed_since(contracts: Iterable[Any], today: str) -> dict[str, tuple[str, str]]:
    """Contracts that have billed since `today`, by id: the date of their latest bill, and of its next one.

    The row holds the next bills as of now; the bills between `today` and now can't be derived from it.
    """
    latest = {row.contract_id: _latest_bill(row) for row in contracts if not _is_trial(row)}
    return {name: days for name, days in latest.items() if days and days[0] > today}


def _latest_bill(row: Any) -> tuple[str, str] | None:
    """The latest bill of all schedules, and the next one of its schedule.

    A schedule whose bill before would lie ahead, too, begins later, with a phase.
    """
    recurring = [each for each in decode(row.schedules) if each.interval != ONCE]
    before = [(each.bill_before(), each.next_bill_date) for each in recurring]
    return max((days for days in before if days[0] < row.next_bill_date), default=None)


def _is_trial(row: Any) -> bool:
    return bool(row.status == "trialing")


def _expected_bills(bills: Sequence[tuple[str, int]], today: int, survival: Survival) -> Estimate | None:
    weighted_bills = [(survival.probability_after(_days_to(day, today)), cents) for day, cents in bills]
    chances = [(chance, cents) for chance, cents in weighted_bills if chance]
    if len(chances) < len(weighted_bills):
        return None
    value = sum(chance.value * cents for chance, cents in chances)
    if any(chance.low is None or chance.high is None for chance, _ in chances):
        return Estimate(value)
    low, high = (sum(getattr(chance, name) * cents for chance, cents in chances) for name in ("low", "high"))
    return Estimate(value, low, high)


def _contract_notes(customer: Customer, facts: Facts) -> list[str]:
    """Notes on contracts that count nothing, or that may bring less than they count."""
    live = live_contracts(customer, date.fromordinal(facts.today).isoformat())
    undated = [row.contract_id for row in live if not row.next_bill_date and not row.ends_date]
    trials = [row.contract_id for row in customer.contracts if row.next_bill_date and _is_trial(row)]
    unpriced = [row.contract_id for row in customer.contracts if row.next_bill_date and row.unpriced]
    return [
        *filter(None, [facts.ends_date and f"every live contract is set to end by {facts.ends_date}"]),
        *(f"{name}: no next bill is known, nothing is expected of it" for name in undated),
        *(f"{name}: a trial, which may never pay" for name in trials),
        *(f"{name}: a price or discount can't be read" for name in unpriced),
    ]


# Orders


def _by_orders(customer: Customer, facts: Facts, names: Sequence[str], survival: Survival) -> MonthlyForecast:
    """Orders of the last year, by trend and season, times the probability of not having left for good."""
    today = date.fromordinal(facts.today)
    full = full_months(customer.orders, today)
    months = counted_months(customer.orders, today) if full else []
    indices, no_seasons = seasonal_indices(full)
    line = least_squares(months, indices)
    survived = _survival_factor(survival, facts.today, names)
    unknown = _no_forecast_reason(facts, full, line, survival)
    factors = ForecastFactors(
        frequency=_frequency_factor(full[-YEAR:], None if full else unknown),
        trend=TrendFactor(
            cents_per_month=None
            if line is None or line.slope is None
            else _rounded(line.slope * line.credit),
            reason=line.reason if line else unknown,
        ),
        seasonality=SeasonalityFactor(
            indices={month: _rounded(index) for month, index in indices.items()} if indices else None,
            reason=no_seasons,
        ),
        survival=survived,
    )
    least_cents = facts.undated_mrr_cents
    if unknown and not least_cents:
        return MonthlyForecast(method=None, months=[None] * len(names), factors=factors, reasons=[unknown])
    if unknown or line is None:
        line = TrendLine(mean=Fraction(0), middle=Fraction(0), weight=Fraction(1), reason=unknown)
    month_weights = season_weights(names, indices)
    chances = [survival.probability_after(_days_to(_bounds(name)[1], facts.today)) for name in names]
    months_ahead = [len(months) - 2 + damped_months(n + 2) for n in range(len(names))]  # this one is 1 ahead
    notes = (
        line.margin is None and f"no interval: {line.reason}",
        least_cents and "not below the MRR of contracts whose next bill is not known",
        survival.reason,
    )
    return MonthlyForecast(
        method="orders_survival" if survival.curve else "orders",
        months=[
            _expected_orders(line, *month, least_cents)
            for month in zip(months_ahead, month_weights, chances, strict=True)
        ],
        annual_margin=line.margin_for(sum(month_weights[:YEAR], Fraction(0))),
        factors=factors,
        reasons=[note for note in notes if note],
    )


def _no_forecast_reason(
    facts: Facts, full: Sequence[Month], line: TrendLine | None, survival: Survival
) -> str | None:
    """Why orders give no forecast, if they give none."""
    if not full:
        return "no full month since the first order" if facts.orders else "no order"
    if survival.state and survival.state.stratum == ENDED and survival.curve is None:
        return f"the contract has ended, and whether they come back is not known ({survival.reason})"
    if len(full) < YEAR and line and not line.mean:
        return "no order since the first day, so how often they come is not known"
    return None


def _rounded(value: Fraction) -> float:
    return round(float(value), 4)


def _expected_orders(
    line: TrendLine, month: Fraction, weight: Fraction, chance: Estimate | None, least_cents: int
) -> Estimate | None:
    if chance is None:
        return None
    value = max(float(line.at(month) * weight), least_cents) * chance.value
    margin = line.margin_for(weight)
    return Estimate(value) if margin is None else Estimate(value, max(value - margin, 0), value + margin)


def _frequency_factor(window: Sequence[Month], reason: str | None) -> FrequencyFactor:
    orders, revenue = sum(month.orders for month in window), sum(month.cents for month in window)
    return FrequencyFactor(
        orders_per_month=round(orders / len(window), 4) if window else None,
        avg_order_value_cents=round_half_away(revenue, orders) if orders else None,
        months=len(window),
        reason=reason,
    )
