"""The event format that in-house billers post, and its JSON Schema. Source: docs/events.md."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar, Union

import msgspec
from msgspec import Meta, Struct, ValidationError, convert, defstruct
from msgspec.structs import replace

from handlers.times import cut_time
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import (
    DELETED,
    ENDED_STATUSES,
    INVOICE_RANK,
    NO_CURRENCY,
    NOT_POSTED,
    TYPE_OF,
    TYPES,
    UNKNOWN_CUSTOMER,
    UPDATED,
    AppliedDiscount,
    Customer,
    Data,
    Event,
    Id,
    Invoice,
    Moment,
    Product,
    Subscription,
    Unused,
)
from service.core.limits import MAX_AMOUNT

T = TypeVar("T")

_DECIMAL = r"^-?[0-9]{1,15}(\.[0-9]{1,12})?$"
_YEAR = "(19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])"  # 1970 to 9998
_DATE = f"^{_YEAR}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_ZONE = "([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_TIME = rf"[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?{_ZONE}$"
_TIME_FIELD = re.compile(r".+_at|counts_from")  # the names of all fields that hold a moment
_DEEPEST_TIME = 9  # levels of a body: that of an item's discount in a phase of a schedule


def translate(payload: Any, proof: Proof) -> list[Event]:
    """The event of one body in the ledger's own format. Raises Unreadable, naming the field.

    An unknown type is ordinary input: it becomes an `Unused` event.
    """
    event_type = payload.get("type") if isinstance(payload, dict) else None
    if not isinstance(event_type, str):
        raise Unreadable("`$.type` is missing or no string")
    payload = _with_cut_times(payload, _DEEPEST_TIME)
    if event_type not in _BODY_TYPES:
        return [_unused(payload, event_type, proof)]
    try:
        body: Any = parse(payload, _BODY_TYPES[event_type])
    except Unreadable as error:
        body = _ended_subscription(payload, event_type, error)
    data = _with_plain_status(normalize(body.data, "$.data"))
    before = (
        msgspec.json.encode(_with_plain_status(normalize(body.before, "$.before"))) if body.before else None
    )
    return [_event(body, proof, data=data, before=before)]


def _ended_subscription(payload: dict[str, Any], event_type: str, error: Unreadable) -> Any:
    """The body of a contract of which only its end can be read. Raises the error if it is none."""
    if event_type != TYPE_OF[Subscription]:
        raise error
    try:
        ended = parse(payload, _EndedBody)
    except Unreadable:
        raise error from None
    if ended.data.status.lower() not in ENDED_STATUSES:
        raise error
    data = Subscription(
        subscription_id=ended.data.subscription_id,
        customer_id=ended.data.customer_id or UNKNOWN_CUSTOMER,
        status=ended.data.status,
        currency=NO_CURRENCY,
        items=(),
    )
    return _BODY_TYPES[event_type](occurred_at=ended.occurred_at, account=ended.account, data=data)


def _with_cut_times(node: Any, levels: int) -> Any:
    """`node` with its times as `cut_time` leaves them."""
    if levels and isinstance(node, dict):
        return {
            key: cut_time(part)
            if isinstance(part, str) and _TIME_FIELD.fullmatch(key)
            else _with_cut_times(part, levels - 1)
            for key, part in node.items()
        }
    if levels and isinstance(node, list):
        return [_with_cut_times(part, levels - 1) for part in node]
    return node


def _with_plain_status(data: Data) -> Data:
    """The data with its status word in lower case: billers write "Paid", "PAID" and "paid"."""
    status = getattr(data, "status", None)
    return data if status is None else replace(data, status=status.lower())


def _unused(payload: dict[str, Any], event_type: str, proof: Proof) -> Event:
    data = payload.get("data")
    customer_id = data.get("customer_id") if isinstance(data, dict) else None
    unused = Unused(
        original_type=event_type, customer_id=customer_id if isinstance(customer_id, str) else None
    )
    try:
        envelope = parse(payload, _Envelope)
        return _event(envelope, proof, data=unused)
    except Unreadable:
        return _event(_Envelope(occurred_at=proof.signed_at or proof.received_at), proof, data=unused)


def _event(body: Any, proof: Proof, *, data: Data, before: bytes | None = None) -> Event:
    return Event(
        processor=proof.processor,
        account=body.account,
        event_id=proof.message_id or "",
        occurred_at=normalize(body.occurred_at, "$.occurred_at"),
        rank=_RANK.get(type(data), lambda _: UPDATED)(data),
        trust=proof.trust,
        data=data,
        before=before,
    )


# An event that ends the life of its object comes last among the events of one moment.
_RANK: dict[type[Data], Callable[[Any], int]] = {
    Customer: lambda customer: DELETED if customer.deleted else UPDATED,
    AppliedDiscount: lambda applied: DELETED if applied.deleted else UPDATED,
    Product: lambda product: DELETED if product.deleted else UPDATED,
    Subscription: lambda subscription: DELETED if subscription.status.lower() == "canceled" else UPDATED,
    Invoice: lambda invoice: INVOICE_RANK.get(invoice.status.lower(), UPDATED),
}


class _Envelope(Struct, frozen=True, kw_only=True):
    """The fields that the bodies of all types have."""

    occurred_at: Moment
    account: Annotated[str, Meta(max_length=255, description="the biller's own division, if it has any")] = ""


class _Ended(Struct, frozen=True, kw_only=True):
    """The fields of a contract that has ended: they are enough whatever else it holds."""

    subscription_id: Id
    status: str
    customer_id: str | None = None


class _EndedBody(_Envelope, frozen=True, kw_only=True):
    data: _Ended


_BODY_TYPES = {
    name: defstruct(
        name,
        [("data", data), ("before", data | None, None)],
        bases=(_Envelope,),
        tag_field="type",
        tag=name,
        frozen=True,
        kw_only=True,
    )
    for name, data in TYPES.items()
    if data not in NOT_POSTED
}


def parse(payload: Any, shape: type[T]) -> T:
    """`payload` as `shape`. Raises Unreadable with the field's path and expected type, without its value."""
    try:
        return convert(payload, shape)
    except ValidationError as error:
        raise Unreadable(re.sub(r"(?s)^(Invalid (?:enum )?value) .*(?= - at `)", r"\1", str(error))) from None


def normalize(value: Any, path: str) -> Any:
    """`value` with its times in UTC and its decimals in plain digits.

    Raises Unreadable for a number or time that the books could not hold: they add up in 64 bits, and
    their days are calendar dates.
    """
    if isinstance(value, Struct):
        return replace(
            value, **{f: normalize(getattr(value, f), f"{path}.{f}") for f in value.__struct_fields__}
        )
    if isinstance(value, tuple):
        return tuple(normalize(part, f"{path}[{i}]") for i, part in enumerate(value))
    try:
        return _normalize_scalar(value)
    except (ValueError, OverflowError):
        raise Unreadable(f"Out of range - at `{path}`") from None


def _normalize_scalar(value: Any) -> Any:
    match value:
        case datetime():
            value = value.astimezone(UTC)
            in_range = bool(re.match(_DATE, value.isoformat()))
        case date():
            in_range = bool(re.match(_DATE, value.isoformat()))
        case Decimal():
            in_range = value.is_finite() and abs(value) <= MAX_AMOUNT and value == round(value, 12)
            plain = format(value.normalize(), "f") if in_range else ""  # one spelling per price
            value = Decimal(plain) if in_range and plain != str(value) else value
        case int():
            in_range = abs(value) <= MAX_AMOUNT
        case _:
            return value
    if not in_range:
        raise ValueError
    return value


# The published schema


def event_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the bodies that `translate` accepts, one definition for each type."""
    (bodies,), definitions = msgspec.json.schema_components([Union[tuple(_BODY_TYPES.values())]])  # noqa: UP007
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:daybook:event",
        "title": "Daybook event",
        "anyOf": bodies["anyOf"],
        "$defs": {name: _add_limits(definition) for name, definition in definitions.items()},
    }


_FORMATS = {"date-time": _DATE + _TIME, "date": f"{_DATE}$", "decimal": _DECIMAL}


def _add_limits(node: Any) -> Any:
    """A schema node with the limits of `normalize` added, which the types don't express."""
    if isinstance(node, list | tuple):
        return [_add_limits(part) for part in node]
    if not isinstance(node, dict):
        return node
    limits: dict[str, Any] = (
        {"minimum": -MAX_AMOUNT, "maximum": MAX_AMOUNT} if node.get("type") == "integer" else {}
    )
    if node.get("format") in _FORMATS:
        limits = {"pattern": _FORMATS[node["format"]]}
    return limits | {key: _add_limits(part) for key, part in node.items()}
