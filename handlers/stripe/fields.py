"""The fields that many of Stripe's objects have: times, ids, exact amounts, twins of which one is enough."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar, overload

from msgspec import ValidationError, convert

from handlers.stripe import payloads
from service.core.errors import Unreadable

NAME = "stripe"

T = TypeVar("T")


def parse(payload: Any, shape: type[T], path: str) -> T:
    """`payload` as `shape`. Raises Unreadable with the field's path and expected type, without its value."""
    try:
        return convert(payload, shape)
    except ValidationError as error:
        text, _, field = str(error).partition(" - at `$")
        if text.startswith("Invalid enum value"):  # the value follows, and may hold anything
            text, field = "Invalid enum value", field.rpartition(" - at `$")[2]
        raise Unreadable(f"{text} - at `{path}{field or '`'}") from None


def readable(payload: Any, shape: type[T]) -> T | None:
    """`payload` as `shape`; None if it has another shape, for a field whose twin may say the same."""
    if payload is None:  # as most such fields are; an exception costs more than a look
        return None
    try:
        return convert(payload, shape)
    except ValidationError:
        return None


def missing(field: str, path: str = "$.data.object") -> Unreadable:
    """The error that an object lacks `field`."""
    return Unreadable(f"Object missing required field `{field}` - at `{path}`")


def moment(seconds: int) -> datetime:
    """The moment, in UTC, of Stripe's seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def optional_moment(seconds: int | None) -> datetime | None:
    """The moment of Stripe's seconds, where there are some."""
    return None if seconds is None else moment(seconds)


def exact_amount(decimal: str | None, whole: int | None) -> Decimal | None:
    """A unit amount from its exact text, else from its whole number."""
    amount = whole if decimal is None else decimal
    return None if amount is None else Decimal(amount)


@overload
def id_of(reference: str | payloads.Expanded) -> str: ...
@overload
def id_of(reference: str | payloads.Expanded | None) -> str | None: ...
def id_of(reference: str | payloads.Expanded | None) -> str | None:
    """The id in a field that holds either an id or the expanded object."""
    return reference.id if isinstance(reference, payloads.Expanded) else reference


def payment_id(payload: payloads.PaymentReference) -> str | None:
    """The id that all events about one payment share: of its intent, else its charge, else its record."""
    return id_of(payload.payment_intent) or id_of(payload.charge) or id_of(payload.payment_record)


def customer_id(payload: payloads.CustomerReference) -> str | None:
    """The id of the customer, or of the account that stands for one."""
    return id_of(payload.customer) or payload.customer_account
