"""Fitting: a history of purchases and contracts to survival curves; vectorised, and only for the worker."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from service.predictions.model import (
    ALL,
    ENDED,
    HORIZON_DAYS,
    LIFETIME_DAYS,
    MIN_EVENTS,
    MIN_SPELLS,
    NEW_DAYS,
    ONE_ORDER,
    PERIOD_BOUNDS,
    PERIODS,
    RHYTHMS,
    SLOWEST,
    STEP_DAYS,
    Curve,
    Kind,
    Model,
    needed,
    period_stratum,
)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MIN_AT_RISK = 10  # a curve ends where fewer are followed: there, one more event is a leap
NOBODY = 1e-6  # survival so small is none: nothing is divided by it
STRATA = (ONE_ORDER, *(name for name, _ in RHYTHMS), SLOWEST, ENDED, ALL)  # an array holds the index of one
_ENDED = STRATA.index(ENDED)
_OF_PERIOD = np.array([STRATA.index(period_stratum(months)) for months in PERIODS])
_NEVER = -1
_DAYS = 1 << 22  # more than any day's ordinal: a customer and a day make one sortable number


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
        """What was known at the close of `day`."""
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


def history(
    n: int, orders: Iterable[tuple[int, int, int]], movements: Iterable[tuple[int, int, int]]
) -> History:
    """A `History` of (customer, day, amount) and (customer, day, closing) in any order."""
    bought = np.array(sorted(orders), dtype=np.int64).reshape(-1, 3).T
    moved = np.array(sorted(movements), dtype=np.int64).reshape(-1, 3).T
    return History(
        n=n,
        order_customer=bought[0],
        order_day=bought[1],
        order_amount=bought[2],
        move_customer=moved[0],
        move_day=moved[1],
        move_closing=moved[2],
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
        """Who has a live contract: the kind `tenure`; of the others, who has ordered is of the kind `gap`."""
        return self.mrr > 0


def states(known: History, day: int) -> States:
    """Each customer's state at the close of `day`, by the rules of `model.state`."""
    known = known.as_of(day)
    orders = np.bincount(known.order_customer, minlength=known.n).astype(np.int64)
    first, last, tenure, ended, period = (np.full(known.n, _NEVER) for _ in range(5))
    first[known.order_customer[::-1]] = known.order_day[::-1]
    last[known.order_customer] = known.order_day
    revenue, mrr = np.zeros(known.n, dtype=np.int64), np.zeros(known.n, dtype=np.int64)
    np.add.at(revenue, known.order_customer, known.order_amount)
    mrr[known.move_customer] = known.move_closing
    rose, fell = _turns(known)
    tenure[known.move_customer[rose]] = known.move_day[rose]
    ended[known.move_customer[fell]] = known.move_day[fell]
    live = mrr > 0
    stratum = _strata(orders, first, last)
    stratum[~live & (ended >= last)] = _ENDED
    age = day - np.where(live, tenure, np.maximum(last, ended))
    stratum[live & (orders < 2) & (age <= NEW_DAYS)] = STRATA.index(ALL)
    period[known.order_customer] = _periods(known)
    period[~live | (last < tenure)] = _NEVER
    stratum = np.where(period == _NEVER, stratum, _OF_PERIOD[period])
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


def fit(known: History, day: int, horizon_days: int = HORIZON_DAYS) -> Model:
    """The model of what was known at the close of `day`."""
    known = known.as_of(day)
    reasons: dict[str, dict[str, str]] = {"tenure": {}, "gap": {}}
    return Model(
        day=day,
        horizon_days=horizon_days,
        tenure=_curves(tenures(known, day), "tenure", reasons["tenure"]),
        gap=_curves(gaps(known, day), "gap", reasons["gap"]),
        reasons=reasons,
    )


class Spells(Struct, frozen=True, kw_only=True):
    """Stretches of time within one stratum, followed from age `entry` (exclusive) to `exit`.

    There comes the `event`, or nothing more is known. `spell` numbers the whole that a stretch is part of.
    """

    spell: Ints
    stratum: Ints
    entry: Ints
    exit: Ints
    event: Bools


def tenures(known: History, day: int) -> Spells:
    """Contracts' lives, cut at each purchase, since that is when a customer's stratum may change.

    A customer enters a stratum's curve at the age of being found in it: at once where the first bill tells
    the period. To count a whole life under the stratum that it ended in would show the early lost as "One
    order", and make all others immortal so long.
    """
    rose, fell = _turns(known)
    customer, begin = known.move_customer[rose], known.move_day[rose]
    ends = np.append(known.move_customer[fell] * _DAYS + known.move_day[fell], np.iinfo(np.int64).max)
    end_at = ends[np.searchsorted(ends, customer * _DAYS + begin)]
    event = end_at // _DAYS == customer
    end = np.where(event, end_at % _DAYS, day)

    starts = customer * _DAYS + begin
    order_keys = known.order_customer * _DAYS + known.order_day
    last_of_day = np.append(order_keys[1:] != order_keys[:-1], True)[: len(order_keys)]
    bought = np.flatnonzero(last_of_day)
    spell = np.searchsorted(starts, order_keys[bought], side="left") - 1  # the spell begun before that day
    within = spell >= 0
    within &= customer[spell] == known.order_customer[bought] if len(customer) else False
    within[within] &= known.order_day[bought[within]] < end[spell[within]]
    bought, spell = bought[within], spell[within]

    number = np.arange(len(customer))
    order = np.concatenate([np.searchsorted(order_keys, starts, side="right") - 1, bought])
    spell = np.concatenate([number, spell])
    orders, first, last = _orders_at(known, order, customer[spell])
    entry = np.where(np.arange(len(spell)) < len(number), 0, last - begin[spell])
    of = np.where((orders > 0) & (last >= begin[spell]), np.append(_periods(known), _NEVER)[order], _NEVER)
    stratum = np.where(of == _NEVER, _strata(orders, first, last), _OF_PERIOD[of])
    return _merged(spell, stratum, entry, end - begin, event)


def gaps(known: History, day: int) -> Spells:
    """Times between purchases of customers without a live contract.

    A gap begins with a purchase, or with the end of a contract, and ends with the next purchase or contract.
    Its stratum is the one at its beginning: of a customer who is in a gap now, no more is known.
    """
    rose, fell = _turns(known)
    moves = known.move_customer * _DAYS + known.move_day
    order_keys = known.order_customer * _DAYS + known.order_day
    points = np.unique(np.concatenate([order_keys, moves[rose], moves[fell]]))
    customer, when = points // _DAYS, points % _DAYS
    orders, first, last = _orders_at(known, np.searchsorted(order_keys, points, side="right") - 1, customer)
    move = np.searchsorted(moves, points, side="right") - 1
    moved = move >= 0
    moved[moved] = known.move_customer[move[moved]] == customer[moved]
    live = np.zeros(len(points), dtype=bool)
    live[moved] = known.move_closing[move[moved]] > 0
    stratum = _strata(orders, first, last)
    stratum[np.isin(points, moves[fell])] = _ENDED

    again = np.append(customer[1:] == customer[:-1], False)[: len(points)]
    until = np.where(again, np.append(when[1:], day)[: len(points)], day)
    quiet = ~live & (orders > 0) & (until > when)
    return Spells(
        spell=np.flatnonzero(quiet),
        stratum=stratum[quiet],
        entry=np.zeros(int(quiet.sum()), dtype=np.int64),
        exit=(until - when)[quiet],
        event=again[quiet],
    )


def _turns(known: History) -> tuple[Bools, Bools]:
    """Which movements raise MRR from 0, and which bring it down to 0."""
    same = np.append(False, known.move_customer[1:] == known.move_customer[:-1])[: len(known.move_customer)]
    before = np.where(same, np.append(0, known.move_closing[:-1])[: len(known.move_closing)], 0)
    return (before <= 0) & (known.move_closing > 0), (before > 0) & (known.move_closing <= 0)


def _periods(known: History) -> Ints:
    """`model.period` of each order's day, as an index of `PERIODS`; -1 where it is not known."""
    keys = known.order_customer * _DAYS + known.order_day
    day = np.cumsum(np.append(False, keys[1:] != keys[:-1])[: len(keys)])
    amount = np.zeros(len(keys), dtype=np.int64)
    np.add.at(amount, day, known.order_amount)
    move = np.searchsorted(known.move_customer * _DAYS + known.move_day, keys, side="right") - 1
    has = move >= 0
    has[has] = known.move_customer[move[has]] == known.order_customer[has]
    mrr = np.zeros(len(keys), dtype=np.int64)
    mrr[has] = known.move_closing[move[has]]
    found = np.searchsorted(PERIOD_BOUNDS, amount[day] / np.maximum(mrr, 1), side="right") - 1
    return np.where((mrr > 0) & (found < len(PERIODS)), found, _NEVER)


def _orders_at(known: History, order: Ints, customer: Ints) -> tuple[Ints, Ints, Ints]:
    """Orders so far, first and last day as of an order's index; zeros where that is not the customer's."""
    begins = np.searchsorted(known.order_customer, customer)
    has = order >= begins
    order, begins = order[has], begins[has]
    counts, first, last = (np.zeros(len(customer), dtype=np.int64) for _ in range(3))
    counts[has] = order - begins + 1
    first[has], last[has] = known.order_day[begins], known.order_day[order]
    return counts, first, last


def _strata(orders: Ints, first: Ints, last: Ints) -> Ints:
    """`model.stratum` of arrays, as indexes of `STRATA`."""
    stratum = np.full(len(orders), STRATA.index(SLOWEST))
    for name, bound in reversed(RHYTHMS):
        stratum[last - first <= bound * (orders - 1)] = STRATA.index(name)
    stratum[orders < 2] = STRATA.index(ONE_ORDER)
    return stratum


def _merged(spell: Ints, stratum: Ints, entry: Ints, exits: Ints, event: Bools) -> Spells:
    """Stretches of spells, with neighbours of one stratum made one; only a spell's last has its event."""
    order = np.lexsort((entry, spell))
    spell, stratum, entry = spell[order], stratum[order], entry[order]
    changes = np.append(True, (spell[1:] != spell[:-1]) | (stratum[1:] != stratum[:-1]))[: len(spell)]
    spell, stratum, entry = spell[changes], stratum[changes], entry[changes]
    last = np.append(spell[1:] != spell[:-1], True)[: len(spell)]
    until = np.where(last, exits[spell], np.append(entry[1:], 0)[: len(spell)])
    followed = until > entry
    return Spells(
        spell=spell[followed],
        stratum=stratum[followed],
        entry=entry[followed],
        exit=until[followed],
        event=(last & event[spell])[followed],
    )


def _curves(spells: Spells, kind: Kind, reasons: dict[str, str]) -> dict[str, Curve]:
    """A curve for each stratum and for all, as far as there is enough; `reasons` is told what is missing."""
    curves: dict[str, Curve] = {}
    for number, name in enumerate(STRATA):
        chosen = spells.stratum == number if name != ALL else np.ones(len(spells.stratum), dtype=bool)
        n, events = len(np.unique(spells.spell[chosen])), int(spells.event[chosen].sum())
        if n < MIN_SPELLS or events < MIN_EVENTS:
            reasons[name] = needed(name, n, events)
            continue
        curve = _curve(spells.entry[chosen], spells.exit[chosen], spells.event[chosen], n, kind)
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
