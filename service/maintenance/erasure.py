"""Erases a customer: destroys the keys in the ledger, and removes the data from the books and the files."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path

from msgspec import Struct, json
from msgspec.structs import replace
from sqlalchemy import Connection, delete, select, text, update

from projections.customers import CustomerName
from service.books import tables
from service.books.engine import Engine, Overtaken
from service.books.store import BookStore
from service.bootstrap import LEDGER_SCHEMA, open_books, prepare
from service.core.delivery import Proof
from service.core.errors import NotFound, ParameterError, SettingsError, Unavailable
from service.core.events import REVISION_MARK, CustomerErased, Event, split_key
from service.intake.translation import is_rendered
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

_BOOKS_SECONDS = 60.0  # for the books to advance past the erasure
_FILES_SECONDS = 20.0  # for readers to release a file
_LOOK_SECONDS = 0.1

_keys = ledger_tables.Key.__table__  # type: ignore[attr-defined]
_names = tables.ROWS[CustomerName]


class Erasure(Struct, frozen=True, kw_only=True):
    """The erased customer, and the position of the erasure's event."""

    customer_id: str
    processor: str
    account: str
    position: int


async def make_erasure_event(
    ledger: Ledger, customer_id: str, processor: str | None, account: str | None, now: datetime
) -> Event:
    """The event that records the erasure of this customer, not appended yet.

    Raises NotFound if the ledger has no such customer, ParameterError if it has several, SettingsError if
    the ledger's first events are not sealed. Where ids are unique over all accounts, one id is one customer.
    """
    async with ledger.reading() as reader:
        if (await reader.head()).position and not is_sealed((await reader.stored_delivery(1))["body"]):
            raise SettingsError("this ledger began in the clear: import its export into an empty one first")
    accounts = await ledger.read(lambda connection: _accounts_of(connection, customer_id))
    matching = [pair for pair in accounts if processor in (None, pair[0]) and account in (None, pair[1])]
    if not matching:
        raise NotFound(f"the ledger tells of no customer {customer_id}")
    if len(matching) > 1 and not _is_one_customer(matching):
        names = ", ".join(f"{name} {account}".strip() for name, account in matching)
        raise ParameterError(f"there are several of that id, of {names}: say --processor and --account")
    return Event(
        processor=matching[0][0],
        account=matching[0][1],
        event_id=f"{customer_id}{REVISION_MARK}erased",
        occurred_at=now,
        trust="unsigned",
        data=CustomerErased(customer_id=customer_id),
    )


def _is_one_customer(accounts: list[tuple[str, str]]) -> bool:
    """Whether one id in these (processor, account) stands for one customer."""
    return len({processor for processor, _ in accounts}) == 1 and is_rendered(accounts[0][0])


def _accounts_of(connection: Connection, customer_id: str) -> list[tuple[str, str]]:
    """The processors and accounts that have a customer of this id."""
    owners = connection.execute(select(_keys.c.owner).where(_keys.c.owner.like("customer|%"))).scalars()
    keys = (split_key(owner) for owner in owners)
    return sorted((key[1], key[2]) for key in keys if key[-1] == customer_id)


async def erase(settings: Settings, ledger: Ledger, event: Event, clock: Callable[[], datetime]) -> Erasure:
    """Append the event, which destroys the customer's keys, and remove all data derived from the sealed text.

    It can be run again after a failure at any point, and continues. Raises Unavailable while other processes
    hold the files.
    """
    prepare(settings)  # the books may have been deleted
    events = [event, *await ledger.read(lambda connection: _other_erasures(connection, event))]
    body = json.encode(event)
    proof = Proof(processor=event.processor, method="operator", received_at=clock(), trust=event.trust)
    incoming = Incoming(
        events=events,
        content_digest=sha256(event.event_id.encode()).digest(),
        headers=b"{}",
        body=body,
        proof=proof,
    )
    (outcome,) = await ledger.append([incoming], clock())
    assert outcome.position is not None  # noqa: S101 - it has an event
    store = open_books(settings)
    try:
        await _advance_books(ledger, store, outcome.position, clock)
    finally:
        await store.close()
    files.remove_all_files(settings.data_dir)
    if settings.database_url:
        await _scrub_database(settings.database_url, events)
    else:
        await asyncio.to_thread(_scrub_files, settings.data_dir, events)
    return Erasure(
        customer_id=event.data.customer_id,  # type: ignore[attr-defined]
        processor=event.processor,
        account=event.account,
        position=outcome.position,
    )


def _other_erasures(connection: Connection, event: Event) -> list[Event]:
    """The same erasure in the other accounts under which the customer was told of."""
    assert isinstance(event.data, CustomerErased)  # noqa: S101 - `make_erasure_event` makes no other
    accounts = _accounts_of(connection, event.data.customer_id) if is_rendered(event.processor) else []
    own = event.processor, event.account
    return [replace(event, account=pair[1]) for pair in accounts if pair[0] == own[0] and pair != own]


async def _advance_books(
    ledger: Ledger, store: BookStore, position: int, clock: Callable[[], datetime]
) -> None:
    """Advance the books to a position, whether or not a worker does so at the same time."""
    engine, deadline = Engine(ledger, store, clock), time.monotonic() + _BOOKS_SECONDS
    while (await store.read(store.positions)).position < position:
        if time.monotonic() > deadline:
            raise Unavailable("the books have not taken the erasure in yet: run it again once they have")
        try:
            await engine.catch_up(position)
        except Overtaken:
            await asyncio.sleep(_LOOK_SECONDS)


def _remove_name(connection: Connection, event: Event) -> None:
    """Remove a customer's name from the books, also from outdated ones, and remove all snapshots."""
    assert isinstance(event.data, CustomerErased)  # noqa: S101 - `find` makes no other
    is_customer = (
        _names.c.customer_id == event.data.customer_id,
        _names.c.processor == event.processor,
        _names.c.account == event.account,
    )
    connection.execute(update(_names).where(*is_customer).values(name=None))
    connection.execute(delete(tables.snapshots))


def _scrub_files(data_dir: Path, events: Sequence[Event]) -> None:
    """Rewrite the books' file without its free space, and empty both files' logs."""
    books = books_path(data_dir)
    engine = sqlite_engine(books, "write", "NORMAL")
    with engine.begin() as connection:
        for event in events:
            _remove_name(connection, event)
    engine.dispose()
    _run_exclusively(books, "VACUUM")
    for path in (books, ledger_path(data_dir)):
        _run_exclusively(path, "PRAGMA wal_checkpoint(TRUNCATE)")


async def _scrub_database(url: str, events: Sequence[Event]) -> None:
    """Remove the data from PostgreSQL, from the books of every version in the database."""
    schema_query = text(
        """SELECT table_schema FROM information_schema.tables
        WHERE table_name = 'customers' AND starts_with(table_schema, 'daybook_books_')"""
    )  # others may have their own tables in this database
    schemas = await asyncio.to_thread(
        run_on_postgres, url, lambda connection: list(connection.execute(schema_query).scalars())
    )
    for schema in schemas:
        for event in events:
            await asyncio.to_thread(run_on_postgres, url, partial(_remove_name, event=event), schema)
    books = (f"{schema}.{table}" for schema in schemas for table in ("customers", "snapshots"))
    ledger = (f"{LEDGER_SCHEMA}.{table}" for table in ("keys", "quarantine"))
    await rewrite_postgres_tables(url, (*books, *ledger))


def _run_exclusively(path: Path, statement: str) -> None:
    """Run a statement that needs exclusive access to the file; try again while others read it."""
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
