"""Stripe's minor units as those of ISO 4217.

Stripe has its own exponent for three currencies, and ISO's for all others that it lists, those with three
digits among them. Source: https://docs.stripe.com/currencies#special-cases and #zero-decimal.
"""

from decimal import Decimal
from typing import Any, TypeVar, overload

from msgspec import Struct
from msgspec.structs import replace

from service.core import events
from service.core.money import minor_digits, round_half_away

T = TypeVar("T")

# The digits after the decimal point at Stripe, where they are not those of ISO 4217.
_STRIPE_DIGITS = {"isk": 2, "mga": 0, "ugx": 2}

# The fields that hold money, in the minor units of their own or the surrounding currency.
MONEY_FIELDS: dict[type, tuple[str, ...]] = {
    events.Discount: ("amount_off",),
    events.Tier: ("unit_amount", "flat_amount"),
    events.Item: ("unit_amount",),
    events.InvoiceLine: ("amount",),
    events.BilledItem: ("amount",),
    events.EndingDiscount: ("amount",),
    events.Invoice: (
        "amount_due",
        "amount_paid",
        "amount_remaining",
        "payment_amounts",
        "taxed_amount",
        "inclusive_tax",
    ),
    events.InvoicePayment: ("amount_paid",),
    events.Payment: ("amount", "amount_refunded", "amount_released"),
    events.Refund: ("amount",),
    events.Dispute: ("amount", "amount_taken"),
    events.CreditNote: ("amount",),
}


@overload
def to_iso(amount: int, currency: str) -> int: ...
@overload
def to_iso(amount: Decimal, currency: str) -> Decimal: ...
def to_iso(amount: int | Decimal, currency: str) -> int | Decimal:
    """Stripe's minor units of `currency` (lower case) in ISO's: 50000 "isk" -> 500. An integer is rounded."""
    return _scale(amount, minor_digits(currency) - stripe_digits(currency))


@overload
def from_iso(amount: int, currency: str) -> int: ...
@overload
def from_iso(amount: Decimal, currency: str) -> Decimal: ...
def from_iso(amount: int | Decimal, currency: str) -> int | Decimal:
    """ISO's minor units of `currency` in Stripe's: 500 "isk" -> 50000. An integer is rounded."""
    return _scale(amount, stripe_digits(currency) - minor_digits(currency))


def stripe_digits(currency: str) -> int:
    """Digits after the decimal point of `currency` in Stripe's amounts."""
    return _STRIPE_DIGITS.get(currency, minor_digits(currency))


def in_iso_units(data: T, currency: str | None) -> T:
    """`data` with all its money in ISO's units, from Stripe's.

    `currency` is that of data which names none.
    """
    currency = getattr(data, "currency", None) or currency
    if currency is not None and currency not in _STRIPE_DIGITS:
        return data
    converted: T = _convert(data, currency)
    return converted


def _convert(value: Any, currency: str | None) -> Any:
    if isinstance(value, tuple):
        return tuple(_convert(part, currency) for part in value)
    if not isinstance(value, Struct):
        return value
    currency = getattr(value, "currency", None) or currency
    parts = {name: _convert(getattr(value, name), currency) for name in value.__struct_fields__}
    for name in MONEY_FIELDS.get(type(value), ()) if currency else ():
        parts[name] = _money_in_iso(parts[name], currency)  # type: ignore[arg-type]
    return replace(value, **parts)


def _money_in_iso(value: Any, currency: str) -> Any:
    """An amount, or a list of them, each of which may be unknown."""
    if isinstance(value, tuple):
        return tuple(_money_in_iso(part, currency) for part in value)
    return None if value is None else to_iso(value, currency)


def _scale(amount: int | Decimal, digits: int) -> int | Decimal:
    if isinstance(amount, Decimal):
        return amount.scaleb(digits) if digits else amount
    return amount * int(10**digits) if digits >= 0 else round_half_away(amount, int(10**-digits))
