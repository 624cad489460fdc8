"""Erasing a customer destroys the keys of all their personal data, together with the event of the erasure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote_plus

from sqlalchemy import Connection, select, update

from service.core.events import Customer, CustomerErased, Event, subjects
from service.core.rfc8259 import NOT_JSON, parse_json
from service.ledger import tables
from service.ledger.history import read_histories
from service.ledger.personal_data import owner_of
from service.ledger.quarantine_chain import append_records
from service.ledger.vault import GENERAL, Keys, StoredBody, Vault, destroy_keys

_keys = tables.Key.__table__  # type: ignore[attr-defined]
_quarantine = tables.Quarantine.__table__  # type: ignore[attr-defined]

ERASED = b""  # the body of a delivery in quarantine that mentioned an erased customer
_CUSTOMER_PREFIX = "customer|"  # owners that are customers begin with it
_HISTORIES_AT_ONCE = 500
_ALL_POSITIONS = 2**62


def destroy_erased_keys(connection: Connection, vault: Vault, events: Sequence[Event], keys: Keys) -> None:
    """Destroy the keys of the customers whose erasure is among the appended `events`. Can be repeated.

    `keys` are the keys of the events' owners, as they were before.
    """
    for event in events:
        if isinstance(event.data, CustomerErased):
            _empty_quarantined(connection, vault, event)
            destroy_keys(connection, [owner_of(event), *_owners_naming(connection, vault, event)])
    if late := _late_owners(connection, vault, events, keys):
        destroy_keys(connection, late)


def find_unexplained(connection: Connection, vault: Vault, destroyed: Iterable[str]) -> list[str]:
    """Those of these owners, whose keys are destroyed, whom no event erased, nor anybody in their history."""
    names = sorted(set(destroyed))
    owners = _owners_by_history(connection, vault, names)
    customers = {name for of_one in (names, *owners.values()) for name in of_one if _is_customer(name)}
    histories = read_histories(connection, customers, _ALL_POSITIONS, vault, whole=True)
    erased = {
        name
        for name, history in histories.items()
        if any(isinstance(event.data, CustomerErased) for event in history)
    }
    return [name for name in names if not erased & {name, *owners[name]}]


def _is_customer(owner: str) -> bool:
    return owner.startswith(_CUSTOMER_PREFIX)


def _owners_naming(connection: Connection, vault: Vault, erased: Event) -> Iterator[str]:
    """Owners that are no customers, but whose histories name the erased one: a refund's payment, say."""
    query = select(_keys.c.owner).where(_keys.c.sealed.is_not(None), _keys.c.owner != GENERAL)
    names = [name for name in connection.execute(query).scalars() if not name.startswith(_CUSTOMER_PREFIX)]
    for start in range(0, len(names), _HISTORIES_AT_ONCE):
        batch = names[start : start + _HISTORIES_AT_ONCE]
        for name, owners in _owners_by_history(connection, vault, batch).items():
            if owner_of(erased) in owners:
                yield name


def _late_owners(connection: Connection, vault: Vault, events: Iterable[Event], keys: Keys) -> list[str]:
    """The owners of `events` that are histories, not customers, and that name a customer erased already.

    A dispute may come after its customer was erased, or name its payment only then.
    """
    names: set[str] = set()
    for event in events:
        owner = owner_of(event)
        names |= {owner} if keys.get(owner) else set(subjects(event))
    names = {name for name in names if name != GENERAL and not name.startswith(_CUSTOMER_PREFIX)}
    if not names:
        return []
    owners_by_name = _owners_by_history(connection, vault, sorted(names))
    named = {owner for owners in owners_by_name.values() for owner in owners}
    current_keys = vault.read_keys(connection, named)
    destroyed = {owner for owner, key in current_keys.items() if key is None}
    erased = {owner for owner in destroyed if owner.startswith(_CUSTOMER_PREFIX)}
    return [name for name, owners in owners_by_name.items() if owners & erased]


def _owners_by_history(connection: Connection, vault: Vault, names: Sequence[str]) -> dict[str, set[str]]:
    """The owners of the events of each of these histories."""
    events_by_name = read_histories(connection, names, _ALL_POSITIONS, vault, whole=True)
    return {name: {owner_of(event) for event in history} for name, history in events_by_name.items()}


def _empty_quarantined(connection: Connection, vault: Vault, erased: Event) -> None:
    """Empty the bodies in quarantine that mention the customer; an unreadable body has no known owner."""
    assert isinstance(erased.data, CustomerErased)  # noqa: S101 - chosen by the caller
    names: set[str] = set()
    for event in read_histories(connection, [owner_of(erased)], _ALL_POSITIONS, vault, whole=True)[
        owner_of(erased)
    ]:
        if isinstance(event.data, Customer):
            names |= {text.strip().casefold() for text in (event.data.name, event.data.email) if text}
    columns = _quarantine.c.headers, _quarantine.c.body, _quarantine.c.proof
    rows = connection.execute(select(*columns, _quarantine.c.id)).all()
    bodies = vault.unseal_bodies(connection, [StoredBody(*row[:3]) for row in rows])
    for row, body in zip(rows, bodies, strict=True):
        if body and _mentions(body, erased.data.customer_id, names - {""}):
            empty = update(_quarantine).where(_quarantine.c.id == row.id).values(body=ERASED)
            append_records(connection, connection.execute(empty.returning(_quarantine)).mappings().all())


def _mentions(body: bytes, customer_id: str, names: Iterable[str]) -> bool:
    """Whether a body holds a customer's id or, as a value or within one, their name or e-mail address.

    A name of one word may be a common word, so it must be a whole value.
    """
    try:
        values = [str(value) for value in _scalars(parse_json(body))]
    except NOT_JSON:
        text = body.decode(errors="replace")
        return any(
            _contains_words(customer_id, each) or _contains_any_name(names, each)
            for each in (text, unquote_plus(text))
        )
    return customer_id in values or any(
        value.strip().casefold() in names or _contains_any_name(names, value) for value in values
    )


def _scalars(document: Any) -> Iterator[str | int | float]:
    """The texts and numbers in a parsed JSON document."""
    if isinstance(document, dict | list):
        for child in document.values() if isinstance(document, dict) else document:
            yield from _scalars(child)
    elif isinstance(document, str | int | float):
        yield document


def _contains_any_name(names: Iterable[str], text: str) -> bool:
    return any(_contains_words(name, text) for name in names if " " in name or "@" in name)


def _contains_words(words: str, text: str) -> bool:
    """Whether a text contains these words as whole words, in upper or lower case."""
    return bool(re.search(rf"(?<!\w){re.escape(words.casefold())}(?!\w)", text.casefold()))
