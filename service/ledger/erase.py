"""Erasing a customer: with the event that says so, the keys of all that was said of them are destroyed."""

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, select, update

from service.core.events import Customer, CustomerErased, Event
from service.ledger import tables
from service.ledger.history import histories
from service.ledger.people import owner_of
from service.ledger.vault import GENERAL, Vault, destroy_keys

_keys = tables.Key.__table__  # type: ignore[attr-defined]
_quarantine = tables.Quarantine.__table__  # type: ignore[attr-defined]

ERASED = b""  # the body of a delivery in quarantine that told of somebody erased
_PIECE = 500  # histories read at once
_ALL = 2**62


def erase(connection: Connection, vault: Vault, events: Iterable[Event]) -> None:
    """Destroy what these events, as they are appended, say is erased. Again does no harm."""
    for event in events:
        if isinstance(event.data, CustomerErased):
            _forget_quarantined(connection, vault, event)
            destroy_keys(connection, [owner_of(event), *_others(connection, vault, event)])


def _others(connection: Connection, vault: Vault, erased: Event) -> Iterator[str]:
    """Owners that are no customer, but whose histories name this one: a refund's payment, say."""
    listed = select(_keys.c.owner).where(_keys.c.sealed.is_not(None), _keys.c.owner != GENERAL)
    names = [name for name in connection.execute(listed).scalars() if not name.startswith("customer|")]
    for start in range(0, len(names), _PIECE):
        found = histories(connection, names[start : start + _PIECE], _ALL, vault)
        for name, history in found.items():
            if any(owner_of(event) == owner_of(erased) for event in history):
                yield name


def _forget_quarantined(connection: Connection, vault: Vault, erased: Event) -> None:
    """Empty the bodies in quarantine that tell of a customer: whose they are could not be read."""
    assert isinstance(erased.data, CustomerErased)  # noqa: S101 - chosen by the caller
    words = {f'"{erased.data.customer_id}"'.encode()}
    for event in histories(connection, [owner_of(erased)], _ALL, vault)[owner_of(erased)]:
        if isinstance(event.data, Customer):
            words |= {text.encode() for text in (event.data.name, event.data.email) if text}
    rows = connection.execute(select(_quarantine.c.id, _quarantine.c.body)).all()
    bodies = vault.open(connection, [row.body for row in rows])
    told = [row.id for row, body in zip(rows, bodies, strict=True) if body and any(w in body for w in words)]
    for number in told:
        connection.execute(update(_quarantine).where(_quarantine.c.id == number).values(body=ERASED))
