"""Snapshots: precomputed documents, so that a read is a lookup.

Each has the version of the rows from which it was made, and is found only while the books have that version.
The worker makes them again once the books have caught up with the ledger.
"""

from datetime import date
from itertools import product
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
_SOURCES = sorted(
    path for package in (reads, predictions) for path in Path(package.__path__[0]).rglob("*.py")
)
CODE = crc32(b"".join(path.read_bytes() for path in _SOURCES))


def snapshot_name(
    store: BookStore, read: Read, scope: Scope, args: dict[str, Any], options: ReadOptions = DEFAULT_OPTIONS
) -> str:
    """The name of a document: it holds the books, the code, whether names are shown, and all parameters."""
    limits = [[str(limit) for limit in options.segment_limits], options.frequency_limits]
    key = json.encode(
        [CODE, store.key, limits, options.treatment, scope.account, scope.today, scope.people, args]
    ).decode()
    return f"{read.name}|{scope.currency}|{key}"


def find(connection: Connection, name: str, version: int) -> bytes | None:
    """The document of this name, if there is one for this version of the rows."""
    return connection.execute(
        select(snapshots.c.body).where(snapshots.c.name == name, snapshots.c.version == version)
    ).scalar()


async def remove_outdated(store: BookStore) -> None:
    """Remove the documents that other versions of the code have made: no read looks for them."""
    is_of_other_code = snapshots.c.name.not_like(f"%[{CODE},%")
    await store.write(lambda connection: connection.execute(delete(snapshots).where(is_of_other_code)))


async def precompute(store: BookStore, today: date, options: ReadOptions = DEFAULT_OPTIONS) -> int:
    """Make the precomputed documents that are missing or outdated. Returns their number."""
    version, documents = await store.read(lambda connection: _missing(connection, store, today, options))
    if documents:
        rows = [(name, version, body) for name, body in sorted(documents.items())]
        await store.write(lambda connection: _save(connection, rows, today))
    return len(documents)


def _missing(
    connection: Connection, store: BookStore, today: date, options: ReadOptions
) -> tuple[int, dict[str, bytes]]:
    positions = store.positions(connection)
    documents = {}
    people = (True, False) if options.hides_people else (True,)
    for currency, with_people in product(list_currencies(connection, positions), people):
        scope = Scope(currency=currency, today=today, people=with_people)
        view = View(connection=connection, books=positions.books, scope=scope, options=options)
        for read in (read for read in READS if read.precomputed):
            args = parse_all(read.parameters, {}, today)
            name = snapshot_name(store, read, view.scope, args, options)
            if find(connection, name, positions.version) is None:
                documents[name] = json.encode(read.answer(view, args))
    return positions.version, documents


def list_currencies(connection: Connection, positions: BookPositions) -> list[str]:
    """The currencies of the books, sorted."""
    currencies: set[str] = set()
    for table, book in (("bill_days", "bills"), ("order_days", "revenue")):
        days = TOTALS[table]
        query = select(days.c.currency).distinct().where(days.c.book == positions.books[book])
        currencies.update(connection.execute(query).scalars())
    return sorted(currencies)


def _save(connection: Connection, rows: list[tuple[str, int, bytes]], today: date) -> None:
    """Save documents, and remove those of other days. An older document never replaces a newer one."""
    _UPSERT.add(connection, rows)
    connection.execute(delete(snapshots).where(snapshots.c.name.not_like(f'%"{today.isoformat()}"%')))


_UPSERT = HotInsert(
    snapshots,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=["name"],
        set_={"version": insert.excluded.version, "body": insert.excluded.body},
        where=snapshots.c.version < insert.excluded.version,
    ),
)
