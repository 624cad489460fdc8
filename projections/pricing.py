"""Pricing: a contract's items less its discounts, per bill and per month. Exact fractions, rounded once."""

from collections.abc import Sequence
from datetime import date, datetime, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

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
    """The contract's price at the end of `day`, by its items, their trials, taxes and discounts alone."""
    items = tuple(_item_on(item, data.currency, day, rules) for item in data.items)
    return _price_contract(items, _in_force(data.discounts, data.currency, day, rules), rules.weeks_per_month)


def bill_cents(
    data: Subscription, items: Sequence[Item], day: date, rules: Rules, *, with_amounts_off: bool
) -> int:
    """What one interval of these items of the contract brings at the end of `day`, in minor units.

    Less their own discounts and the contract's, and without the tax in it. An amount off the whole contract
    is deducted only `with_amounts_off`: of bills on different days only one is less by it.
    """
    discounts = tuple(
        discount
        for discount in _in_force(data.discounts, data.currency, day, rules)
        if with_amounts_off or discount.product_ids or discount.percent_off is not None
    )
    return _price_bill(tuple(_item_on(item, data.currency, day, rules) for item in items), discounts)


def change_days(data: Subscription, zone: tzinfo) -> list[date]:
    """The days on which the price changes by itself, in order: of a discount or of an item's trial."""
    moments = [moment for d in all_discounts(data) for moment in (d.starts_at, d.ends_at)]
    moments += [moment for item in data.items for moment in (item.trial_start_at, item.trial_end_at)]
    return sorted({day_of(moment, zone) for moment in moments if moment})


def all_discounts(data: Subscription) -> list[Discount]:
    """The contract's own discounts and those of its items."""
    return [*data.discounts, *(discount for item in data.items for discount in item.discounts)]


def is_unpriced(data: Subscription) -> bool:
    """Whether a price or discount that should count can't be read, or the items that a discount is off."""
    priced = [item for item in data.items if not item.metered]
    return (
        any(_item_amount(item) is None for item in priced)
        or not all(is_readable(d) and not _is_foreign(d, data.currency) for d in all_discounts(data))
        or (any(d.product_ids for d in data.discounts) and not all(item.product_id for item in priced))
    )


def is_readable(discount: Discount) -> bool:
    """Whether it is known how much is off."""
    return discount.percent_off is not None or discount.amount_off is not None


def _is_foreign(discount: Discount, currency: str) -> bool:
    """Whether its amount is in another currency than the contract's, so that it is not off."""
    return discount.amount_off is not None and discount.currency not in (None, currency)


def _in_force(discounts: Sequence[Discount], currency: str, day: date, rules: Rules) -> tuple[Discount, ...]:
    """The discounts that apply when `day` ends, of the durations that the policy deducts, by value alone."""
    ignored = rules.policy.ignored_discounts
    return tuple(
        replace(d, discount_id=None, starts_at=None, ends_at=None)
        for d in discounts
        if d.duration not in ignored
        and not _is_foreign(d, currency)
        and _holds_on(day, d.starts_at, d.ends_at, rules.zone)
    )


def _item_on(item: Item, currency: str, day: date, rules: Rules) -> Item:
    """The item with the discounts of `day`, at no price during its trial.

    Without its ids and dates, it is equal to the items of other contracts at this price.
    """
    bare = replace(
        item, item_id=None, price_id=None, next_bill_at=None, trial_start_at=None, trial_end_at=None
    )
    if item.trial_end_at and _holds_on(day, item.trial_start_at, item.trial_end_at, rules.zone):
        return replace(bare, unit_amount=Decimal(0), tiers=(), discounts=())
    return replace(bare, discounts=_in_force(item.discounts, currency, day, rules))


def _holds_on(day: date, starts_at: datetime | None, ends_at: datetime | None, zone: tzinfo) -> bool:
    """Whether what holds from one moment to another does so at the end of `day`."""
    has_begun = starts_at is None or day_of(starts_at, zone) <= day
    return has_begun and (ends_at is None or day < day_of(ends_at, zone))


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


@lru_cache(maxsize=16_384)
def _price_bill(items: tuple[Item, ...], discounts: tuple[Discount, ...]) -> int:
    return round_fraction(_sum_discounted([(item, Fraction(1)) for item in items], discounts, Fraction(1)))


class _Line(NamedTuple):
    """What an item brings: `amount`, which is its price × `factor` as far as it is not discounted."""

    item: Item
    factor: Fraction
    amount: Fraction


def _sum_discounted(
    items: Sequence[tuple[Item, Fraction]], discounts: Sequence[Discount], factor: Fraction
) -> Fraction:
    """Σ items × their factor, each less its own discounts, less the contract's and the tax; never below zero.

    The contract's discounts are off prices with tax, as on an invoice.
    """
    lines = [line for item, item_factor in items if (line := _own_line(item, item_factor))]
    net = (line.amount / (1 + _tax_rate(line.item)) for line in _deduct(lines, discounts, factor))
    return max(sum(net, Fraction(0)), Fraction(0))


@lru_cache(maxsize=16_384)  # a contract of many items changes a few of them at a time
def _own_line(item: Item, factor: Fraction) -> _Line | None:
    """What an item brings, less its own discounts; None if that is nothing, or not known."""
    amount = None if item.metered else _item_amount(item)
    return _deduct([_Line(item, factor, amount * factor)], item.discounts, factor)[0] if amount else None


def _deduct(lines: list[_Line], discounts: Sequence[Discount], factor: Fraction) -> list[_Line]:
    """The lines less the discounts in their order.

    A discount is off all lines of a product alike, so it costs as much as it names products, however many
    lines there are.
    """
    if not (lines and discounts):
        return lines
    products: dict[str | None, _Product] = {}
    for line in lines:
        products.setdefault(line.item.product_id, _Product()).add(line)
    total, left = sum((each.amount for each in products.values()), Fraction(0)), Fraction(1)
    for discount in discounts:
        if discount.product_ids:
            chosen = [products[name] for name in {*discount.product_ids} & products.keys()]
            before = left * sum((each.amount * each.left for each in chosen), Fraction(0))
            part = _part_left(before, discount, max((each.factor for each in chosen), default=factor))
            for each in chosen:
                each.left *= part
            total -= before * (1 - part)
        else:
            part = _part_left(total, discount, factor)
            left, total = left * part, total * part
    return [line._replace(amount=line.amount * left * products[line.item.product_id].left) for line in lines]


class _Product:
    """The lines of one product: their amount, the part of it that is left, and their largest factor."""

    def __init__(self) -> None:
        self.amount, self.left, self.factor = Fraction(0), Fraction(1), Fraction(0)

    def add(self, line: _Line) -> None:
        self.amount += line.amount
        self.factor = max(self.factor, line.factor)


def _part_left(total: Fraction, discount: Discount, factor: Fraction) -> Fraction:
    """The part of a total that a discount leaves, from 0 to 1: an amount is off its lines in proportion.

    An amount off some products is off each bill of theirs, so `factor` is theirs then.
    """
    if discount.percent_off is not None:
        return max(1 - Fraction(discount.percent_off) / 100, Fraction(0))
    if discount.amount_off is None or total <= 0:
        return Fraction(1)
    return max(1 - discount.amount_off * factor / total, Fraction(0))


def _tax_rate(item: Item) -> Fraction:
    """The rate of the tax that the price includes: 1/5 for 20 percent.

    A percentage worked out from an invoice is a fraction cut to 28 digits; this finds the fraction again, so
    that no half of a minor unit is missed.
    """
    return Fraction(item.inclusive_tax).limit_denominator(10**12) / 100 if item.inclusive_tax else Fraction(0)


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
