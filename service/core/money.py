"""Money: integer minor units and an ISO 4217 currency; fractions inside, rounded once."""

from decimal import Decimal
from fractions import Fraction

from iso4217 import Currency

_MINOR_DIGITS = {currency.code.lower(): currency.exponent for currency in Currency}  # None for gold


def minor_digits(currency: str) -> int:
    """Digits after the decimal point of `currency` (lower case): 2 for usd, 0 for jpy, 3 for kwd.

    Source: ISO 4217, List One; 2 for a currency that is not in it.
    """
    digits = _MINOR_DIGITS.get(currency)
    return 2 if digits is None else digits


def to_minor(amount: Decimal, currency: str) -> Decimal:
    """An amount in major units ("11.11") as minor units (1111), exactly; may keep a fraction."""
    return amount.scaleb(minor_digits(currency))


def round_half_away(numerator: int, denominator: int = 1) -> int:
    """The integer nearest to a fraction; a half goes away from zero. `denominator` > 0."""
    if numerator < 0:
        return -round_half_away(-numerator, denominator)
    return (2 * numerator + denominator) // (2 * denominator)


def round_fraction(value: Fraction) -> int:
    """`round_half_away` of a `Fraction`."""
    return round_half_away(value.numerator, value.denominator)


def format_minor(amount: int, currency: str) -> str:
    """Minor units for people: 7587900, "usd" -> "75,879.00"."""
    digits = minor_digits(currency)
    return f"{Decimal(amount).scaleb(-digits):,.{digits}f}"
