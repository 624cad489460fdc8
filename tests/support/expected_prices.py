"""What a contract's items bring: unit by unit, discount by discount, and rounded once. Source: contract 3."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction

MONTHS = {"day": Fraction(365, 12), "week": Fraction("4.33"), "month": Fraction(1), "year": Fraction(1, 12)}


@dataclass(frozen=True)
class Price:
    """One priced line of a contract. `packages` of units are sold whole; tiers are (up to, unit, flat).

    `interval` and `every` are its own where they are not the contract's, and so is `next_bill`. `tax` is the
    percentage that the price includes; within its `trial` (from, to) the line brings nothing. `name` is the
    id of the price.
    """

    unit: Decimal | None
    quantity: int = 1
    metered: bool = False
    once: bool = False
    packages: int | None = None
    packages_round_up: bool = True
    tiers: tuple[tuple[int | None, Decimal, Decimal], ...] = ()
    all_units_in_one_tier: bool = False
    interval: str | None = None
    every: int = 1
    next_bill: datetime | None = None
    product: str | None = None
    tax: Decimal = Decimal(0)
    trial: tuple[datetime, datetime] | None = None
    name: str | None = None


@dataclass(frozen=True)
class Deduction:
    """A discount, in force until `until`. `lasting` is False for one that is for a single bill.

    With `products` it is off their lines only. One with a `name` is only named by the contract: an event of
    its own says how much it is.
    """

    percent: Decimal | None = None
    amount: int | None = None
    lasting: bool = True
    until: datetime | None = None
    products: tuple[str, ...] = ()
    name: str | None = None


def net(amounts: Sequence[tuple[Price, Fraction]], offs: Sequence[Deduction]) -> Fraction:
    """The sum of the lines' amounts, each without the tax that it includes, less the discounts in order."""
    lines = [(price, amount * 100 / (100 + Fraction(price.tax))) for price, amount in amounts]
    for off in offs:
        lines = _deduct(lines, off)
    return max(sum((amount for _, amount in lines), Fraction(0)), Fraction(0))


def _deduct(lines: list[tuple[Price, Fraction]], off: Deduction) -> list[tuple[Price, Fraction]]:
    """The lines with each of a discount's lines cut by the same share."""

    def is_meant(price: Price) -> bool:
        return not off.products or price.product in off.products

    total = sum((amount for price, amount in lines if is_meant(price)), Fraction(0))
    if total <= 0:
        return lines
    left = max(total * (100 - Fraction(off.percent or 0)) / 100 - (off.amount or 0), Fraction(0))
    return [(price, amount * left / total if is_meant(price) else amount) for price, amount in lines]


def charge(price: Price) -> Fraction:
    """What one interval costs by one price: unit by unit where there are tiers."""
    if price.metered:
        return Fraction(0)
    sold = price.quantity
    if price.packages:
        whole, rest = divmod(price.quantity, price.packages)
        sold = whole + (1 if rest and price.packages_round_up else 0)
    if price.tiers and price.all_units_in_one_tier:
        tier = next(t for t in price.tiers if t[0] is None or t[0] >= sold)
        return Fraction(tier[1]) * sold + Fraction(tier[2])
    if price.tiers:
        total, reached = Fraction(0), {0}
        for unit in range(1, sold + 1):
            number = next(i for i, t in enumerate(price.tiers) if t[0] is None or unit <= t[0])
            total += Fraction(price.tiers[number][1])
            reached.add(number)
        return total + sum(Fraction(price.tiers[i][2]) for i in reached)
    return Fraction(price.unit or 0) * sold


def cents(amount: Fraction) -> int:
    """Whole minor units; a half goes away from zero."""
    with localcontext() as context:
        context.prec = 60
        return int((Decimal(amount.numerator) / Decimal(amount.denominator)).quantize(1, ROUND_HALF_UP))
