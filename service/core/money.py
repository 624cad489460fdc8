"""Money: integer minor units and an ISO 4217 currency; fractions inside, rounded once."""

from decimal import Decimal
from fractions import Fraction

# ISO 4217 currencies whose minor unit is not a hundredth (List One, "Minor unit").
_MINOR_DIGITS = dict.fromkeys(
    "bif clp djf gnf isk jpy kmf krw pyg rwf ugx uyi vnd vuv xaf xof xpf".split(), 0
) | dict.fromkeys("bhd iqd jod kwd lyd omr tnd".split(), 3)


def minor_digits(currency: str) -> int:
    """Digits after the decimal point of `currency` (lower case): 2 for usd, 0 for jpy, 3 for kwd."""
    return _MINOR_DIGITS.get(currency, 2)


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
