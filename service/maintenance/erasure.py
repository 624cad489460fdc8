"""Erasing a customer: the ledger forgets, the books follow, and no file keeps what they said before."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from msgspec import Struct, json
from sqlalchemy import Connection, delete, select, text, update

from projections.customers import CustomerName
from service.books import tables
from service.books.engine import Engine, Overtaken
from service.books.store import BookStore
from service.bootstrap import LEDGER_SCHEMA, open_books, prepare
from service.core.delivery import Proof
from service.core.errors import NotFound, ParameterError, SettingsError, Unavailable
from service.core.events import REVISION_MARK, CustomerErased, Event, split_key
from service.ledger import tables as ledger_tables
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.ledger.vault import is_sealed
from service.lookback import files
from service.settings import Settings
from service.storage.database import (
    books_path,
    ledger_path,
    rewrite_postgres_tables,
    run_on_postgres,
    sqlite_engine,
)

_BOOKS_SECONDS = 60.0  # for the books to take it in
_FILES_SECONDS = 20.0  # for those who read a file to let go of what it held
_LOOK_SECONDS = 0.1

_keys = ledger_tables.Key.__table__  # type: ignore[attr-defined]
_names = tables.ROWS[CustomerName]


class Erased(Struct, frozen=True, kw_only=True):
    """Whom the ledger has forgotten, and the position of the event that says so."""

    customer_id: str
    processor: str
    account: str
    position: int


async def find(
    ledger: Ledger, customer_id: str, processor: str | None, account: str | None, now: datetime
) -> Event:
    """The event that will say that this customer is erased.

    Raises NotFound if the ledger tells of none, ParameterError if of several, SettingsError if it began
    before what it holds was sealed.
    """
    async with ledger.reading() as reader:
        if (await reader.head()).position and not is_sealed((await reader.stored_delivery(1))["body"]):
            raise SettingsError("this ledger began in the clear: import its export into an empty one first")
    known = await ledger.read(lambda connection: _known(connection, customer_id))
    found = [each for each in known if processor in (None, each[0]) and account in (None, each[1])]
    if not found:
        raise NotFound(f"the ledger tells of no customer {customer_id}")
    if len(found) > 1:
        listed = ", ".join(f"{of} {account}".strip() for of, account in found)
        raise ParameterError(f"there are several of that id, of {listed}: say --processor and --account")
    return Event(
        processor=found[0][0],
        account=found[0][1],
        event_id=f"{customer_id}{REVISION_MARK}erased",
        occurred_at=now,
        trust="unsigned",
        data=CustomerErased(customer_id=customer_id),
    )


def _known(connection: Connection, customer_id: str) -> list[tuple[str, str]]:
    """The processors and accounts that tell of a customer of this id."""
    owners = connection.execute(select(_keys.c.owner).where(_keys.c.owner.like("customer|%"))).scalars()
    found = (split_key(owner) for owner in owners)
    return sorted((each[1], each[2]) for each in found if each[-1] == customer_id)


async def erase(settings: Settings, ledger: Ledger, event: Event, clock: Callable[[], datetime]) -> Erased:
    """Append the event, with which the keys are gone, and leave nothing that was made of what they opened.

    Killed anywhere, or run again, it goes on from there. Raises Unavailable while others keep it from it.
    """
    prepare(settings)  # the books may have been deleted
    body = json.encode(event)
    proof = Proof(processor=event.processor, method="operator", received_at=clock(), trust=event.trust)
    told = Incoming(
        events=[event],
        content_digest=sha256(event.event_id.encode()).digest(),
        headers=b"{}",
        body=body,
        proof=proof,
    )
    (outcome,) = await ledger.append([told], clock())
    assert outcome.position is not None  # noqa: S101 - it has an event
    store = open_books(settings)
    try:
        await _take_in(ledger, store, outcome.position, clock)
    finally:
        await store.close()
    files.remove_all_files(settings.data_dir)
    if settings.database_url:
        await _scrub_server(settings.database_url, event)
    else:
        await asyncio.to_thread(_scrub_files, settings.data_dir, event)
    return Erased(
        customer_id=event.data.customer_id,  # type: ignore[attr-defined]
        processor=event.processor,
        account=event.account,
        position=outcome.position,
    )


async def _take_in(ledger: Ledger, store: BookStore, position: int, clock: Callable[[], datetime]) -> None:
    """Bring the books to a position, beside whichever worker does so, too."""
    engine, deadline = Engine(ledger, store, clock), time.monotonic() + _BOOKS_SECONDS
    while (await store.read(store.positions)).position < position:
        if time.monotonic() > deadline:
            raise Unavailable("the books have not taken the erasure in yet: run it again once they have")
        try:
            await engine.catch_up(position)
        except Overtaken:
            await asyncio.sleep(_LOOK_SECONDS)


def _forget_name(connection: Connection, event: Event) -> None:
    """Take a customer's name out of books that never move again, and out of what was left ready."""
    assert isinstance(event.data, CustomerErased)  # noqa: S101 - `find` makes no other
    of = (
        _names.c.customer_id == event.data.customer_id,
        _names.c.processor == event.processor,
        _names.c.account == event.account,
    )
    connection.execute(update(_names).where(*of).values(name=None))
    connection.execute(delete(tables.snapshots))


def _scrub_files(data_dir: Path, event: Event) -> None:
    """Write the books' file anew, without what stands between its rows, and nothing in either file's log."""
    books = books_path(data_dir)
    engine = sqlite_engine(books, "write", "NORMAL")
    with engine.begin() as connection:
        _forget_name(connection, event)
    engine.dispose()
    _until_let(books, "VACUUM")
    for path in (books, ledger_path(data_dir)):
        _until_let(path, "PRAGMA wal_checkpoint(TRUNCATE)")


async def _scrub_server(url: str, event: Event) -> None:
    """The same in a database: the books of every version that stands in it."""
    listed = text(
        """SELECT table_schema FROM information_schema.tables
        WHERE table_name = 'customers' AND starts_with(table_schema, 'daybook_books_')"""
    )  # others may have their own tables in this database
    schemas = await asyncio.to_thread(
        run_on_postgres, url, lambda connection: list(connection.execute(listed).scalars())
    )
    for schema in schemas:
        await asyncio.to_thread(run_on_postgres, url, lambda c: _forget_name(c, event), schema)
    books = (f"{schema}.{table}" for schema in schemas for table in ("customers", "snapshots"))
    ledger = (f"{LEDGER_SCHEMA}.{table}" for table in ("keys", "quarantine"))
    await rewrite_postgres_tables(url, (*books, *ledger))


def _until_let(path: Path, statement: str) -> None:
    """Run a statement that needs the file for itself for a moment."""
    deadline = time.monotonic() + _FILES_SECONDS
    with closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as connection:
        while True:
            try:
                (busy, *_) = connection.execute(statement).fetchone() or (0,)
            except sqlite3.OperationalError:
                busy = 1
            if not busy:
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"{path.name} still holds what was erased, as others read it: run it again")
            time.sleep(_LOOK_SECONDS)
