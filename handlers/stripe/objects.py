"""The object in an event: its data in our words, as it was before, and its rank in its lifecycle."""

from contextlib import suppress
from typing import Any

from msgspec import json

from handlers.stripe import payloads
from handlers.stripe.fields import parse
from handlers.stripe.translations import ObjectTranslation
from handlers.stripe.units import in_iso_units
from service.core.errors import Unreadable
from service.core.events import (
    CREATED,
    DELETED,
    INVOICE_RANK,
    UPDATED,
    Data,
    Invoice,
    InvoicePayment,
    Payment,
    Refund,
)


def data_of(payload: dict[str, Any], translation: ObjectTranslation, event_type: str) -> Data:
    """The object in the ledger's words and in ISO's units. Raises Unreadable."""
    try:
        parsed = parse(payload, translation.payload, "$.data.object")
        return in_iso_units(translation.translate(parsed, event_type), getattr(parsed, "currency", None))
    except Unreadable:
        if translation.otherwise:
            with suppress(Unreadable):
                return data_of(payload, translation.otherwise, event_type)
        raise


def data_before(
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
        data = data_of(previous, translation, envelope.type)
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


def rank_of(data: Data, event_type: str) -> int:
    """The lifecycle rank: by the status where an object's status never goes back, else by the event type."""
    if event_type in _FINAL_TYPES:
        return DELETED
    by_type = _TYPE_RANK.get(event_type.rpartition(".")[2], UPDATED)
    return _STATUS_RANK.get(type(data), {}).get(getattr(data, "status", ""), by_type)
