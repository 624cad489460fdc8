"""What the worker has learnt of a currency: kept until it learns again, from whatever rows it was."""

from collections.abc import Mapping
from datetime import date

from msgspec import json
from sqlalchemy import Connection, delete, select

from service.books.store import BookStore, Marks
from service.books.tables import learnt
from service.reads.snapshots import CODE
from service.storage.statements import HotInsert


def find(connection: Connection, store: BookStore, what: str, currency: str) -> bytes | None:
    """The last document of this kind, by this code from books of these versions."""
    query = select(learnt.c.body).where(learnt.c.name == _name(store, what, currency))
    return connection.execute(query).scalar()


def is_fresh(
    connection: Connection, store: BookStore, what: str, currency: str, stamp: int, day: date
) -> bool:
    """Whether the document is of the rows of `stamp` and of this day."""
    query = select(learnt.c.stamp, learnt.c.day).where(learnt.c.name == _name(store, what, currency))
    return tuple(connection.execute(query).one_or_none() or ()) == (stamp, day.isoformat())


def positions(connection: Connection, store: BookStore, what: str) -> dict[str, int]:
    """The ledger position of each currency's document."""
    names = learnt.c.name.like(_name(store, what, "%"))
    return {row.name.split("|")[1]: row.position for row in connection.execute(select(learnt).where(names))}


async def keep(
    store: BookStore, currency: str, marks: Marks, day: date, documents: Mapping[str, bytes]
) -> None:
    """Keep documents by their kind, in place of those before, and none of other code."""
    rows = [
        (_name(store, what, currency), marks.stamp, marks.position, day.isoformat(), body)
        for what, body in sorted(documents.items())
    ]

    def write(connection: Connection) -> None:
        connection.execute(delete(learnt).where(learnt.c.name.not_like(f"%[{CODE},%")))
        _KEEP.add(connection, rows)

    await store.write(write)


def _name(store: BookStore, what: str, currency: str) -> str:
    return f"{what}|{currency}|{json.encode([CODE, store.key]).decode()}"


_KEEP = HotInsert(
    learnt,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=["name"],
        set_={name: insert.excluded[name] for name in ("stamp", "position", "day", "body")},
    ),
)
