"""Snapshots: documents that the worker leaves ready, so that a read is a lookup.

Each bears the version of the rows that it was made from, and is found only while that is the books' own. They
are made again once the worker has caught up.
"""

from datetime import date
from pathlib import Path
from typing import Any
from zlib import crc32

from msgspec import json
from sqlalchemy import Connection, delete, select

from service import predictions, reads
from service.books.store import BookPositions, BookStore
from service.books.tables import TOTALS, snapshots
from service.books.view import DEFAULT_OPTIONS, ReadOptions, Scope, View
from service.reads.catalog import READS
from service.reads.parameters import parse_all
from service.reads.read import Read
from service.storage.statements import HotInsert

# Another version of this code may make the same document in another shape.
_SOURCES = sorted(path for of in (reads, predictions) for path in Path(of.__path__[0]).rglob("*.py"))
CODE = crc32(b"".join(path.read_bytes() for path in _SOURCES))


def snapshot_name(
    store: BookStore, read: Read, scope: Scope, args: dict[str, Any], options: ReadOptions = DEFAULT_OPTIONS
) -> str:
    """The name under which a document stands: of which books and code, what was asked, with every default."""
    limits = [str(limit) for limit in options.segment_limits]
    asked = json.encode([CODE, store.key, limits, scope.account, scope.today, args]).decode()
    return f"{read.name}|{scope.currency}|{asked}"


def find(connection: Connection, name: str, version: int) -> bytes | None:
    """The document of this name, if it stands and is right for the rows of this view."""
    return connection.execute(
        select(snapshots.c.body).where(snapshots.c.name == name, snapshots.c.version == version)
    ).scalar()


async def forget(store: BookStore) -> None:
    """Remove what other code has made: nobody will find it."""
    others = snapshots.c.name.not_like(f"%[{CODE},%")
    await store.write(lambda connection: connection.execute(delete(snapshots).where(others)))


async def make_ready(store: BookStore, today: date, options: ReadOptions = DEFAULT_OPTIONS) -> int:
    """Make those standing documents that are missing or no longer right; how many that were."""
    version, documents = await store.read(lambda connection: _missing(connection, store, today, options))
    if documents:
        rows = [(name, version, body) for name, body in sorted(documents.items())]
        await store.write(lambda connection: _keep(connection, rows, today))
    return len(documents)


def _missing(
    connection: Connection, store: BookStore, today: date, options: ReadOptions
) -> tuple[int, dict[str, bytes]]:
    positions = store.positions(connection)
    documents = {}
    for currency in currencies(connection, positions):
        scope = Scope(currency=currency, today=today)
        view = View(connection=connection, books=positions.books, scope=scope, options=options)
        for read in (read for read in READS if read.standing):
            args = parse_all(read.parameters, {}, today)
            name = snapshot_name(store, read, view.scope, args, options)
            if find(connection, name, positions.version) is None:
                documents[name] = json.encode(read.answer(view, args))
    return positions.version, documents


def currencies(connection: Connection, positions: BookPositions) -> list[str]:
    """The currencies of the books."""
    found: set[str] = set()
    for table, book in (("bill_days", "bills"), ("order_days", "revenue")):
        days = TOTALS[table]
        query = select(days.c.currency).distinct().where(days.c.book == positions.books[book])
        found.update(connection.execute(query).scalars())
    return sorted(found)


def _keep(connection: Connection, rows: list[tuple[str, int, bytes]], today: date) -> None:
    """A newer document is not replaced by an older one that took longer to make."""
    _KEEP.add(connection, rows)
    connection.execute(delete(snapshots).where(snapshots.c.name.not_like(f'%"{today.isoformat()}"%')))


_KEEP = HotInsert(
    snapshots,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=["name"],
        set_={"version": insert.excluded.version, "body": insert.excluded.body},
        where=snapshots.c.version < insert.excluded.version,
    ),
)
