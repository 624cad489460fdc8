"""What a customer is expected to pay, by whole months from the one after today's.

Where a contract has a dated bill, its bills are rolled on, and each counts times the probability that the
customer is still there on its day. An order does not say which contract it is of: nothing beside the bills
is expected of such a customer. Of all others is expected what they ordered a month, by trend and season,
times the probability that they have not gone for good by its end. Beyond what is known of that, nothing is
said. What may be refunded is not deducted.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

from msgspec import Struct

from service.books.view import View
from service.core.cadence import ONCE, add_months
from service.core.money import round_fraction, round_half_away
from service.predictions.model import (
    ALL,
    ENDED,
    LIFETIME_DAYS,
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
from service.reads.customers.customer import Customer, dated_bills, facts, header, live_contracts, model
from service.reads.customers.trend import (
    YEAR,
    Line,
    Month,
    damped,
    full_months,
    least_squares,
    seasons,
    weights,
)
from service.reads.months import month_bounds, months_between

_NARROWER = 1.2815515655446004 / 1.959963984540054  # normal quantiles: an 80 % interval from a 95 % one
_YEAR_DAYS = 400  # the next twelve whole months end before


class Survival(Struct, frozen=True, kw_only=True):
    """The curve by which a customer in state `at` is still there; without one, `reason` says why.

    `later`, at a gap, is the curve of the gaps after the next order.
    """

    at: State | None = None
    curve: Curve | None = None
    later: Curve | None = None
    reason: str | None = None

    @property
    def reach(self) -> int:
        """How many days ahead something is known: gaps follow each other, a contract's life is one."""
        if self.curve is None or self.at is None:
            return 0
        return LIFETIME_DAYS if self.later else self.curve.end - self.at.age

    def after(self, days: int) -> Estimate | None:
        """P(still there in so many days): under contract, or to order again later. None beyond what is known.

        Without a curve it is 1: what is scheduled then counts as it is. The interval, of a contract only, is
        one of 80 %.
        """
        if self.curve is None or self.at is None:
            return Estimate(1)
        if days > self.reach:
            return None
        if self.later:
            return Estimate(later_order_probability(self.curve, self.later, self.at.age, days))
        return narrowed(survival_probability(self.curve, self.at.age, days))


class Course(Struct, frozen=True, kw_only=True):
    """What is expected of each month, in minor units; `off` is how far twelve together may be off."""

    method: str | None
    months: list[Estimate | None]
    off: float | None = None
    factors: dict[str, Any]
    reasons: list[str]


def forecast(view: View, customer: Customer, months: int) -> dict[str, Any]:
    """What a customer is expected to pay in the next `months` whole months."""
    return {**header(view, customer), **expected(customer, view.scope.today, months, model(view))}


def expected(customer: Customer, today: date, months: int, learnt: Model | None) -> dict[str, Any]:
    """The forecast without its header. Contracts are those of now, whatever `today` is: see `_moved_on`."""
    known = facts(customer, today)
    names = months_between(add_months(today, 1, 1), add_months(today, months, 1))
    dated = any(row.next_bill_date for row in customer.contracts)
    is_billed = dated or known.ends_date is not None  # with no bill before its end, nothing is to come
    outlook = (_by_contracts if is_billed else _by_orders)(customer, known, names, still_there(known, learnt))
    pairs = zip(names, outlook.months, strict=True)
    rows = [_month(name, found, is_billed=is_billed) for name, found in pairs]
    return {
        "months": months,
        "monthly": rows,
        "annual": _annual(rows[:YEAR], outlook.off) if months >= YEAR else None,
        "factors": outlook.factors,
        "method": outlook.method,
        "reason": "; ".join(outlook.reasons) or None,
    }


def _month(name: str, found: Estimate | None, *, is_billed: bool) -> dict[str, Any]:
    cents, low, high = map(_cents, (found.value, found.low, found.high) if found else (None, None, None))
    return {
        "month": name,
        "expected_cents": cents,
        "low_cents": low,
        "high_cents": high,
        "contract_cents": cents if is_billed else 0,
        "other_cents": 0 if is_billed else cents,
    }


def _annual(rows: Sequence[dict[str, Any]], off: float | None) -> dict[str, int | None]:
    """Twelve months together. The bounds of bills add up: one curve is behind all of them."""
    cents, low, high = (
        _added([row[name] for row in rows]) for name in ("expected_cents", "low_cents", "high_cents")
    )
    if cents is not None and off is not None:
        low, high = max(cents - round_fraction(Fraction(off)), 0), cents + round_fraction(Fraction(off))
    return {"expected_cents": cents, "low_cents": low, "high_cents": high}


def _added(amounts: Sequence[int | None]) -> int | None:
    known = [cents for cents in amounts if cents is not None]
    return sum(known) if len(known) == len(amounts) else None


def _cents(amount: float | None) -> int | None:
    return None if amount is None else round_fraction(Fraction(amount))


def _bounds(month: str) -> tuple[str, str]:
    return month_bounds(int(month[:4]), int(month[5:]))


def _days_to(day: str, today: int) -> int:
    return date.fromisoformat(day).toordinal() - today


# Survival


def still_there(known: Facts, learnt: Model | None) -> Survival:
    """A customer's curve: one that reaches a year ahead if there is one, however many months are asked."""
    at = state_of(known)
    if learnt is None:
        return Survival(at=at, reason="no survival is known of this day (yet)")
    if at is None:
        return Survival(reason="no order and no live contract to tell survival by")
    found = [choose_curve(learnt, at, ahead) for ahead in (_YEAR_DAYS, learnt.horizon_days, 1)]
    best = next((one for one in found if one.curve), found[-1])
    later = later_gap_curve(learnt, at) if at.kind == "gap" else None
    if at.kind == "gap" and best.curve and later is None:
        return Survival(at=at, reason=learnt.reasons.get("gap", {}).get(ALL) or shortage_reason(ALL, 0, 0))
    return Survival(at=at, curve=best.curve, later=later, reason=best.reason)


def narrowed(chance: Estimate) -> Estimate:
    """The 80 % interval in place of the 95 % one: both have their width on the scale of log(-log).

    Where nobody left, or everybody did, Greenwood's variance is 0 and the value its own bounds.
    """
    if chance.low is None or chance.high is None:
        return Estimate(chance.value, chance.value, chance.value)
    if chance.low <= 0 or chance.high >= 1:
        return chance
    power = (math.log(chance.low) / math.log(chance.value)) ** _NARROWER
    return Estimate(chance.value, chance.value**power, chance.value ** (1 / power))


def _survival(there: Survival, today: int, names: Sequence[str]) -> dict[str, Any]:
    """The factor: by the last day of each month, null where it is not known."""
    kind = there.at.kind if there.at and there.curve else None
    ahead = [_days_to(_bounds(name)[1], today) for name in names]
    found = [there.after(days) for days in ahead]
    is_short = kind is not None and ahead[-1] > there.reach
    short = f"survival is known for {there.reach} days: nothing is said beyond" if is_short else None
    return {
        "kind": kind,
        "by_month": [chance and round(chance.value, 4) for chance in found] if kind else None,
        "reason": "; ".join(filter(None, (there.reason, short))) or None,
    }


# Contracts


def _by_contracts(customer: Customer, known: Facts, names: Sequence[str], there: Survival) -> Course:
    """Bills times survival; as they are scheduled where it is not known."""
    if there.at and there.at.kind == "gap":
        there = Survival(reason="no contract counts in MRR (yet) to tell survival by")
    bills = scheduled(customer.contracts, names)
    moved_on = _moved_on(customer.contracts, date.fromordinal(known.today).isoformat())
    until = max((before[:7] for before, _ in moved_on.values()), default="")
    survived = _survival(there, known.today, names)
    unused = "not used: a contract's bills are dated"
    return Course(
        method="scheduled_survival" if there.curve else "scheduled",
        months=[_weighed(bills[name], known.today, there) if name > until else None for name in names],
        factors={
            "frequency": _frequency([], unused),
            "trend": {"cents_per_month": None, "reason": unused},
            "seasonality": {"indices": None, "reason": unused},
            "survival": survived,
        },
        reasons=[
            *_left_out(customer, known),
            *(f"{name}: which bills came before {day} is not known" for name, (_, day) in moved_on.items()),
            *filter(None, [survived["reason"]]),
        ],
    )


def scheduled(contracts: Iterable[Any], names: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """The bills of these months, [(day, minor units), …] by month."""
    bills: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for day, cents in dated_bills(contracts, _bounds(names[0])[0], _bounds(names[-1])[1]):
        bills[day[:7]].append((day, cents))
    return bills


def _moved_on(contracts: Iterable[Any], today: str) -> dict[str, tuple[str, str]]:
    """Contracts that have billed since `today`, by id: their last bill before the next one, and that one.

    Their next bill is that of now: which bills came before is not told by it.
    """
    dated = [row for row in contracts if row.next_bill_date and row.interval != ONCE and not _is_trial(row)]
    before = {row.contract_id: (_bill_before(row), row.next_bill_date) for row in dated}
    return {name: days for name, days in before.items() if days[0] > today}


def _bill_before(row: Any) -> str:
    day, days = date.fromisoformat(row.next_bill_date), {"day": 1, "week": 7}.get(row.interval)
    if days:
        return (day - timedelta(days=days * row.every)).isoformat()
    months = row.every * (YEAR if row.interval == "year" else 1)
    return add_months(day, -months, row.anchor_day or day.day).isoformat()


def _is_trial(row: Any) -> bool:
    return bool(row.status == "trialing")


def _weighed(bills: Sequence[tuple[str, int]], today: int, there: Survival) -> Estimate | None:
    found = [(there.after(_days_to(day, today)), cents) for day, cents in bills]
    chances = [(chance, cents) for chance, cents in found if chance]
    if len(chances) < len(found):
        return None
    value = sum(chance.value * cents for chance, cents in chances)
    if any(chance.low is None or chance.high is None for chance, _ in chances):
        return Estimate(value)
    low, high = (sum(getattr(chance, name) * cents for chance, cents in chances) for name in ("low", "high"))
    return Estimate(value, low, high)


def _left_out(customer: Customer, known: Facts) -> list[str]:
    """Why a contract counts nothing, or may not bring what it counts."""
    live = live_contracts(customer, date.fromordinal(known.today).isoformat())
    undated = [row.contract_id for row in live if not row.next_bill_date and not row.ends_date]
    trials = [row.contract_id for row in customer.contracts if row.next_bill_date and _is_trial(row)]
    unread = [row.contract_id for row in customer.contracts if row.next_bill_date and row.unpriced]
    return [
        *(f"{name}: no next bill is known, nothing is expected of it" for name in undated),
        *(f"{name}: a trial, which may never pay" for name in trials),
        *(f"{name}: a price or discount can't be read" for name in unread),
    ]


# Orders


def _by_orders(customer: Customer, known: Facts, names: Sequence[str], there: Survival) -> Course:
    """Orders of the last year, line and season, times the probability of not having gone for good."""
    months = full_months(customer.orders, date.fromordinal(known.today))
    window = months[-YEAR:]
    indices, unseasonal = seasons(months)
    line = least_squares(
        [month.cents for month in window], weights([month.name for month in window], indices)
    )
    survived = _survival(there, known.today, names)
    unknown = _unknown(known, window, there)
    factors = {
        "frequency": _frequency(window, None if window else unknown),
        "trend": {
            "cents_per_month": None if line is None or line.slope is None else _rounded(line.slope),
            "reason": line.reason if line else unknown,
        },
        "seasonality": {
            "indices": {month: _rounded(index) for month, index in indices.items()} if indices else None,
            "reason": unseasonal,
        },
        "survival": survived,
    }
    if line is None or unknown:
        return Course(method=None, months=[None] * len(names), factors=factors, reasons=[str(unknown)])
    each = weights(names, indices)
    chances = [there.after(_days_to(_bounds(name)[1], known.today)) for name in names]
    ahead = [len(window) - 1 + damped(n + 2) for n in range(len(names))]  # this month is 1 ahead
    short = None if line.off is not None else f"no interval: {line.reason}"
    return Course(
        method="orders_survival" if there.curve else "orders",
        months=[_ordered(line, *month) for month in zip(ahead, each, chances, strict=True)],
        off=line.spread(sum(each[:YEAR], Fraction(0))),
        factors=factors,
        reasons=[*filter(None, (short, survived["reason"]))],
    )


def _unknown(known: Facts, window: Sequence[Month], there: Survival) -> str | None:
    """Why orders say nothing of what is to come, if they don't."""
    if not window:
        return "no full month since the first order" if known.orders else "no order"
    if there.at and there.at.stratum == ENDED and there.curve is None:
        return f"the contract has ended, and whether they come back is not known ({there.reason})"
    return None


def _rounded(value: Fraction) -> float:
    return round(float(value), 4)


def _ordered(line: Line, month: Fraction, weight: Fraction, chance: Estimate | None) -> Estimate | None:
    if chance is None:
        return None
    value = float(line.at(month) * weight) * chance.value
    off = line.spread(weight)
    return Estimate(value) if off is None else Estimate(value, max(value - off, 0), value + off)


def _frequency(window: Sequence[Month], reason: str | None) -> dict[str, Any]:
    orders, cents = sum(month.orders for month in window), sum(month.cents for month in window)
    return {
        "orders_per_month": round(orders / len(window), 4) if window else None,
        "avg_order_value_cents": round_half_away(cents, orders) if orders else None,
        "months": len(window),
        "reason": reason,
    }
