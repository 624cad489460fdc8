"""The owner of an event, and its personal fields, which the key of the owner seals."""

from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import json
from sqlalchemy import Connection

from service.core.events import (
    TYPE_OF,
    TYPES,
    CreditNote,
    Customer,
    Event,
    Lifted,
    LossAccepted,
    Product,
    Rendering,
    SetAside,
    Unused,
    personal_fields,
    subject,
    subjects,
)
from service.ledger.vault import GENERAL, Keys, Vault, owners_of_sealed, seal, unseal

CUSTOMER = TYPE_OF[Customer]
_PERSONAL_FIELDS = {name: fields for name, data in TYPES.items() if (fields := personal_fields(data))}
_SEALED_FIELD = "sealed"  # the field that replaces them


def owner_of(event: Event) -> str:
    """The owner of an event: its customer, else the first history that it belongs to, else `GENERAL`."""
    if customer_id := getattr(event.data, "customer_id", None):
        return subject("customer", event, customer_id)
    match event.data:
        case Product() | Rendering() | SetAside() | Lifted() | LossAccepted() | Unused():
            return GENERAL
        case CreditNote(invoice_id=invoice_id):  # it belongs to no history; its invoice does
            return subject("invoice", event, invoice_id)
    return next(iter(subjects(event)), GENERAL)


def owners_of_events(events: Iterable[Event]) -> set[str]:
    """The owners of a delivery: all owners of its events."""
    owners = {owner_of(event) for event in events}
    return owners - {GENERAL} or {GENERAL}


def seal_data(keys: Keys, event: Event, text: bytes) -> bytes:
    """An event's `data` or `before`, as JSON, with its personal fields sealed and all others readable."""
    names = _PERSONAL_FIELDS.get(event.type, [])
    if not any(_holds(text, name) for name in names):
        return text
    public: dict[str, Any] = json.decode(text)
    personal = {name: public.pop(name) for name in names if name in public}
    return json.encode({**public, _SEALED_FIELD: seal(keys, [owner_of(event)], json.encode(personal))})


def has_sealed_fields(text: bytes | None) -> bool:
    """Whether an event's `data` or `before`, as JSON, has sealed fields."""
    return text is not None and _holds(text, _SEALED_FIELD)


def _holds(text: bytes, name: str) -> bool:
    """Whether an object in JSON has a field of this name; within a text its quotes would be escaped."""
    return f'"{name}":'.encode() in text


def unseal_data(connection: Connection, vault: Vault, texts: Sequence[bytes]) -> list[bytes]:
    """The inverse of `seal_data`, in the same order; without the personal fields of erased owners."""
    documents: list[dict[str, Any]] = [json.decode(text) for text in texts]
    sealed = [b64decode(document.pop(_SEALED_FIELD, "")) for document in documents]
    keys = vault.read_keys(connection, {owner for text in sealed for owner in owners_of_sealed(text)})
    unsealed = [unseal(keys, text) if text else None for text in sealed]
    return [
        json.encode({**public, **json.decode(personal)}) if personal else json.encode(public)
        for public, personal in zip(documents, unsealed, strict=True)
    ]
