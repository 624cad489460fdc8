"""The models that the worker has fitted, by currency: of all accounts, and of each.

A model is kept until the worker fits it again.
"""

from collections.abc import Mapping
from datetime import date

from msgspec import json
from sqlalchemy import Connection, delete, select

from service.books.store import BookPositions, BookStore
from service.books.tables import stored_models
from service.reads.snapshots import CODE
from service.storage.statements import HotInsert


def find(
    connection: Connection, store: BookStore, kind: str, currency: str, account: str | None = None
) -> bytes | None:
    """The last document of this kind, made by this code from books of these versions.

    It is of one account, or of all where `account` is None.
    """
    query = select(stored_models.c.body).where(stored_models.c.name == _name(store, kind, currency, account))
    return connection.execute(query).scalar()


def is_fresh(
    connection: Connection, store: BookStore, kind: str, currency: str, version: int, day: date
) -> bool:
    """Whether the document of all accounts was made from the rows of `version` and for this day."""
    query = select(stored_models.c.version, stored_models.c.day).where(
        stored_models.c.name == _name(store, kind, currency)
    )
    return tuple(connection.execute(query).one_or_none() or ()) == (version, day.isoformat())


def positions(connection: Connection, store: BookStore, kind: str) -> dict[str, int]:
    """The ledger position of each currency's document of all accounts."""
    names = stored_models.c.name.like(_name(store, kind, "%"))
    return {
        row.name.split("|")[1]: row.position for row in connection.execute(select(stored_models).where(names))
    }


async def save(
    store: BookStore,
    currency: str,
    positions: BookPositions,
    day: date,
    documents: Mapping[str | None, Mapping[str, bytes]],
) -> None:
    """Save documents by account and kind in place of earlier ones; delete those of other code's versions."""
    rows = sorted(
        (_name(store, kind, currency, account), positions.version, positions.position, day.isoformat(), body)
        for account, of_account in documents.items()
        for kind, body in of_account.items()
    )

    def write(connection: Connection) -> None:
        connection.execute(delete(stored_models).where(stored_models.c.name.not_like(f"%[{CODE},%")))
        _UPSERT.add(connection, rows)

    await store.write(write)


def _name(store: BookStore, kind: str, currency: str, account: str | None = None) -> str:
    key = [CODE, store.key] if account is None else [CODE, store.key, account]
    return f"{kind}|{currency}|{json.encode(key).decode()}"


_UPSERT = HotInsert(
    stored_models,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=["name"],
        set_={name: insert.excluded[name] for name in ("version", "position", "day", "body")},
    ),
)
