"""Standard Webhooks: the signature, and the ledger's own event format for in-house billers.

Sources: the Standard Webhooks specification; docs/events.md.
"""

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, TypeVar, Union

import msgspec
from msgspec import Meta, Struct, ValidationError, convert, defstruct
from msgspec.structs import replace
from standardwebhooks import Webhook

from service.core.delivery import TOLERANCE_SECONDS, Proof
from service.core.errors import Unreadable, VerificationError
from service.core.events import (
    DELETED,
    INVOICE_RANK,
    NOT_POSTED,
    TYPES,
    UPDATED,
    Customer,
    Data,
    Event,
    Invoice,
    Moment,
    Product,
    Subscription,
    Unused,
)

T = TypeVar("T")

MOST = 10**12  # no amount or count is larger: books add up in 64 bits
_DECIMAL = r"^-?[0-9]{1,12}(\.[0-9]{1,12})?$"
_YEAR = "(19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])"  # 1970 to 9998
_DATE = f"^{_YEAR}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME = r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


# Verification


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Prove a delivery from the in-house biller named in the path. Its processor is "standard.<name>"."""
    name = headers.get(":name", "")
    if not _NAME.fullmatch(name):
        raise VerificationError("no biller can have this name")
    return verify_signature(headers, body, secrets, now, processor=f"standard.{name}")


def verify_signature(
    headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime, *, processor: str
) -> Proof:
    """Prove a Standard Webhooks delivery by any of several secrets and any of its signatures.

    Unlike `Webhook.verify` it takes the time as a parameter, and a whole number of seconds only.
    """
    message_id, signed_at = _signed_headers(headers, now)
    presented = [signature.encode() for signature in headers.get("webhook-signature", "").split(" ")]
    for count, secret in enumerate(secrets, start=1):
        expected = _sign(secret, message_id, signed_at, body)
        if any(hmac.compare_digest(expected, signature) for signature in presented):
            return Proof(
                processor=processor,
                method="standard-webhooks",
                received_at=now,
                message_id=message_id,
                signed_at=signed_at,
                secret=count,
            )
    raise VerificationError("webhook-signature holds no signature that matches")


def _signed_headers(headers: Mapping[str, str], now: datetime) -> tuple[str, datetime]:
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not re.fullmatch(r"[!-~]{1,255}", message_id):
        raise VerificationError("webhook-id is missing or malformed")
    if not re.fullmatch(r"[1-9][0-9]{0,10}", timestamp):
        raise VerificationError("webhook-timestamp is missing or no whole number of seconds")
    signed_at = datetime.fromtimestamp(int(timestamp), UTC)
    if abs(now - signed_at) > timedelta(seconds=TOLERANCE_SECONDS):
        raise VerificationError(f"webhook-timestamp is more than {TOLERANCE_SECONDS} seconds from now")
    return message_id, signed_at


def _sign(secret: str, message_id: str, signed_at: datetime, body: bytes) -> bytes:
    try:
        return _webhook(secret).sign(message_id, signed_at, body.decode()).encode()
    except Exception:  # noqa: BLE001 - whatever it is, nothing is proved, and its text may quote the secret
        raise VerificationError("the signature cannot be checked") from None


@lru_cache(maxsize=64)
def _webhook(secret: str) -> Webhook:
    return Webhook(secret)


# Translation


def translate(payload: Any, proof: Proof) -> list[Event]:
    """One body of the ledger's own format as one event. Raises Unreadable, naming the field.

    A type that is not in the table is ordinary input and has no effect.
    """
    kind = payload.get("type") if isinstance(payload, dict) else None
    if not isinstance(kind, str):
        raise Unreadable("`$.type` is missing or no string")
    if kind not in _BODIES:
        return [_unused(payload, kind, proof)]
    body: Any = read(payload, _BODIES[kind])
    before = body.before and msgspec.json.encode(settled(body.before, "$.before"))
    return [_event(body, proof, data=settled(body.data, "$.data"), before=before)]


def _unused(payload: dict[str, Any], kind: str, proof: Proof) -> Event:
    data = payload.get("data")
    customer_id = data.get("customer_id") if isinstance(data, dict) else None
    unused = Unused(original_type=kind, customer_id=customer_id if isinstance(customer_id, str) else None)
    try:
        envelope = read(payload, _Envelope)
        return _event(envelope, proof, data=unused)
    except Unreadable:
        return _event(_Envelope(occurred_at=proof.signed_at or proof.received_at), proof, data=unused)


def _event(body: Any, proof: Proof, *, data: Data, before: bytes | None = None) -> Event:
    return Event(
        processor=proof.processor,
        account=body.account,
        event_id=proof.message_id or "",
        occurred_at=settled(body.occurred_at, "$.occurred_at"),
        rank=_RANK.get(type(data), lambda _: UPDATED)(data),
        trust=proof.trust,
        data=data,
        before=before,
    )


# What ends a thing's life comes last among the events of one moment.
_RANK: dict[type[Data], Callable[[Any], int]] = {
    Customer: lambda customer: DELETED if customer.deleted else UPDATED,
    Product: lambda product: DELETED if product.deleted else UPDATED,
    Subscription: lambda subscription: DELETED if subscription.status == "canceled" else UPDATED,
    Invoice: lambda invoice: INVOICE_RANK.get(invoice.status, UPDATED),
}


class _Envelope(Struct, frozen=True, kw_only=True):
    """What the bodies of all types have in common."""

    occurred_at: Moment
    account: Annotated[str, Meta(max_length=255, description="the biller's own division, if it has any")] = ""


_BODIES = {
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


def read(payload: Any, shape: type[T]) -> T:
    """`payload` as `shape`. Raises Unreadable with a field's path and what it should be, not what it is."""
    try:
        return convert(payload, shape)
    except ValidationError as error:
        raise Unreadable(re.sub(r"(?s)^(Invalid (?:enum )?value) .*(?= - at `)", r"\1", str(error))) from None


def settled(value: Any, path: str) -> Any:
    """`value` with its times in UTC and its decimals in plain digits.

    A book adds up in 64 bits and counts days in a calendar. A number or time that neither could hold
    is Unreadable here, and stops no book.
    """
    if isinstance(value, Struct):
        return replace(
            value, **{f: settled(getattr(value, f), f"{path}.{f}") for f in value.__struct_fields__}
        )
    if isinstance(value, tuple):
        return tuple(settled(part, f"{path}[{i}]") for i, part in enumerate(value))
    try:
        return _settle(value)
    except (ValueError, OverflowError):
        raise Unreadable(f"Out of range - at `{path}`") from None


def _settle(value: Any) -> Any:
    match value:
        case datetime():
            value = value.astimezone(UTC)
            within = bool(re.match(_DATE, value.isoformat()))
        case date():
            within = bool(re.match(_DATE, value.isoformat()))
        case Decimal():
            within = value.is_finite() and abs(value) <= MOST and value == round(value, 12)
            value = Decimal(format(value.normalize(), "f")) if within else value  # one way to write one price
        case int():
            within = abs(value) <= MOST
        case _:
            return value
    if not within:
        raise ValueError
    return value


# The published schema


def event_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the bodies that `translate` reads, one definition for each type."""
    (bodies,), definitions = msgspec.json.schema_components([Union[tuple(_BODIES.values())]])  # noqa: UP007
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:daybook:event",
        "title": "Daybook event",
        "anyOf": bodies["anyOf"],
        "$defs": {name: _limited(definition) for name, definition in definitions.items()},
    }


_FORMATS = {"date-time": _DATE + _TIME, "date": f"{_DATE}$", "decimal": _DECIMAL}


def _limited(node: Any) -> Any:
    """A schema with the limits of `settled`, which types alone don't tell."""
    if isinstance(node, list | tuple):
        return [_limited(part) for part in node]
    if not isinstance(node, dict):
        return node
    limits: dict[str, Any] = {"minimum": -MOST, "maximum": MOST} if node.get("type") == "integer" else {}
    if node.get("format") in _FORMATS:
        limits = {"pattern": _FORMATS[node["format"]]}
    return limits | {key: _limited(part) for key, part in node.items()}
