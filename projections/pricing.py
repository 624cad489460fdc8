"""Pricing: a contract's items less its discounts, per bill and per month. Exact fractions, rounded once."""

from collections.abc import Sequence
from datetime import date, tzinfo
from fractions import Fraction
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from projections.book import Rules
from service.core import cadence
from service.core.events import Discount, Item, Subscription
from service.core.moments import day_of
from service.core.money import round_fraction


class ContractPrice(Struct, frozen=True, kw_only=True):
    """A contract's price in minor units, whether it counts or not.

    Its schedule is its shortest recurring one. `mrr_cents` is of all its items; `bill_cents` only of the
    items on its schedule, since the others are billed at other times.
    """

    mrr_cents: int
    bill_cents: int
    interval: str
    every: int

    @property
    def recurring(self) -> bool:
        """Whether it bills again."""
        return self.interval != cadence.ONCE


def price_on(data: Subscription, day: date, rules: Rules) -> ContractPrice:
    """The contract's price at the end of `day`, by its items and discounts alone."""
    if not all_discounts(data):
        return _price_contract(data.items, (), rules.weeks_per_month)
    items = tuple(replace(item, discounts=_in_force(item.discounts, day, rules)) for item in data.items)
    return _price_contract(items, _in_force(data.discounts, day, rules), rules.weeks_per_month)


def discount_ends(data: Subscription, zone: tzinfo) -> list[date]:
    """The days on which a discount of the contract ends, in order."""
    return sorted({day_of(d.ends_at, zone) for d in all_discounts(data) if d.ends_at})


def all_discounts(data: Subscription) -> list[Discount]:
    """The contract's own discounts and those of its items."""
    return [*data.discounts, *(discount for item in data.items for discount in item.discounts)]


def is_unpriced(data: Subscription) -> bool:
    """Whether a price or discount that should count can't be read."""
    priced = [item for item in data.items if not item.metered]
    return any(_item_amount(item) is None for item in priced) or any(map(_is_unreadable, all_discounts(data)))


def _in_force(discounts: Sequence[Discount], day: date, rules: Rules) -> tuple[Discount, ...]:
    """The discounts that still apply when `day` ends, of the durations that the policy deducts."""
    ignored = rules.policy.ignored_discounts
    return tuple(
        d
        for d in discounts
        if d.duration not in ignored and not (d.ends_at and day_of(d.ends_at, rules.zone) <= day)
    )


@lru_cache(maxsize=16_384)  # most states of a contract repeat its items, and contracts share them
def _price_contract(
    items: tuple[Item, ...], discounts: tuple[Discount, ...], weeks_per_month: Fraction
) -> ContractPrice:
    recurring = [item for item in items if item.interval != cadence.ONCE]

    def factor(interval: str, every: int) -> Fraction:
        return cadence.per_month(interval, weeks_per_month) / every

    interval, every = min(
        ((item.interval, item.every) for item in recurring),
        key=lambda cycle: (-factor(*cycle), cadence.INTERVALS.index(cycle[0])),
        default=(cadence.ONCE, 1),
    )
    on_schedule = [item for item in recurring if (item.interval, item.every) == (interval, every)]
    billed = [(item, Fraction(1)) for item in on_schedule or items]
    monthly = [(item, factor(item.interval, item.every)) for item in recurring]
    return ContractPrice(
        mrr_cents=round_fraction(_sum_discounted(monthly, discounts, factor(interval, every))),
        bill_cents=round_fraction(_sum_discounted(billed, discounts, Fraction(1))),
        interval=interval,
        every=every,
    )


def _sum_discounted(
    items: list[tuple[Item, Fraction]], discounts: Sequence[Discount], factor: Fraction
) -> Fraction:
    """Σ items × their factor, each less its own discounts, less the contract's; never below zero."""
    total = Fraction(0)
    for item, item_factor in items:
        amount = None if item.metered else _item_amount(item)
        total += _deduct(amount * item_factor, item.discounts, item_factor) if amount else 0
    return _deduct(total, discounts, factor)


def _deduct(amount: Fraction, discounts: Sequence[Discount], factor: Fraction) -> Fraction:
    for discount in discounts:
        if discount.percent_off is not None:
            amount *= 1 - Fraction(discount.percent_off) / 100
        elif discount.amount_off is not None:
            amount -= discount.amount_off * factor
    return max(amount, Fraction(0))


def _is_unreadable(discount: Discount) -> bool:
    return discount.percent_off is None and discount.amount_off is None


def _item_amount(item: Item) -> Fraction | None:
    """One interval's amount of an item in minor units; None if its price can't be read."""
    quantity = Fraction(item.quantity)
    if item.divide_by:
        quantity = Fraction(
            -(-quantity // item.divide_by) if item.divide_round == "up" else quantity // item.divide_by
        )
    if item.tiers:
        return (
            _volume_amount(item, quantity)
            if item.tiers_mode == "volume"
            else _graduated_amount(item, quantity)
        )
    return None if item.unit_amount is None else Fraction(item.unit_amount) * quantity


def _volume_amount(item: Item, quantity: Fraction) -> Fraction:
    """All units at the price of the one tier in which the quantity falls."""
    tier = next((t for t in item.tiers if t.up_to is None or quantity <= t.up_to), item.tiers[-1])
    return Fraction(tier.unit_amount) * quantity + Fraction(tier.flat_amount)


def _graduated_amount(item: Item, quantity: Fraction) -> Fraction:
    """Each unit at the price of the tier that it falls in; a tier's flat fee once it is reached."""
    total, below = Fraction(0), Fraction(0)
    for tier in item.tiers:
        top = quantity if tier.up_to is None else min(quantity, Fraction(tier.up_to))
        if quantity > below or below == 0:
            total += Fraction(tier.unit_amount) * (top - below) + Fraction(tier.flat_amount)
        below = max(below, top)
        if top == quantity:
            break
    return total
