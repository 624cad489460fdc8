"""Snapshots: documents that the worker leaves ready, so that a read is a lookup.

A transaction that changes rows removes the snapshots as it commits, so what is found is right at the
books' position. They are made again once the worker has caught up.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

from msgspec import json
from sqlalchemy import Connection, delete, insert, select

from service.books.engine import Changes
from service.books.store import BookStore
from service.books.tables import TOTALS, snapshots
from service.reads.catalog import READS, Read
from service.reads.parameters import parse_all
from service.reads.view import Scope, View


def snapshot_name(store: BookStore, read: Read, scope: Scope, args: dict[str, Any]) -> str:
    """The name under which a document stands: of which books, what was asked, every default filled in."""
    versions = [(book.name, book.version) for book in store.books]
    asked = json.encode([store.rules_key, versions, scope.account, scope.today, args]).decode()
    return f"{read.name}|{scope.currency}|{asked}"


def find(connection: Connection, name: str) -> bytes | None:
    """The document of this name, if it stands."""
    return connection.execute(select(snapshots.c.body).where(snapshots.c.name == name)).scalar()


def drop_stale(connection: Connection, changes: Mapping[str, Changes]) -> None:
    """Remove every snapshot if any row changed: one currency's MRR names the others beside it."""
    if any(change.removed or change.added for change in changes.values()):
        connection.execute(delete(snapshots))


async def forget(store: BookStore) -> None:
    """Remove every snapshot: another version of the code may have made it in another shape."""
    await store.write(lambda connection: connection.execute(delete(snapshots)))


async def make_ready(store: BookStore, today: date) -> int:
    """Make those standing documents that are missing, in one transaction; how many that were."""
    return await store.write(lambda connection: _make_ready(connection, store, today))


def _make_ready(connection: Connection, store: BookStore, today: date) -> int:
    marks = store.checkpoints(connection)
    books = {name: book_id for name, (book_id, _) in marks.items()}
    days = TOTALS["bill_days"]
    currencies = connection.execute(select(days.c.currency).distinct().where(days.c.book == books["bills"]))
    missing = []
    for currency in currencies.scalars().all():
        view = View(connection=connection, books=books, scope=Scope(currency=currency, today=today))
        for read in (read for read in READS if read.standing):
            args = parse_all(read.parameters, {}, today)
            name = snapshot_name(store, read, view.scope, args)
            if find(connection, name) is None:
                missing.append({"name": name, "body": json.encode(read.answer(view, args))})
    if missing:
        position = min(at for _, at in marks.values())
        connection.execute(insert(snapshots), [{**row, "position": position} for row in missing])
    connection.execute(delete(snapshots).where(snapshots.c.name.not_like(f'%"{today.isoformat()}"%')))
    return len(missing)
