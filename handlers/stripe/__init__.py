"""Stripe: the verification of its webhooks, and their translation to events of the ledger.

All families of payload are read: up to 2025-02 (acacia and before), and 2025-03-31.basil and later.
`payloads` has the structs of their objects, `translations` the table of event types; the modules beside it
put each kind of object into our words, and `units` its money into ISO's units.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from msgspec import json
from stripe import WebhookSignature

from handlers.stripe import payloads
from handlers.stripe.fields import customer_id, moment, parse, readable
from handlers.stripe.translations import (
    OBSERVED_TYPES,
    TRANSLATIONS_BY_PREFIX,
    ObjectTranslation,
    translation_of,
)
from handlers.stripe.units import in_iso_units
from service.core.delivery import TOLERANCE_SECONDS, Proof
from service.core.errors import Unreadable, VerificationError
from service.core.events import (
    CREATED,
    DELETED,
    INVOICE_RANK,
    UPDATED,
    Data,
    Event,
    Invoice,
    InvoicePayment,
    Payment,
    Refund,
    Unused,
)

__all__ = ["TRANSLATIONS_BY_PREFIX", "envelope_of", "is_used", "occurred_at", "translate", "verify"]

PROCESSOR = "stripe"
TRANSLATION_VERSION = 1  # raised whenever the same bytes are translated otherwise
TOLERANCE = timedelta(seconds=TOLERANCE_SECONDS)


# Verification


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Prove that Stripe signed `body`, within the tolerance of `now`, with one of `secrets`.

    Stripe's library checks one secret only and accepts any time in the future, so both are checked here.
    Source: https://docs.stripe.com/webhooks#verify-manually.
    """
    header = headers.get("stripe-signature", "")
    signed_at = _signed_at(header)
    if abs(now - signed_at) > TOLERANCE:
        raise VerificationError(f"Stripe-Signature was made more than {TOLERANCE_SECONDS} seconds from now")
    for number, secret in enumerate(secrets, start=1):
        if _is_signed_with(header, body, secret):
            return Proof(
                processor=PROCESSOR,
                method="stripe-signature",
                received_at=now,
                signed_at=signed_at,
                secret=number,
            )
    raise VerificationError("Stripe-Signature holds no signature that matches")


def _signed_at(header: str) -> datetime:
    """The time in the header's first `t`, which is the one whose signature the library checks."""
    try:
        return moment(int(next(part[2:] for part in header.split(",") if part.startswith("t="))))
    except (StopIteration, ValueError, OverflowError, OSError):
        raise VerificationError("Stripe-Signature is missing, or its time can't be read") from None


def _is_signed_with(header: str, body: bytes, secret: str) -> bool:
    try:
        return bool(WebhookSignature.verify_header(body.decode(), header, secret))
    except Exception:  # noqa: BLE001 - after any error nothing is proved
        return False


# Translation


def translate(payload: Any, proof: Proof) -> list[Event]:
    """The event of one webhook. Raises Unreadable with the field's path and expected type.

    A type that is not in the tables is ordinary input: it becomes an `Unused` event.
    """
    envelope = envelope_of(payload, proof)
    translation = translation_of(envelope.type)
    data = _data(envelope.data.object, translation, envelope.type) if translation else _unused(envelope)
    return [
        Event(
            processor=PROCESSOR,
            account=envelope.account or "",
            event_id=envelope.id,
            occurred_at=occurred_at(envelope, proof),
            rank=_rank(data, envelope.type),
            trust=proof.trust,
            data=data,
            before=_before(envelope, translation, type(data)),
        )
    ]


def is_used(event_type: str) -> bool:
    """Whether the books use this type of event."""
    return translation_of(event_type) is not None


def envelope_of(payload: Any, proof: Proof) -> payloads.Envelope:
    """What stands around an event's object; around one that the API showed there is nothing, so it is made.

    Raises Unreadable.
    """
    if not proof.is_observation:
        return parse(payload, payloads.Envelope, "$")
    kind = parse(payload, payloads.ObjectReference, "$").object
    return payloads.Envelope(
        id=proof.message_id or "",
        type=OBSERVED_TYPES.get(kind, kind),
        created=int(proof.received_at.timestamp()),
        account=proof.account,
        data=payloads.EventData(object=payload),
    )


def occurred_at(envelope: payloads.Envelope, proof: Proof) -> datetime:
    """When an event happened; of an object that the API showed, the moment at which it did."""
    return proof.received_at if proof.is_observation else moment(envelope.created)


def _unused(envelope: payloads.Envelope) -> Unused:
    stated = readable(envelope.data.object, payloads.CustomerReference)
    return Unused(original_type=envelope.type, customer_id=customer_id(stated) if stated else None)


def _data(payload: dict[str, Any], translation: ObjectTranslation, event_type: str) -> Data:
    """The object in the ledger's words and in ISO's units. Raises Unreadable."""
    try:
        parsed = parse(payload, translation.payload, "$.data.object")
        return in_iso_units(translation.translate(parsed, event_type), getattr(parsed, "currency", None))
    except Unreadable:
        if translation.otherwise:
            with suppress(Unreadable):
                return _data(payload, translation.otherwise, event_type)
        raise


def _before(
    envelope: payloads.Envelope, translation: ObjectTranslation | None, kind: type[Data]
) -> bytes | None:
    """The JSON of the data before the event: of the object with its previous attributes.

    None where it was data of another kind: then, as where it can't be read, only a causal link within one
    second is missing.
    """
    if translation is None or not envelope.data.previous_attributes:
        return None
    try:
        previous = _overlay(envelope.data.object, envelope.data.previous_attributes)
        data = _data(previous, translation, envelope.type)
    except (Unreadable, RecursionError):
        return None
    return json.encode(data) if type(data) is kind else None


def _overlay(current: dict[str, Any], previous: dict[str, Any]) -> dict[str, Any]:
    """`current` with the values of `previous`: objects are merged field by field, lists are replaced."""
    return current | {
        key: _overlay(current[key], value)
        if isinstance(value, dict) and isinstance(current.get(key), dict)
        else value
        for key, value in previous.items()
    }


_STATUS_RANK: dict[type[Data], dict[str, int]] = {
    Invoice: INVOICE_RANK,
    InvoicePayment: {"open": 0, "paid": 1, "canceled": 2},
    Payment: {"pending": 0, "authorized": 0, "failed": 0},  # it is captured later, or succeeds
    Refund: {"pending": 0, "requires_action": 0, "succeeded": 1, "failed": 2, "canceled": 2},
}
_FINAL_TYPES = {"charge.refunded", "charge.expired"}  # whatever the status, which stays as it was
_TYPE_RANK = {
    "created": CREATED,
    "deleted": DELETED,
    "closed": DELETED,
    "failed": CREATED,  # a payment may fail before it succeeds, and is refunded after that
    "payment_failed": CREATED,
}


def _rank(data: Data, event_type: str) -> int:
    """The lifecycle rank: by the status where an object's status never goes back, else by the event type."""
    if event_type in _FINAL_TYPES:
        return DELETED
    by_type = _TYPE_RANK.get(event_type.rpartition(".")[2], UPDATED)
    return _STATUS_RANK.get(type(data), {}).get(getattr(data, "status", ""), by_type)
