"""Whose an event is, and what of it only its owner's key opens: names and e-mail addresses."""

from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import json
from sqlalchemy import Connection

from service.core.events import TYPE_OF, CreditNote, Customer, Event, Product, subject, subjects
from service.ledger.vault import GENERAL, Keys, Vault, opened, owners_of, seal

PERSONAL = TYPE_OF[Customer]  # the one type whose data is sealed in part
_PRIVATE = ("name", "email")
_SEALED = "sealed"  # the field that stands in their place


def owner_of(event: Event) -> str:
    """The customer whose an event is; where it names none, the first history that it belongs to, or is of."""
    if customer_id := getattr(event.data, "customer_id", None):
        return subject("customer", event, customer_id)
    match event.data:
        case Product():
            return GENERAL
        case CreditNote(invoice_id=invoice_id):  # it is in no history itself
            return subject("invoice", event, invoice_id)
    return next(iter(subjects(event)), GENERAL)


def owners_of_all(events: Iterable[Event]) -> set[str]:
    """Whose a delivery is: all whom its events name."""
    found = {owner_of(event) for event in events}
    return found - {GENERAL} or {GENERAL}


def seal_data(keys: Keys, event: Event, text: bytes) -> bytes:
    """An event's `data` or `before`, as JSON: what is private in it sealed, all else to be read."""
    if event.type != PERSONAL:
        return text
    told: dict[str, Any] = json.decode(text)
    private = {name: told.pop(name) for name in _PRIVATE if name in told}
    if not private:
        return text
    return json.encode({**told, _SEALED: seal(keys, [owner_of(event)], json.encode(private))})


def open_data(connection: Connection, vault: Vault, texts: Sequence[bytes]) -> list[bytes]:
    """The texts of `seal_data` as they were, in the same order; without what was erased."""
    told: list[dict[str, Any]] = [json.decode(text) for text in texts]
    sealed = [b64decode(each.pop(_SEALED, "")) for each in told]
    keys = vault.keys(connection, {owner for text in sealed for owner in owners_of(text)})
    private = [opened(keys, text) if text else None for text in sealed]
    return [
        json.encode({**public, **json.decode(found)}) if found else json.encode(public)
        for public, found in zip(told, private, strict=True)
    ]
