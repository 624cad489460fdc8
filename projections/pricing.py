"""What a contract is worth: its items less its discounts, as a bill and as a month. Exact, rounded once."""

from collections.abc import Sequence
from datetime import date, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from projections.book import Rules
from service.core import cadence
from service.core.events import Discount, Item, Subscription
from service.core.moments import day_of
from service.core.money import round_fraction


class Worth(Struct, frozen=True, kw_only=True):
    """A contract's figures in minor units, if it counts. Its schedule is its shortest recurring one.

    `mrr_cents` is of all its items; `bill_cents` of those on its schedule, since the others bill in
    their own time.
    """

    mrr_cents: int
    bill_cents: int
    interval: str
    every: int

    @property
    def recurring(self) -> bool:
        """Whether it bills again."""
        return self.interval != cadence.ONCE


def worth_on(data: Subscription, day: date, rules: Rules) -> Worth:
    """What the contract is worth at the end of `day`, by items and discounts alone."""
    if not discounts_of(data):
        return _worth(data.items, (), rules.weeks_per_month)
    items = tuple(replace(item, discounts=_in_force(item.discounts, day, rules)) for item in data.items)
    return _worth(items, _in_force(data.discounts, day, rules), rules.weeks_per_month)


def discount_ends(data: Subscription, zone: tzinfo) -> list[date]:
    """The days on which a discount of the contract ends, in order."""
    return sorted({day_of(d.ends_at, zone) for d in discounts_of(data) if d.ends_at})


def discounts_of(data: Subscription) -> list[Discount]:
    """The contract's own discounts and its items'."""
    return [*data.discounts, *(discount for item in data.items for discount in item.discounts)]


def unpriced(data: Subscription) -> bool:
    """Whether a price or discount that should count can't be read."""
    priced = [item for item in data.items if not item.metered]
    return any(_price(item) is None for item in priced) or any(map(_unreadable, discounts_of(data)))


def _in_force(discounts: Sequence[Discount], day: date, rules: Rules) -> tuple[Discount, ...]:
    """Those that still apply when `day` ends, of the durations that the policy deducts."""
    ignored = rules.policy.ignored_discounts
    return tuple(
        d
        for d in discounts
        if d.duration not in ignored and not (d.ends_at and day_of(d.ends_at, rules.zone) <= day)
    )


@lru_cache(maxsize=16_384)  # a contract's states mostly repeat its prices, and contracts share them
def _worth(items: tuple[Item, ...], discounts: tuple[Discount, ...], weeks_per_month: Fraction) -> Worth:
    recurring = [item for item in items if item.interval != cadence.ONCE]

    def factor(interval: str, every: int) -> Fraction:
        return cadence.per_month(interval, weeks_per_month) / every

    interval, every = min(
        ((item.interval, item.every) for item in recurring),
        key=lambda cycle: (-factor(*cycle), cadence.INTERVALS.index(cycle[0])),
        default=(cadence.ONCE, 1),
    )
    of_schedule = [item for item in recurring if (item.interval, item.every) == (interval, every)]
    billed = [(item, Fraction(1)) for item in of_schedule or items]
    monthly = [(item, factor(item.interval, item.every)) for item in recurring]
    return Worth(
        mrr_cents=round_fraction(_discounted(monthly, discounts, factor(interval, every))),
        bill_cents=round_fraction(_discounted(billed, discounts, Fraction(1))),
        interval=interval,
        every=every,
    )


def _discounted(
    items: list[tuple[Item, Fraction]], discounts: Sequence[Discount], factor: Fraction
) -> Fraction:
    """Σ items × their factor, each less its own discounts, less the contract's; never below zero."""
    total = Fraction(0)
    for item, own_factor in items:
        price = None if item.metered else _price(item)
        total += _less(price * own_factor, item.discounts, own_factor) if price else 0
    return _less(total, discounts, factor)


def _less(amount: Fraction, discounts: Sequence[Discount], factor: Fraction) -> Fraction:
    for discount in discounts:
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
