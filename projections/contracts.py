"""A contract's life: from its subscription events to what it is worth a month, day by day."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import groupby

from msgspec import Struct

from projections.book import Rules
from service.core import cadence
from service.core.events import DELETED, Discount, Event, Item, Subscription
from service.core.moments import day_of
from service.core.money import round_fraction

COUNTS = frozenset({"active", "past_due"})  # in MRR
BILLING = COUNTS | {"trialing", "unpaid", "incomplete"}  # has a next bill
TERMINAL = frozenset({"canceled", "incomplete_expired"})  # nothing revives it


class State(Struct, frozen=True, kw_only=True):
    """What a contract is from the end of `day` on, until the next state; `event` says so."""

    day: date
    event: Event
    data: Subscription
    ended: bool


class Term(Struct, frozen=True, kw_only=True):
    """What a contract counts in MRR from the end of `day` on. Not `counted`: nothing."""

    day: date
    mrr_cents: int
    counted: bool
    interval: str
    every: int
    event: Event


def states(history: Sequence[Event], rules: Rules) -> list[State]:
    """The contract's closing state of every day on which it was told, in order.

    A terminal status stays, whatever is told later; `ended_at` beats the time of the event that
    tells it. The first state holds from `counts_from`, where that is earlier than its telling.
    """
    zone = rules.zone
    told: list[State] = []
    end: State | None = None
    for event in history:
        data = event.data
        assert isinstance(data, Subscription)  # noqa: S101 - a subscription's history holds nothing else
        if data.status in TERMINAL or event.rank == DELETED:
            end = State(
                day=day_of(data.ended_at or event.occurred_at, zone), event=event, data=data, ended=True
            )
            break
        moment = event.occurred_at
        if not told and data.counts_from and data.status in COUNTS:
            moment = min(moment, data.counts_from)
        told.append(State(day=day_of(moment, zone), event=event, data=data, ended=False))
    if end:
        told = [*(state for state in told if state.day < end.day), end]
    return [list(same_day)[-1] for _, same_day in groupby(told, key=lambda state: state.day)]


def terms(history: Sequence[State], rules: Rules) -> list[Term]:
    """What the contract counts in MRR, one term for each day on which that changes.

    Between two states a repeating discount may end; the day of its end begins a term too.
    """
    found: list[Term] = []
    ends = [state.day for state in history[1:]] + [date.max]
    for state, until in zip(history, ends, strict=True):
        for day in [
            state.day,
            *(end for end in _discount_ends(state.data, rules) if state.day < end < until),
        ]:
            term = _term(state, day, rules)
            before = found[-1] if found else None
            if before is None or _level(before) != _level(term):
                found.append(term)
    return found if any(term.counted for term in found) else []


def schedule(data: Subscription) -> tuple[str, int]:
    """(interval, every) of the contract: its shortest recurring one, or ("once", 1)."""
    recurring = [item for item in data.items if item.interval != cadence.ONCE]
    if not recurring:
        return cadence.ONCE, 1
    shortest = min(recurring, key=lambda i: (cadence.INTERVALS.index(i.interval), i.every))
    return shortest.interval, shortest.every


def is_recurring(data: Subscription) -> bool:
    """Whether any item bills again."""
    return any(item.interval != cadence.ONCE for item in data.items)


def unpriced(data: Subscription) -> bool:
    """Whether a price or discount that should count can't be read."""
    priced = [item for item in data.items if not item.metered]
    discounts = [*data.discounts, *(d for item in priced for d in item.discounts)]
    return any(_price(item) is None for item in priced) or any(_unreadable(d) for d in discounts)


def bill_cents(data: Subscription, day: date, rules: Rules) -> int:
    """A bill's amount on `day`, before tax: recurring items, or one-off ones if there are no others."""
    recurring = is_recurring(data)
    items = [item for item in data.items if (item.interval != cadence.ONCE) == recurring]
    flat = [(item, Fraction(1)) for item in items]
    return round_fraction(_discounted(flat, data.discounts, Fraction(1), day, rules))


def mrr_cents(data: Subscription, day: date, rules: Rules) -> int:
    """MRR at the end of `day`, by items and discounts alone, rounded once. Source: contract 3."""
    factored = [(item, _factor(item.interval, item.every, rules)) for item in data.items]
    return round_fraction(_discounted(factored, data.discounts, _factor(*schedule(data), rules), day, rules))


def _term(state: State, day: date, rules: Rules) -> Term:
    data = state.data
    counted = not state.ended and data.status in COUNTS and not data.collection_paused and is_recurring(data)
    interval, every = schedule(data)
    amount = mrr_cents(data, day, rules) if counted else 0
    return Term(day=day, mrr_cents=amount, counted=counted, interval=interval, every=every, event=state.event)


def _level(term: Term) -> tuple[object, ...]:
    return (term.mrr_cents, term.counted, term.interval, term.every) if term.counted else (0,)


def _factor(interval: str, every: int, rules: Rules) -> Fraction:
    return cadence.per_month(interval, rules.weeks_per_month) / every


def _discount_ends(data: Subscription, rules: Rules) -> list[date]:
    discounts = [*data.discounts, *(d for item in data.items for d in item.discounts)]
    return sorted({day_of(d.ends_at, rules.zone) for d in discounts if d.ends_at})


def _discounted(
    items: list[tuple[Item, Fraction]],
    discounts: Sequence[Discount],
    factor: Fraction,
    day: date,
    rules: Rules,
) -> Fraction:
    """Σ items × their factor, each less its own discounts, less the contract's; never below zero."""
    total = Fraction(0)
    for item, own_factor in items:
        price = None if item.metered else _price(item)
        total += _less(price * own_factor, item.discounts, own_factor, day, rules) if price else 0
    return _less(total, discounts, factor, day, rules)


def _less(
    amount: Fraction, discounts: Sequence[Discount], factor: Fraction, day: date, rules: Rules
) -> Fraction:
    for discount in discounts:
        ended = discount.ends_at is not None and day_of(discount.ends_at, rules.zone) <= day
        if ended or discount.duration == "once":
            continue
        if discount.percent_off is not None:
            amount *= 1 - Fraction(discount.percent_off) / 100
        elif discount.amount_off is not None:
            amount -= discount.amount_off * factor
    return max(amount, Fraction(0))


def _unreadable(discount: Discount) -> bool:
    return discount.percent_off is None and discount.amount_off is None


def _price(item: Item) -> Fraction | None:
    """One interval's amount of an item in minor units; None if its price can't be read."""
    quantity = item.quantity
    if item.divide_by:
        quantity = -(-quantity // item.divide_by) if item.divide_round == "up" else quantity // item.divide_by
    if item.tiers:
        return _volume(item, quantity) if item.tiers_mode == "volume" else _graduated(item, quantity)
    return None if item.unit_amount is None else Fraction(item.unit_amount) * quantity


def _volume(item: Item, quantity: int) -> Fraction:
    """All units at the price of the one tier that holds the quantity."""
    tier = next((t for t in item.tiers if t.up_to is None or quantity <= t.up_to), item.tiers[-1])
    return Fraction(tier.unit_amount) * quantity + Fraction(tier.flat_amount)


def _graduated(item: Item, quantity: int) -> Fraction:
    """Each unit at the price of the tier that it falls in; a tier's flat fee once it is reached."""
    total, below = Decimal(0), 0
    for tier in item.tiers:
        top = quantity if tier.up_to is None else min(quantity, tier.up_to)
        if quantity > below or below == 0:
            total += tier.unit_amount * (top - below) + tier.flat_amount
        below = max(below, top)
        if top == quantity:
            break
    return Fraction(total)
