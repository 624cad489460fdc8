"""What is sealed in the ledger: it opens, or its key was destroyed together with the event that says so."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection, Table, select

from service.core.errors import Integrity
from service.core.events import CustomerErased
from service.ledger import tables
from service.ledger.history import read_histories
from service.ledger.personal_data import PERSONAL, unseal_data
from service.ledger.store import Ledger, LedgerReader
from service.ledger.vault import Vault, owners_of_sealed, unseal
from service.verify.fault import Fault, Where

_PAGE = 1_000
_ALL = 2**62

_keys: Table = tables.Key.__table__  # type: ignore[attr-defined]


async def verify_sealed(ledger: Ledger, rows: list[dict[str, Any]], bodies: Mapping[int, bytes]) -> None:
    """Open what these rows and raw bodies, as they are stored, have sealed. Raises Fault at the first."""
    personal = [
        text for row in rows if row["type"] == PERSONAL for text in (row["data"], row["before"]) if text
    ]

    def check(connection: Connection) -> None:
        keys = _unwrapped(
            connection, ledger.vault, {o for body in bodies.values() for o in owners_of_sealed(body)}
        )
        for position, body in bodies.items():
            for owner in owners_of_sealed(body):
                if owner not in keys:
                    where = Where(table="keys", position=position, key=owner)
                    raise Fault(f"there is no key of {owner}, who is told of at position {position}", where)
            try:
                unseal(keys, body)
            except Integrity as error:
                where = Where(table="keys", position=position, key=owners_of_sealed(body)[0])
                raise Fault(f"{error} at position {position}: its key is another", where) from None
        unseal_data(connection, ledger.vault, personal)

    await ledger.read(check)


def _unwrapped(connection: Connection, vault: Vault, owners: Iterable[str]) -> dict[str, bytes | None]:
    """The keys of these owners, of those who have or had one."""
    names = sorted(owners)
    try:
        return vault.read_keys(connection, names)
    except Integrity as error:
        if len(names) == 1:
            raise Fault(str(error), Where(table="keys", key=names[0], columns=("sealed",))) from None
    found: dict[str, bytes | None] = {}
    for name in names:  # one of them raises
        found |= _unwrapped(connection, vault, [name])
    return found


async def verify_keys(ledger: Ledger, reader: LedgerReader) -> None:
    """Whether each key opens, or was destroyed with its customer; and what is sealed in quarantine."""
    last = ""
    while names := await ledger.read(partial(_owners, after=last)):
        await ledger.read(partial(_verify_destroyed, vault=ledger.vault, names=names))
        last = names[-1]
    number = 0
    while page := await _quarantined(reader, number, _PAGE):
        number = page[-1]["id"]


async def _quarantined(reader: LedgerReader, after: int, limit: int) -> list[dict[str, Any]]:
    """Deliveries in quarantine, opened."""
    try:
        return await reader.quarantined_deliveries(after, limit)
    except Integrity as error:
        if limit == 1:
            where = Where(table="quarantine", key=f"after {after}", columns=("body",))
            raise Fault(f"quarantine, the first after id {after}: {error}", where) from None
    while page := await _quarantined(reader, after, 1):  # one of them raises
        after = page[-1]["id"]
    return []


def _owners(connection: Connection, after: str) -> list[str]:
    query = select(_keys.c.owner).where(_keys.c.owner > after).order_by(_keys.c.owner).limit(_PAGE)
    return list(connection.execute(query).scalars())


def _verify_destroyed(connection: Connection, vault: Vault, names: list[str]) -> None:
    keys = _unwrapped(connection, vault, names)
    gone = [name for name in names if keys[name] is None and name.startswith("customer|")]
    for name, history in read_histories(connection, gone, _ALL, vault).items():
        if not any(isinstance(event.data, CustomerErased) for event in history):
            where = Where(table="keys", key=name, columns=("sealed",))
            raise Fault(f"the key of {name} is gone, and no event says that they were erased", where)
