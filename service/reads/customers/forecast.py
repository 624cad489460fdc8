"""What a customer is expected to pay, by whole months from the one after today's.

Where a contract has a dated bill, its bills are rolled on, and each counts times the probability that the
customer is still there on its day. An order does not say which contract it is of: nothing beside the bills
is expected of such a customer. Of all others is expected what they ordered a month, by trend and season,
times the probability that they order again. What may be refunded is not deducted.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from fractions import Fraction
from itertools import takewhile
from typing import Any

from msgspec import Struct, json

from projections.bills import amount_on, roll
from service.core.cadence import add_months
from service.core.money import round_fraction, round_half_away
from service.predictions.model import (
    ENDED,
    LIFETIME_DAYS,
    Curve,
    Estimate,
    Facts,
    Model,
    State,
    source,
    state,
    survival,
)
from service.reads.customers.customer import Customer, facts, header, live_contracts, model
from service.reads.customers.trend import YEAR, Line, Month, damped, fit, full_months, seasons, weights
from service.reads.months import month_bounds, months_between
from service.reads.view import View

_NARROWER = 1.2815515655446004 / 1.959963984540054  # normal quantiles: an 80 % interval from a 95 % one
_YEAR_DAYS = 400  # the next twelve whole months end before


class Survival(Struct, frozen=True, kw_only=True):
    """The curve by which a customer in state `at` is still there; without one, `reason` says why."""

    at: State | None = None
    curve: Curve | None = None
    reason: str | None = None

    @property
    def reach(self) -> int:
        """How many days ahead the curve says something."""
        return self.curve.end - self.at.age if self.curve and self.at else 0

    def after(self, days: int) -> Estimate | None:
        """P(still there in so many days), its last known value later on; at a gap, P(orders again).

        The interval is one of 80 %, and there is none beyond what is known.
        """
        if self.curve is None or self.at is None:
            return None
        if self.at.kind == "gap":
            return Estimate(1 - survival(self.curve, self.at.age, min(self.reach, LIFETIME_DAYS)).value)
        if days > self.reach:
            return Estimate(survival(self.curve, self.at.age, self.reach).value)
        return narrowed(survival(self.curve, self.at.age, days))


class Outlook(Struct, frozen=True, kw_only=True):
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
    """The forecast without its header. Contracts are those of now, whatever `today` is."""
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
    at = state(known)
    if learnt is None:
        return Survival(at=at, reason="no survival is known of this day (yet)")
    if at is None:
        return Survival(reason="no order and no live contract to tell survival by")
    found = [source(learnt, at, ahead) for ahead in (_YEAR_DAYS, learnt.horizon_days, 1)]
    best = next((one for one in found if one.curve), found[-1])
    return Survival(at=at, curve=best.curve, reason=best.reason)


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
    found = [there.after(days) if kind == "gap" or days <= there.reach else None for days in ahead]
    is_short = kind == "tenure" and ahead[-1] > there.reach
    held = f"known for {there.reach} days; from there on the last value holds" if is_short else None
    return {
        "kind": kind,
        "by_month": [chance and round(chance.value, 4) for chance in found] if kind else None,
        "reason": "; ".join(filter(None, (there.reason, held))) or None,
    }


# Contracts


def _by_contracts(customer: Customer, known: Facts, names: Sequence[str], there: Survival) -> Outlook:
    """Bills times survival; as they are scheduled where it is not known."""
    if there.at and there.at.kind == "gap":
        there = Survival(reason="no contract counts in MRR (yet) to tell survival by")
    bills = scheduled(customer.contracts, names)
    survived = _survival(there, known.today, names)
    unused = "not used: a contract's bills are dated"
    return Outlook(
        method="scheduled_survival" if there.curve else "scheduled",
        months=[_weighed(bills[name], known.today, there) for name in names],
        factors={
            "frequency": _frequency([], unused),
            "trend": {"cents_per_month": None, "reason": unused},
            "seasonality": {"indices": None, "reason": unused},
            "survival": survived,
        },
        reasons=[*_left_out(customer, known), *filter(None, [survived["reason"]])],
    )


def scheduled(contracts: Iterable[Any], names: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """The bills of these months, [(day, minor units), …] by month: each dated bill rolled on."""
    bills: dict[str, list[tuple[str, int]]] = defaultdict(list)
    first, last = _bounds(names[0])[0], _bounds(names[-1])[1]
    for row in contracts:
        if row.next_bill_date:
            amounts = json.decode(row.amounts)
            rule = row.next_bill_date, row.interval, row.every, row.anchor_day, row.ends_date
            for day in takewhile(lambda day: day <= last, roll(*rule, since=first)):
                if day >= first:
                    bills[day[:7]].append((day, amount_on(amounts, day)))
    return bills


def _weighed(bills: Sequence[tuple[str, int]], today: int, there: Survival) -> Estimate:
    chances = [(there.after(_days_to(day, today)) or Estimate(1), cents) for day, cents in bills]
    value = sum(chance.value * cents for chance, cents in chances)
    if any(chance.low is None or chance.high is None for chance, _ in chances):
        return Estimate(value)
    low, high = (sum(getattr(chance, name) * cents for chance, cents in chances) for name in ("low", "high"))
    return Estimate(value, low, high)


def _left_out(customer: Customer, known: Facts) -> list[str]:
    """Why a contract counts nothing, or not what it should."""
    live = live_contracts(customer, date.fromordinal(known.today).isoformat())
    undated = [row.contract_id for row in live if not row.next_bill_date and not row.ends_date]
    unread = [row.contract_id for row in customer.contracts if row.next_bill_date and row.unpriced]
    return [
        *(f"{name}: no next bill is known, nothing is expected of it" for name in undated),
        *(f"{name}: a price or discount can't be read" for name in unread),
    ]


# Orders


def _by_orders(customer: Customer, known: Facts, names: Sequence[str], there: Survival) -> Outlook:
    """Orders of the last year, line and season, times the probability of another order."""
    months = full_months(customer.orders, date.fromordinal(known.today))
    window = months[-YEAR:]
    indices, unseasonal = seasons(months)
    line = fit([month.cents for month in window], weights([month.name for month in window], indices))
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
        return Outlook(method=None, months=[None] * len(names), factors=factors, reasons=[str(unknown)])
    each = weights(names, indices)
    chances = [there.after(_days_to(_bounds(name)[1], known.today)) for name in names]
    ahead = [len(window) - 1 + damped(n + 2) for n in range(len(names))]  # this month is 1 ahead
    short = None if line.off is not None else f"no interval: {line.reason}"
    return Outlook(
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


def _ordered(line: Line, month: Fraction, weight: Fraction, chance: Estimate | None) -> Estimate:
    value = float(line.at(month) * weight) * (chance.value if chance else 1)
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
