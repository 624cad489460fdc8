"""Cursors: the progress and the findings of long tasks, by their names.

They say what need not be done again, so each is stored with a digest that takes the master key: one that
another hand wrote counts as none, and the task begins anew.
"""

import hmac
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from msgspec import json
from sqlalchemy import Connection, select

from service.core.moments import to_us
from service.ledger import tables
from service.ledger.vault import Vault
from service.storage.statements import HotInsert

_DIGEST_BYTES = 32  # which begin the stored body

_cursors = tables.Cursor.__table__  # type: ignore[attr-defined]

_SAVE = HotInsert(
    _cursors,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=["name"],
        set_={name: insert.excluded[name] for name in ("body", "kept_at_us")},
    ),
)


def save_cursor(connection: Connection, vault: Vault, name: str, body: bytes, now: datetime) -> None:
    """Save a cursor in place of the last one under this name."""
    kept_at_us = to_us(now)
    _SAVE.add(connection, [(name, _digest(vault, name, body, kept_at_us) + body, kept_at_us)])


def read_cursors(connection: Connection, vault: Vault, names: Iterable[str]) -> dict[str, bytes]:
    """Those of the named cursors that were saved with the vault's key, by name."""
    query = select(_cursors).where(_cursors.c.name.in_(list(names)))
    rows = connection.execute(query).all()
    return {row.name: row.body[_DIGEST_BYTES:] for row in rows if _is_ours(vault, row)}


def find_forged(connection: Connection, vault: Vault) -> Iterator[str]:
    """The names of the cursors that were not saved with the vault's key."""
    rows = connection.execute(select(_cursors).order_by(_cursors.c.name)).all()
    return (row.name for row in rows if not _is_ours(vault, row))


def _is_ours(vault: Vault, row: Any) -> bool:
    if not isinstance(row.body, bytes):  # SQLite holds any type
        return False
    digest, body = row.body[:_DIGEST_BYTES], row.body[_DIGEST_BYTES:]
    return hmac.compare_digest(digest, _digest(vault, row.name, body, row.kept_at_us))


def _digest(vault: Vault, name: str, body: bytes, kept_at_us: int) -> bytes:
    return vault.digest(b"daybook cursor\n" + json.encode((name, kept_at_us)) + b"\n" + body)
