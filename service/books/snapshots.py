"""Snapshots: documents that the worker leaves ready, so that a read is a lookup.

Each bears the stamp of the rows that it was made from, and is found only while that is the books' own. They
are made again once the worker has caught up.
"""

from datetime import date
from pathlib import Path
from typing import Any
from zlib import crc32

from msgspec import json
from sqlalchemy import Connection, delete, select

from service import reads
from service.books.store import BookStore
from service.books.tables import TOTALS, snapshots
from service.reads.catalog import READS
from service.reads.parameters import parse_all
from service.reads.read import Read
from service.reads.view import Scope, View
from service.sql import HotInsert

# Another version of the reads may make the same document in another shape.
_CODE = crc32(b"".join(path.read_bytes() for path in sorted(Path(reads.__file__).parent.glob("*.py"))))


def snapshot_name(store: BookStore, read: Read, scope: Scope, args: dict[str, Any]) -> str:
    """The name under which a document stands: of which books and code, what was asked, with every default."""
    asked = json.encode([_CODE, sorted(store.versions), scope.account, scope.today, args]).decode()
    return f"{read.name}|{scope.currency}|{asked}"


def find(connection: Connection, name: str, stamp: int) -> bytes | None:
    """The document of this name, if it stands and is right for the rows of this view."""
    return connection.execute(
        select(snapshots.c.body).where(snapshots.c.name == name, snapshots.c.stamp == stamp)
    ).scalar()


async def forget(store: BookStore) -> None:
    """Remove every snapshot: another version of the code may have made it in another shape."""
    await store.write(lambda connection: connection.execute(delete(snapshots)))


async def make_ready(store: BookStore, today: date) -> int:
    """Make those standing documents that are missing or no longer right; how many that were."""
    stamp, documents = await store.read(lambda connection: _missing(connection, store, today))
    if documents:
        rows = [(name, stamp, body) for name, body in sorted(documents.items())]
        await store.write(lambda connection: _keep(connection, rows, today))
    return len(documents)


def _missing(connection: Connection, store: BookStore, today: date) -> tuple[int, dict[str, bytes]]:
    marks = store.marks(connection)
    days = TOTALS["bill_days"]
    currencies = connection.execute(
        select(days.c.currency).distinct().where(days.c.book == marks.books["bills"])
    )
    documents = {}
    for currency in currencies.scalars().all():
        view = View(connection=connection, books=marks.books, scope=Scope(currency=currency, today=today))
        for read in (read for read in READS if read.standing):
            args = parse_all(read.parameters, {}, today)
            name = snapshot_name(store, read, view.scope, args)
            if find(connection, name, marks.stamp) is None:
                documents[name] = json.encode(read.answer(view, args))
    return marks.stamp, documents


def _keep(connection: Connection, rows: list[tuple[str, int, bytes]], today: date) -> None:
    """A newer document is not replaced by an older one that took longer to make."""
    _KEEP.add(connection, rows)
    connection.execute(delete(snapshots).where(snapshots.c.name.not_like(f'%"{today.isoformat()}"%')))


_KEEP = HotInsert(
    snapshots,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=["name"],
        set_={"stamp": insert.excluded.stamp, "body": insert.excluded.body},
        where=snapshots.c.stamp < insert.excluded.stamp,
    ),
)
