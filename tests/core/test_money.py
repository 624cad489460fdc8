"""Minor units by ISO 4217, and the one rounding."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.money import format_minor, minor_digits, round_fraction, round_half_away, to_minor


@pytest.mark.parametrize(
    ("currency", "digits"),
    [
        ("usd", 2),
        ("jpy", 0),
        ("kwd", 3),
        ("clf", 4),
        ("uyw", 4),
        ("isk", 0),
        ("mga", 2),
        ("xxx", 2),
        ("zzz", 2),
    ],
)
def test_a_currency_has_the_digits_of_iso_4217_and_an_unknown_one_two(currency: str, digits: int) -> None:
    assert minor_digits(currency) == digits
    assert to_minor(Decimal("1.2345"), currency) == Decimal("1.2345") * 10**digits


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (12345, "clf", "1.2345"),
        (7587900, "usd", "75,879.00"),
        (-5, "kwd", "-0.005"),
        (10**15, "idr", "10,000,000,000,000.00"),
    ],
)
def test_an_amount_is_shown_with_all_its_digits(amount: int, currency: str, text: str) -> None:
    assert format_minor(amount, currency) == text


@given(st.fractions())
def test_a_fraction_is_rounded_to_the_nearest_and_a_half_away_from_zero(value: Fraction) -> None:
    rounded = round_fraction(value)
    assert abs(rounded - value) <= Fraction(1, 2)
    assert round_half_away(-value.numerator, value.denominator) == -rounded
    if abs(rounded - value) == Fraction(1, 2):
        assert abs(rounded) > abs(value)
