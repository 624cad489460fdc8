"""Erasing a customer: with the event that says so, the keys of all that was said of them are destroyed."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote_plus

from msgspec import DecodeError, json
from sqlalchemy import Connection, select, update

from service.core.events import Customer, CustomerErased, Event, subjects
from service.ledger import tables
from service.ledger.history import histories
from service.ledger.personal_data import owner_of
from service.ledger.vault import GENERAL, Keys, Vault, destroy_keys

_keys = tables.Key.__table__  # type: ignore[attr-defined]
_quarantine = tables.Quarantine.__table__  # type: ignore[attr-defined]

ERASED = b""  # the body of a delivery in quarantine that told of somebody erased
_CUSTOMER = "customer|"  # begins the owners that are customers
_PIECE = 500  # histories read at once
_ALL = 2**62


def erase(connection: Connection, vault: Vault, events: Sequence[Event], keys: Keys) -> None:
    """Destroy what these events, as they are appended, say is erased. Again does no harm.

    `keys` are their owners', as they were before.
    """
    for event in events:
        if isinstance(event.data, CustomerErased):
            _forget_quarantined(connection, vault, event)
            destroy_keys(connection, [owner_of(event), *_others(connection, vault, event)])
    if late := _late(connection, vault, events, keys):
        destroy_keys(connection, late)


def _others(connection: Connection, vault: Vault, erased: Event) -> Iterator[str]:
    """Owners that are no customer, but whose histories name this one: a refund's payment, say."""
    listed = select(_keys.c.owner).where(_keys.c.sealed.is_not(None), _keys.c.owner != GENERAL)
    names = [name for name in connection.execute(listed).scalars() if not name.startswith(_CUSTOMER)]
    for start in range(0, len(names), _PIECE):
        for name, told_of in _owners(connection, vault, names[start : start + _PIECE]).items():
            if owner_of(erased) in told_of:
                yield name


def _late(connection: Connection, vault: Vault, events: Iterable[Event], keys: Keys) -> list[str]:
    """Owners that are no customer, and of which these events tell, whose histories name somebody erased.

    So it is when a dispute comes after its customer was erased, or its payment only then.
    """
    names: set[str] = set()
    for event in events:
        owner = owner_of(event)
        names |= {owner} if keys.get(owner) else set(subjects(event))
    names = {name for name in names if name != GENERAL and not name.startswith(_CUSTOMER)}
    found = _owners(connection, vault, sorted(names)) if names else {}
    now = vault.keys(connection, {owner for told_of in found.values() for owner in told_of})
    gone = {owner for owner, key in now.items() if key is None and owner.startswith(_CUSTOMER)}
    return [name for name, told_of in found.items() if told_of & gone]


def _owners(connection: Connection, vault: Vault, names: Sequence[str]) -> dict[str, set[str]]:
    """Whom the events of each of these histories name."""
    found = histories(connection, names, _ALL, vault)
    return {name: {owner_of(event) for event in history} for name, history in found.items()}


def _forget_quarantined(connection: Connection, vault: Vault, erased: Event) -> None:
    """Empty the bodies in quarantine that tell of a customer: whose they are could not be read."""
    assert isinstance(erased.data, CustomerErased)  # noqa: S101 - chosen by the caller
    names: set[str] = set()
    for event in histories(connection, [owner_of(erased)], _ALL, vault)[owner_of(erased)]:
        if isinstance(event.data, Customer):
            names |= {text.strip().casefold() for text in (event.data.name, event.data.email) if text}
    rows = connection.execute(select(_quarantine.c.id, _quarantine.c.body)).all()
    bodies = vault.open(connection, [row.body for row in rows])
    for row, body in zip(rows, bodies, strict=True):
        if body and _tells_of(body, erased.data.customer_id, names - {""}):
            connection.execute(update(_quarantine).where(_quarantine.c.id == row.id).values(body=ERASED))


def _tells_of(body: bytes, customer_id: str, names: Iterable[str]) -> bool:
    """Whether a body holds a customer's id or, as a value or within one, their name or e-mail address.

    One word alone may be anybody's and anything's, so as a name it has to be a whole value.
    """
    try:
        values = [str(value) for value in _values(json.decode(body))]
    except (DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="replace")
        return any(
            _within(customer_id, each) or _any_within(names, each) for each in (text, unquote_plus(text))
        )
    return customer_id in values or any(
        value.strip().casefold() in names or _any_within(names, value) for value in values
    )


def _values(told: Any) -> Iterator[str | int | float]:
    """The texts and numbers in a JSON document."""
    if isinstance(told, dict | list):
        for each in told.values() if isinstance(told, dict) else told:
            yield from _values(each)
    elif isinstance(told, str | int | float):
        yield told


def _any_within(names: Iterable[str], text: str) -> bool:
    return any(_within(name, text) for name in names if " " in name or "@" in name)


def _within(words: str, text: str) -> bool:
    """Whether a text holds these words, and not within others."""
    return bool(re.search(rf"(?<!\w){re.escape(words.casefold())}(?!\w)", text.casefold()))
