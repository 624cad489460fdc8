"""Fits survival curves to a history of purchases and contracts. Vectorised; runs in the worker only."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from service.predictions.model import (
    ALL,
    ENDED,
    FREQUENCY_BOUNDS,
    HORIZON_DAYS,
    LEAST_FREQUENT,
    LIFETIME_DAYS,
    MIN_EVENTS,
    MIN_SPELLS,
    NEW_DAYS,
    ONE_ORDER,
    PERIOD_BOUNDS,
    PERIODS,
    STEP_DAYS,
    Curve,
    Kind,
    Model,
    shortage_reason,
    stratum_of_period,
)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MIN_AT_RISK = 10  # a curve ends where fewer spells are observed: one more event would be a leap
NOBODY = 1e-6  # smaller survival counts as none: nothing is divided by it
# Arrays hold a stratum as its index here.
STRATA = (ONE_ORDER, *(name for name, _ in FREQUENCY_BOUNDS), LEAST_FREQUENT, ENDED, ALL)
_ENDED_INDEX = STRATA.index(ENDED)
_STRATUM_OF_PERIOD = np.array([STRATA.index(stratum_of_period(months)) for months in PERIODS])
_UNKNOWN = -1
_DAY_RANGE = 1 << 22  # more than any day's ordinal: a customer and a day make one sortable number


class History(Struct, frozen=True, kw_only=True):
    """Purchases and MRR movements in one currency, each sorted by customer (0 to n - 1), then day.

    `amount` and `closing` (the MRR at the end of that day) are minor units, days are ordinals. A day of a
    customer has one movement at most, and any number of orders.
    """

    n: int
    order_customer: Ints
    order_day: Ints
    order_amount: Ints
    move_customer: Ints
    move_day: Ints
    move_closing: Ints

    def as_of(self, day: int) -> "History":
        """The history as known at the close of `day`."""
        orders, moves = self.order_day <= day, self.move_day <= day
        return History(
            n=self.n,
            order_customer=self.order_customer[orders],
            order_day=self.order_day[orders],
            order_amount=self.order_amount[orders],
            move_customer=self.move_customer[moves],
            move_day=self.move_day[moves],
            move_closing=self.move_closing[moves],
        )

    def of_customers(self, customers: Sequence[int]) -> "History":
        """The history of some customers, given in ascending order; they are numbered anew."""
        number = np.full(self.n, _UNKNOWN)
        number[list(customers)] = np.arange(len(customers))
        orders, moves = number[self.order_customer] >= 0, number[self.move_customer] >= 0
        return History(
            n=len(customers),
            order_customer=number[self.order_customer[orders]],
            order_day=self.order_day[orders],
            order_amount=self.order_amount[orders],
            move_customer=number[self.move_customer[moves]],
            move_day=self.move_day[moves],
            move_closing=self.move_closing[moves],
        )


def build_history(
    n: int, orders: Iterable[tuple[int, int, int]], movements: Iterable[tuple[int, int, int]]
) -> History:
    """The history of (customer, day, amount) and (customer, day, closing MRR), given in any order."""
    orders_sorted = np.array(sorted(orders), dtype=np.int64).reshape(-1, 3).T
    movements_sorted = np.array(sorted(movements), dtype=np.int64).reshape(-1, 3).T
    return History(
        n=n,
        order_customer=orders_sorted[0],
        order_day=orders_sorted[1],
        order_amount=orders_sorted[2],
        move_customer=movements_sorted[0],
        move_day=movements_sorted[1],
        move_closing=movements_sorted[2],
    )


class States(Struct, frozen=True, kw_only=True):
    """Every customer at the close of a day: arrays of length n. Days are -1 where there is none.

    `period` is the index in `PERIODS` of a live contract's billing period, -1 where it is not known.
    """

    orders: Ints
    first_day: Ints
    last_day: Ints
    revenue: Ints
    mrr: Ints
    tenure_day: Ints
    ended_day: Ints
    period: Ints
    stratum: Ints
    age: Ints

    @property
    def live(self) -> Bools:
        """Who has a live contract: the kind `tenure`. Everybody else with an order is of the kind `gap`."""
        return self.mrr > 0


def states_at(history: History, day: int) -> States:
    """Each customer's state at the close of `day`, by the rules of `model.state_of`."""
    history = history.as_of(day)
    orders = np.bincount(history.order_customer, minlength=history.n).astype(np.int64)
    first, last, tenure, ended, period = (np.full(history.n, _UNKNOWN) for _ in range(5))
    first[history.order_customer[::-1]] = history.order_day[::-1]
    last[history.order_customer] = history.order_day
    revenue, mrr = np.zeros(history.n, dtype=np.int64), np.zeros(history.n, dtype=np.int64)
    np.add.at(revenue, history.order_customer, history.order_amount)
    mrr[history.move_customer] = history.move_closing
    starts, ends = _starts_and_ends(history)
    tenure[history.move_customer[starts]] = history.move_day[starts]
    ended[history.move_customer[ends]] = history.move_day[ends]
    live = mrr > 0
    stratum = _strata_of(orders, first, last)
    stratum[~live & (ended >= last)] = _ENDED_INDEX
    age = day - np.where(live, tenure, np.maximum(last, ended))
    stratum[live & (orders < 2) & (age <= NEW_DAYS)] = STRATA.index(ALL)
    period[history.order_customer] = _period_of_orders(history)
    period[~live | (last < tenure)] = _UNKNOWN
    stratum = np.where(period == _UNKNOWN, stratum, _STRATUM_OF_PERIOD[period])
    return States(
        orders=orders,
        first_day=first,
        last_day=last,
        revenue=revenue,
        mrr=mrr,
        tenure_day=tenure,
        ended_day=ended,
        period=period,
        stratum=stratum,
        age=age,
    )


def fit(history: History, day: int, horizon_days: int = HORIZON_DAYS) -> Model:
    """The model fitted to the history until the close of `day`."""
    history = history.as_of(day)
    reasons: dict[str, dict[str, str]] = {"tenure": {}, "gap": {}}
    return Model(
        day=day,
        horizon_days=horizon_days,
        tenure=_fit_curves(tenure_spells(history, day), "tenure", reasons["tenure"]),
        gap=_fit_curves(gap_spells(history, day), "gap", reasons["gap"]),
        reasons=reasons,
    )


class Spells(Struct, frozen=True, kw_only=True):
    """Stretches of time within one stratum, observed from age `entry` (exclusive) to `exit`.

    At `exit` comes the `event`, or the observation ends without it. `spell` numbers the whole spell that a
    stretch is part of.
    """

    spell: Ints
    stratum: Ints
    entry: Ints
    exit: Ints
    event: Bools


def tenure_spells(history: History, day: int) -> Spells:
    """Contracts' lives, cut at each purchase, since that is when a customer's stratum may change.

    A customer enters a stratum's curve at the age at which the stratum became known: at once where the first
    bill tells the period. Counting the whole life under its last stratum would put all early losses under
    "One order", and make the other strata immortal until then (immortal time bias).
    """
    is_start, is_end = _starts_and_ends(history)
    customer, start_day = history.move_customer[is_start], history.move_day[is_start]
    end_keys = np.append(
        history.move_customer[is_end] * _DAY_RANGE + history.move_day[is_end], np.iinfo(np.int64).max
    )
    end_key = end_keys[np.searchsorted(end_keys, customer * _DAY_RANGE + start_day)]
    ended = end_key // _DAY_RANGE == customer
    end_day = np.where(ended, end_key % _DAY_RANGE, day)

    start_keys = customer * _DAY_RANGE + start_day
    order_keys = history.order_customer * _DAY_RANGE + history.order_day
    last_of_day = np.append(order_keys[1:] != order_keys[:-1], True)[: len(order_keys)]
    orders_index = np.flatnonzero(last_of_day)
    # The spell that began before the day of the order.
    spell = np.searchsorted(start_keys, order_keys[orders_index], side="left") - 1
    is_inside = spell >= 0
    is_inside &= customer[spell] == history.order_customer[orders_index] if len(customer) else False
    is_inside[is_inside] &= history.order_day[orders_index[is_inside]] < end_day[spell[is_inside]]
    orders_index, spell = orders_index[is_inside], spell[is_inside]

    spells = np.arange(len(customer))
    order = np.concatenate([np.searchsorted(order_keys, start_keys, side="right") - 1, orders_index])
    spell = np.concatenate([spells, spell])
    orders, first, last = _orders_until(history, order, customer[spell])
    entry = np.where(np.arange(len(spell)) < len(spells), 0, last - start_day[spell])
    period = np.where(
        (orders > 0) & (last >= start_day[spell]),
        np.append(_period_of_orders(history), _UNKNOWN)[order],
        _UNKNOWN,
    )
    stratum = np.where(period == _UNKNOWN, _strata_of(orders, first, last), _STRATUM_OF_PERIOD[period])
    return _merge_stretches(spell, stratum, entry, end_day - start_day, ended)


def gap_spells(history: History, day: int) -> Spells:
    """Times between purchases of customers without a live contract.

    A gap begins with a purchase, or with the end of a contract, and ends with the next purchase or contract.
    Its stratum is the one at its beginning, since that is all that is known of a customer in a gap now.
    """
    is_start, is_end = _starts_and_ends(history)
    move_keys = history.move_customer * _DAY_RANGE + history.move_day
    order_keys = history.order_customer * _DAY_RANGE + history.order_day
    keys = np.unique(np.concatenate([order_keys, move_keys[is_start], move_keys[is_end]]))
    customer, days = keys // _DAY_RANGE, keys % _DAY_RANGE
    orders, first, last = _orders_until(
        history, np.searchsorted(order_keys, keys, side="right") - 1, customer
    )
    move = np.searchsorted(move_keys, keys, side="right") - 1
    has_move = move >= 0
    has_move[has_move] = history.move_customer[move[has_move]] == customer[has_move]
    live = np.zeros(len(keys), dtype=bool)
    live[has_move] = history.move_closing[move[has_move]] > 0
    stratum = _strata_of(orders, first, last)
    stratum[np.isin(keys, move_keys[is_end])] = _ENDED_INDEX

    is_followed = np.append(customer[1:] == customer[:-1], False)[: len(keys)]
    end_day = np.where(is_followed, np.append(days[1:], day)[: len(keys)], day)
    quiet = ~live & (orders > 0) & (end_day > days)
    return Spells(
        spell=np.flatnonzero(quiet),
        stratum=stratum[quiet],
        entry=np.zeros(int(quiet.sum()), dtype=np.int64),
        exit=(end_day - days)[quiet],
        event=is_followed[quiet],
    )


def _starts_and_ends(history: History) -> tuple[Bools, Bools]:
    """Masks of the movements that raise MRR from 0, and of those that bring it down to 0."""
    customer, closing = history.move_customer, history.move_closing
    is_same_customer = np.append(False, customer[1:] == customer[:-1])[: len(customer)]
    opening = np.where(is_same_customer, np.append(0, closing[:-1])[: len(closing)], 0)
    return (opening <= 0) & (closing > 0), (opening > 0) & (closing <= 0)


def _period_of_orders(history: History) -> Ints:
    """`model.billing_period` of each order's day, as an index of `PERIODS`; -1 where it is not known."""
    keys = history.order_customer * _DAY_RANGE + history.order_day
    day = np.cumsum(np.append(False, keys[1:] != keys[:-1])[: len(keys)])
    amount = np.zeros(len(keys), dtype=np.int64)
    np.add.at(amount, day, history.order_amount)
    move = np.searchsorted(history.move_customer * _DAY_RANGE + history.move_day, keys, side="right") - 1
    has_move = move >= 0
    has_move[has_move] = history.move_customer[move[has_move]] == history.order_customer[has_move]
    mrr = np.zeros(len(keys), dtype=np.int64)
    mrr[has_move] = history.move_closing[move[has_move]]
    period = np.searchsorted(PERIOD_BOUNDS, amount[day] / np.maximum(mrr, 1), side="right") - 1
    return np.where((mrr > 0) & (period < len(PERIODS)), period, _UNKNOWN)


def _orders_until(history: History, order_index: Ints, customer: Ints) -> tuple[Ints, Ints, Ints]:
    """Count, first and last day of orders up to an order's index; zeros where it isn't the customer's."""
    first_index = np.searchsorted(history.order_customer, customer)
    has_order = order_index >= first_index
    order_index, first_index = order_index[has_order], first_index[has_order]
    counts, first, last = (np.zeros(len(customer), dtype=np.int64) for _ in range(3))
    counts[has_order] = order_index - first_index + 1
    first[has_order], last[has_order] = history.order_day[first_index], history.order_day[order_index]
    return counts, first, last


def _strata_of(orders: Ints, first: Ints, last: Ints) -> Ints:
    """`model.stratum_of` for arrays, as indexes of `STRATA`."""
    stratum = np.full(len(orders), STRATA.index(LEAST_FREQUENT))
    for name, bound in reversed(FREQUENCY_BOUNDS):
        stratum[last - first <= bound * (orders - 1)] = STRATA.index(name)
    stratum[orders < 2] = STRATA.index(ONE_ORDER)
    return stratum


def _merge_stretches(spell: Ints, stratum: Ints, entry: Ints, exits: Ints, event: Bools) -> Spells:
    """The stretches with neighbours of one stratum merged; only a spell's last stretch has its event."""
    order = np.lexsort((entry, spell))
    spell, stratum, entry = spell[order], stratum[order], entry[order]
    is_new = np.append(True, (spell[1:] != spell[:-1]) | (stratum[1:] != stratum[:-1]))[: len(spell)]
    spell, stratum, entry = spell[is_new], stratum[is_new], entry[is_new]
    last = np.append(spell[1:] != spell[:-1], True)[: len(spell)]
    exit_age = np.where(last, exits[spell], np.append(entry[1:], 0)[: len(spell)])
    followed = exit_age > entry
    return Spells(
        spell=spell[followed],
        stratum=stratum[followed],
        entry=entry[followed],
        exit=exit_age[followed],
        event=(last & event[spell])[followed],
    )


def _fit_curves(spells: Spells, kind: Kind, reasons: dict[str, str]) -> dict[str, Curve]:
    """A curve for each stratum and for all together. Adds to `reasons` why a curve is missing."""
    curves: dict[str, Curve] = {}
    for number, name in enumerate(STRATA):
        is_chosen = spells.stratum == number if name != ALL else np.ones(len(spells.stratum), dtype=bool)
        n, events = len(np.unique(spells.spell[is_chosen])), int(spells.event[is_chosen].sum())
        if n < MIN_SPELLS or events < MIN_EVENTS:
            reasons[name] = shortage_reason(name, n, events)
            continue
        curve = _curve(spells.entry[is_chosen], spells.exit[is_chosen], spells.event[is_chosen], n, kind)
        if curve:
            curves[name] = curve
        else:
            reasons[name] = f"{name}: fewer than {MIN_EVENTS} events while {MIN_AT_RISK} spells were followed"
    return curves


def survival_table(entry: Ints, exits: Ints, event: Bools) -> tuple[Ints, Ints, Ints]:
    """The ages at which spells enter or leave; the events at each, and the number at risk at each.

    A spell that is followed from an age on can have its event on the next day at the earliest. It is at risk
    up to its exit, that day included.
    """
    first = entry + 1
    age = np.union1d(first, exits)
    events = np.bincount(np.searchsorted(age, exits[event]), minlength=len(age))
    entered = np.searchsorted(np.sort(first), age, side="right")
    left = np.searchsorted(np.sort(exits), age, side="left")
    return age, events, entered - left


def _curve(entry: Ints, exits: Ints, event: Bools, n: int, kind: Kind) -> Curve | None:
    """Kaplan-Meier over the longest stretch of ages at which enough are followed; None if it is too thin.

    Ages at which nobody is followed, as before a late entry, lie outside of that stretch.
    """
    age, died, risk = survival_table(entry, exits, event)
    start, stop = _longest(age, risk >= MIN_AT_RISK)
    if start == stop:
        return None
    left = np.cumprod(1 - died[start:stop] / risk[start:stop], dtype=np.float64)
    # where nobody is left, the curve has nothing to say of those who enter later
    stop = min(stop, start + int((left > NOBODY).sum()) + 1)
    age, died, risk, left = age[start:stop], died[start:stop], risk[start:stop], left[: stop - start]
    steps = died > 0
    variance = np.cumsum(died / (risk * np.maximum(risk - died, 1)))  # not used where survival is 0
    curve = Curve(
        n=n,
        events=int(died.sum()),
        start=int(age[0]) - 1,
        end=int(age[-1]),
        days=_tuple(age[steps]),
        survival=_tuple(left[steps].round(9)),
        greenwood=_tuple(variance[steps].round(12)),
        renewals=_renewals(age, left) if kind == "gap" else (),
    )
    return curve if curve.events >= MIN_EVENTS else None


def _longest(age: Ints, enough: Bools) -> tuple[int, int]:
    """The slice of `age` of most days in which `enough` always holds; the first of several."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], enough.astype(int), [0]])))
    runs = [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
    return max(runs, key=lambda run: int(age[run[1] - 1] - age[run[0]]), default=(0, 0))


def _renewals(age: Ints, left: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """The renewal function m(u) = F(u) + Σ f(v) m(u - v), every 15 days of 36 months."""
    chance = np.zeros(LIFETIME_DAYS + 1)
    within = age <= LIFETIME_DAYS
    chance[age[within]] = -np.diff(left, prepend=1.0)[within]
    reached = np.cumsum(chance)
    orders = np.zeros(LIFETIME_DAYS + 1)
    for day in range(1, LIFETIME_DAYS + 1):
        orders[day] = reached[day] + chance[1 : day + 1] @ orders[day - 1 :: -1]
    return _tuple(orders[::STEP_DAYS].round(6))


def _tuple(values: npt.NDArray[Any]) -> tuple[Any, ...]:
    return tuple(values.tolist())
