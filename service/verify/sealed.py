"""The ledger's sealed texts: each can be unsealed, or its key was destroyed by an event of an erasure."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Connection, Table, select

from service.core.errors import Integrity
from service.ledger import tables
from service.ledger.key_destruction import find_unexplained
from service.ledger.personal_data import has_sealed_fields, unseal_data
from service.ledger.reader import LedgerReader
from service.ledger.store import Ledger
from service.ledger.vault import GENERAL, StoredBody, Vault, owners_of_sealed, unseal
from service.verify.fault import Fault, Location

_PAGE = 1_000

_keys: Table = tables.Key.__table__  # type: ignore[attr-defined]


async def verify_sealed(
    ledger: Ledger, rows: list[dict[str, Any]], deliveries: Mapping[int, StoredBody]
) -> None:
    """Unseal these stored rows and raw bodies. Raises Fault at the first that can't be unsealed."""
    personal = [text for row in rows for text in (row["data"], row["before"]) if has_sealed_fields(text)]

    def check(connection: Connection) -> None:
        owners = {owner for raw in deliveries.values() for owner in owners_of_sealed(raw.body)}
        keys = _read_keys(connection, ledger.vault, owners)
        for position, raw in deliveries.items():
            for owner in owners_of_sealed(raw.body):
                if owner not in keys:
                    where = Location(table="keys", position=position, key=owner)
                    raise Fault(f"there is no key of {owner}, who is told of at position {position}", where)
            try:
                unseal(keys, raw.body, raw.context)
            except Integrity as error:
                where = Location(table="keys", position=position, key=owners_of_sealed(raw.body)[0])
                what = f"{error} at position {position}: its key, or what it came with, is another"
                raise Fault(what, where) from None
        unseal_data(connection, ledger.vault, personal)

    await ledger.read(check)


def _read_keys(connection: Connection, vault: Vault, owners: Iterable[str]) -> dict[str, bytes | None]:
    """The keys of these owners, as far as they have or had one. Raises Fault if one can't be unsealed."""
    names = sorted(owners)
    try:
        return vault.read_keys(connection, names)
    except Integrity as error:
        if len(names) == 1:
            raise Fault(str(error), Location(table="keys", key=names[0], columns=("sealed",))) from None
    keys: dict[str, bytes | None] = {}
    for name in names:  # the faulty one raises
        keys |= _read_keys(connection, vault, [name])
    return keys


async def verify_keys(ledger: Ledger, reader: LedgerReader) -> None:
    """Check that each key can be unsealed, or was destroyed by an erasure; unseal the quarantine."""
    if await ledger.read(partial(_lacks_general, vault=ledger.vault)):
        where = Location(table="keys", key=GENERAL, columns=("sealed",))
        raise Fault(f"the key of {GENERAL} is gone", where)
    last = ""
    while names := await ledger.read(partial(_key_owners, after=last)):
        await ledger.read(partial(_verify_destroyed, vault=ledger.vault, names=names))
        last = names[-1]
    number = 0
    while page := await _read_quarantine(reader, number, _PAGE):
        number = page[-1]["id"]


async def _read_quarantine(reader: LedgerReader, after: int, limit: int) -> list[dict[str, Any]]:
    """Deliveries in quarantine, unsealed. Raises Fault if one can't be unsealed."""
    try:
        return await reader.quarantined_deliveries(after, limit)
    except Integrity as error:
        if limit == 1:
            where = Location(table="quarantine", key=f"after {after}", columns=("body",))
            raise Fault(f"quarantine, the first after id {after}: {error}", where) from None
    while page := await _read_quarantine(reader, after, 1):  # one of them raises
        after = page[-1]["id"]
    return []


def _lacks_general(connection: Connection, vault: Vault) -> bool:
    return _read_keys(connection, vault, [GENERAL]).get(GENERAL) is None


def _key_owners(connection: Connection, after: str) -> list[str]:
    query = select(_keys.c.owner).where(_keys.c.owner > after).order_by(_keys.c.owner).limit(_PAGE)
    return list(connection.execute(query).scalars())


def _verify_destroyed(connection: Connection, vault: Vault, names: list[str]) -> None:
    keys = _read_keys(connection, vault, names)
    destroyed = [name for name in names if keys[name] is None]
    for name in find_unexplained(connection, vault, destroyed):
        where = Location(table="keys", key=name, columns=("sealed",))
        raise Fault(f"the key of {name} is gone, and no event says that they were erased", where)
