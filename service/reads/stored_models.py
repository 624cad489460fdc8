"""What the worker has learnt of a currency: kept until it learns again, from whatever rows it was."""

from collections.abc import Mapping
from datetime import date

from msgspec import json
from sqlalchemy import Connection, delete, select

from service.books.store import BookPositions, BookStore
from service.books.tables import stored_models
from service.reads.snapshots import CODE
from service.storage.statements import HotInsert


def find(connection: Connection, store: BookStore, what: str, currency: str) -> bytes | None:
    """The last document of this kind, by this code from books of these versions."""
    query = select(stored_models.c.body).where(stored_models.c.name == _name(store, what, currency))
    return connection.execute(query).scalar()


def is_fresh(
    connection: Connection, store: BookStore, what: str, currency: str, version: int, day: date
) -> bool:
    """Whether the document is of the rows of `version` and of this day."""
    query = select(stored_models.c.version, stored_models.c.day).where(
        stored_models.c.name == _name(store, what, currency)
    )
    return tuple(connection.execute(query).one_or_none() or ()) == (version, day.isoformat())


def positions(connection: Connection, store: BookStore, what: str) -> dict[str, int]:
    """The ledger position of each currency's document."""
    names = stored_models.c.name.like(_name(store, what, "%"))
    return {
        row.name.split("|")[1]: row.position for row in connection.execute(select(stored_models).where(names))
    }


async def keep(
    store: BookStore, currency: str, positions: BookPositions, day: date, documents: Mapping[str, bytes]
) -> None:
    """Keep documents by their kind, in place of those before, and none of other code."""
    rows = [
        (_name(store, what, currency), positions.version, positions.position, day.isoformat(), body)
        for what, body in sorted(documents.items())
    ]

    def write(connection: Connection) -> None:
        connection.execute(delete(stored_models).where(stored_models.c.name.not_like(f"%[{CODE},%")))
        _KEEP.add(connection, rows)

    await store.write(write)


def _name(store: BookStore, what: str, currency: str) -> str:
    return f"{what}|{currency}|{json.encode([CODE, store.key]).decode()}"


_KEEP = HotInsert(
    stored_models,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=["name"],
        set_={name: insert.excluded[name] for name in ("version", "position", "day", "body")},
    ),
)
