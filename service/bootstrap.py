"""Prepares and opens the ledger and the books that the settings name."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from secrets import token_hex
from socket import gethostname
from typing import TypeVar
from zlib import crc32

from msgspec import json
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DatabaseError

from projections import BOOKS, MRR
from projections.book import Book, Rules
from service.books import tables
from service.books.leases import Leases
from service.books.reset import reset_if_ahead_of_ledger
from service.books.store import BookStore, book_versions, has_layout, lay_out_file, register
from service.books.view import ReadOptions
from service.books.witnesses import BOOKS as BOOKS_PLACE
from service.books.witnesses import in_thread, places, read_from_books, read_witnesses
from service.clock import utc_now
from service.core.errors import LostEvents, ParameterError, SettingsError, Unavailable
from service.core.scopes import FIGURES, PEOPLE
from service.intake import versions
from service.ledger import master_key
from service.ledger.append import read_head
from service.ledger.schema import migrate, migrate_file, run_on_file
from service.ledger.store import Ledger
from service.ledger.vault import OtherKey, Vault, is_keyed
from service.ledger.witness import Guard, Loss, Witness, find_loss, holds, loss_of, record_accepted
from service.rulebook import load_rulebook
from service.settings import Settings
from service.storage.database import (
    PostgresDatabase,
    SqliteDatabase,
    books_path,
    ledger_path,
    postgres_lock,
    run_on_postgres,
    sqlite_engine,
)
from service.storage.files import locked
from service.storage.versions import PostgresVersions, SqliteVersions, Versions

T = TypeVar("T")

LEDGER_SCHEMA = "daybook"
EVENTS = "events"  # the table without which a ledger was never made
_PREPARE_LOCK = 0xDA7B00C  # the key of an advisory lock: one process prepares at a time
_REBUILDING = "another rebuild is under way"


def books_schema(settings: Settings) -> str:
    """The name of the schema for books of this layout, with these versions and rules.

    Books of another version have their own schema with their own leases: a worker of that version must not
    hold partitions of these books. Added or removed policies don't change the schema.
    """
    identity = [tables.layout(), sorted(book_versions(BOOKS, rules_of(settings)))]
    return f"daybook_books_{crc32(json.encode(identity)):08x}"


def configured_books(settings: Settings) -> tuple[Book, ...]:
    """All books: those of the table, and MRR once more under each policy of the rulebook."""
    policies = load_rulebook(settings.rulebook).policies
    return (*BOOKS, *(MRR.with_policy(name, policy) for name, policy in policies.items()))


def open_ledger(settings: Settings, guard: Guard | None = None) -> Ledger:
    """The ledger. Close it, or the process hangs at its end. Raises SettingsError without its master key.

    Without the guard of a process that has compared it with its witnesses, reading changes no file, and the
    first append compares it.
    """
    vault, only_looks = master_key.open_vault(settings), guard is None
    guard = guard or Guard(partial(read_witnesses, places(settings)))
    if settings.database_url:
        return Ledger(PostgresDatabase(settings.database_url, LEDGER_SCHEMA, durable=True), vault, guard)
    return Ledger(SqliteDatabase(ledger_path(settings.data_dir), only_looks=only_looks), vault, guard)


def is_ledger_empty(settings: Settings) -> bool:
    """Whether a prepared ledger has no event yet."""
    return _on_ledger(settings, read_head).position == 0


@asynccontextmanager
async def existing_ledger(settings: Settings) -> AsyncIterator[Ledger]:
    """The ledger, open until the block ends. Raises SettingsError if there is none yet."""
    if not settings.database_url and not ledger_path(settings.data_dir).exists():
        raise SettingsError(f"there is no ledger in {settings.data_dir} (DAYBOOK_DATA_DIR)")
    ledger = open_ledger(settings)
    try:
        yield ledger
    finally:
        await ledger.close()


def open_books(settings: Settings, books: Sequence[Book] | None = None) -> BookStore:
    """The books under the settings' rules. Close it, or the process hangs at its end."""
    books = books or configured_books(settings)
    if settings.database_url:
        database = PostgresDatabase(settings.database_url, books_schema(settings), durable=False)
        return BookStore(database, rules_of(settings), books, _partitions(settings))
    file = SqliteDatabase(books_path(settings.data_dir), "NORMAL", time_limited=True)
    return BookStore(file, rules_of(settings), books)


def open_versions(settings: Settings) -> Versions:
    """The version of ledger and books together."""
    if settings.database_url:
        return PostgresVersions(settings.database_url)
    return SqliteVersions([ledger_path(settings.data_dir), books_path(settings.data_dir)])


def read_options(settings: Settings) -> ReadOptions:
    """The settings on which reads depend."""
    rulebook = load_rulebook(settings.rulebook)
    return ReadOptions(
        segment_limits=settings.segment_limits,
        frequency_limits=settings.frequency_limits,
        opportunities=rulebook.opportunities,
        treatment=rulebook.treatment,
        focus=rulebook.focus,
        hides_people=any(FIGURES in key.scopes and PEOPLE not in key.scopes for key in settings.api_keys),
    )


def rules_of(settings: Settings) -> Rules:
    """The rules by the settings, under the default policy."""
    return Rules(reporting_tz=settings.reporting_tz, weeks_per_month=settings.weeks_per_month)


def open_leases(settings: Settings) -> Leases | None:
    """The leases of this process, with their own connections; None on SQLite, which has one worker."""
    if not settings.database_url:
        return None
    name = f"{gethostname()}:{os.getpid()}:{token_hex(2)}"
    return Leases(open_books(settings), name)


def prepare(settings: Settings, *, books: bool = True, accept_loss: int | None = None) -> list[str]:
    """Bring the ledger's schema and the books to what this version needs; quick if nothing is missing.

    The first process to start does it, and the others wait. Without `books`, no missing book is added. Raises
    SettingsError if the ledger has another master key than this process, Integrity if it has no key for new
    data, LostEvents if it lacks what a witness knows, unless it is at the position `accept_loss`.

    Returns the processors whose deliveries are then still to be retranslated.
    """
    all_books, rules = configured_books(settings), rules_of(settings)
    register_all = partial(register, rules=rules, books=all_books, partitions=_partitions(settings))
    add_books = register_all if books else _add_no_books
    if settings.database_url:
        schema = books_schema(settings)
        due = run_on_postgres(
            settings.database_url, partial(_prepare_ledger, settings=settings), LEDGER_SCHEMA
        )
        loss = _find_accepted_loss(settings, accept_loss)
        prepare_books = partial(_prepare_books, settings=settings, add_books=add_books)
        run_on_postgres(settings.database_url, prepare_books, schema)
        if loss:
            _record_accepted(settings, loss)
        return due
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with locked(settings.data_dir / "prepare.lock"):
        loss = _find_accepted_loss(settings, accept_loss)  # before anything is opened to be written
        migrate_file(settings.data_dir)
        due = run_on_file(settings.data_dir, partial(_prepare_records, settings=settings))
        lay_out_file(
            settings.data_dir, partial(_prepare_books_in_file, settings=settings, add_books=add_books)
        )
        if loss:
            _record_accepted(settings, loss)
        return due


def _prepare_books_in_file(
    connection: Connection, settings: Settings, add_books: Callable[[Connection], None]
) -> None:
    """Add missing books to the file; empty the books if they are ahead of the ledger."""
    reset_if_ahead_of_ledger(connection, lambda known: _on_ledger(settings, partial(holds, witness=known)))
    add_books(connection)


def find_ledger_loss(settings: Settings) -> Loss | None:
    """What the ledger lacks by the witnesses in the data directory, in Redis and in the books.

    No file is changed: of a damaged write-ahead log an operator may save more than SQLite reads.
    """
    witnesses = dict(in_thread(partial(read_witnesses, places(settings))))
    if known := _read_books_witness(settings):
        witnesses[BOOKS_PLACE] = known
    if not settings.database_url and not ledger_path(settings.data_dir).exists():
        return loss_of(witnesses)
    try:
        vault = master_key.open_vault(settings)
    except SettingsError:  # a ledger of the first versions has no key yet
        vault = None

    def find(connection: Connection) -> Loss | None:
        is_made = inspect(connection).has_table(EVENTS)
        return find_loss(connection, witnesses, vault) if is_made else loss_of(witnesses)

    return _on_ledger(settings, find)


def _find_accepted_loss(settings: Settings, accepted: int | None) -> Loss | None:
    """The loss that leaves the ledger at the position `accepted`; None if there is none.

    Raises LostEvents for any other loss.
    """
    loss = find_ledger_loss(settings)
    if loss and accepted != loss.position:
        raise LostEvents(
            f"{loss}. Restore them from a backup, or accept that with --accept-loss {loss.position}"
        )
    return loss


def _record_accepted(settings: Settings, loss: Loss) -> None:
    """Record that a loss is accepted.

    The books that knew more are empty by then: the event takes one of the positions that they had reached.
    """
    accept = partial(record_accepted, loss=loss, vault=master_key.open_vault(settings), now=utc_now())
    if settings.database_url:
        head = run_on_postgres(settings.database_url, accept, LEDGER_SCHEMA)
    else:
        head = run_on_file(settings.data_dir, accept)
    for place in places(settings):
        in_thread(partial(place.write, head))


def _read_books_witness(settings: Settings) -> Witness | None:
    """What the books know, whatever their layout; None if there are none that can be read."""
    if settings.database_url:
        return run_on_postgres(settings.database_url, read_from_books, books_schema(settings))
    path = books_path(settings.data_dir)
    if not path.exists():
        return None
    engine = sqlite_engine(path, "look")
    try:
        with engine.begin() as connection:
            return read_from_books(connection)
    except DatabaseError:  # it is damaged, and will be made again
        return None
    finally:
        engine.dispose()


def _on_ledger(settings: Settings, query: Callable[[Connection], T]) -> T:
    """The result of a plain function that reads the ledger on a connection of its own."""
    if settings.database_url:
        return run_on_postgres(settings.database_url, query, LEDGER_SCHEMA)
    engine = sqlite_engine(ledger_path(settings.data_dir), "look")
    try:
        with engine.begin() as connection:
            return query(connection)
    finally:
        engine.dispose()


@asynccontextmanager
async def books_for_rebuild(
    settings: Settings, names: Sequence[str]
) -> AsyncIterator[tuple[Ledger, BookStore]]:
    """The ledger and the named books (all books for no names), to make and remove builds of them.

    One process at a time may do so. Raises Unavailable if another process does, ParameterError for an unknown
    name, SettingsError if there is no ledger, or if the books' file has another layout, since the next start
    would replace it.
    """
    books = configured_books(settings)
    if unknown := set(names) - {book.name for book in books}:
        raise ParameterError(f"{min(unknown)}: no such book; there are {', '.join(b.name for b in books)}")
    if not settings.database_url and not has_layout(settings.data_dir):
        raise SettingsError("books.db is of another layout than this version's: start it, and it is filled")
    async with existing_ledger(settings) as ledger:
        prepare(settings, books=False)
        async with _alone(settings):
            store = open_books(settings, [book for book in books if book.name in names or not names])
            try:
                yield ledger, store
            finally:
                await store.close()


@asynccontextmanager
async def _alone(settings: Settings) -> AsyncIterator[None]:
    """While no other process makes or removes builds."""
    if settings.database_url:
        async with postgres_lock(settings.database_url, books_schema(settings)) as ours:
            if not ours:
                raise Unavailable(_REBUILDING)
            yield
        return
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(settings.data_dir / "rebuild.lock", wait=False))
        except BlockingIOError:
            raise Unavailable(_REBUILDING) from None
        yield


def _add_no_books(_connection: Connection) -> None:
    """Leave the books as they are."""


def _partitions(settings: Settings) -> int:
    return tables.PARTITIONS if settings.database_url else 1


def _prepare_ledger(connection: Connection, settings: Settings) -> list[str]:
    _make_schema(connection, LEDGER_SCHEMA)
    migrate(connection)
    return _prepare_records(connection, settings)


def _prepare_records(connection: Connection, settings: Settings) -> list[str]:
    """Prepare what a ledger of the newest schema holds; the processors that are due for retranslation."""
    vault = _prepare_master_key(connection, settings)
    versions.record_at_start(connection, vault, utc_now())
    return versions.find_due(connection, vault)


def _prepare_master_key(connection: Connection, settings: Settings) -> Vault:
    """Make the master key of a new ledger; check the master key of an existing one."""
    if not is_keyed(connection):
        master_key.create_key_file(settings)
    vault = master_key.open_vault(settings)
    try:
        vault.prepare_general_key(connection)
    except OtherKey:
        raise SettingsError(
            "the ledger was sealed with another master key than DAYBOOK_MASTER_KEY or master.key hold"
        ) from None
    return vault


def _prepare_books(
    connection: Connection, settings: Settings, add_books: Callable[[Connection], None]
) -> None:
    _make_schema(connection, books_schema(settings))
    tables.metadata.create_all(connection)
    reset_if_ahead_of_ledger(connection, lambda known: _on_ledger(settings, partial(holds, witness=known)))
    add_books(connection)


def _make_schema(connection: Connection, name: str) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PREPARE_LOCK})
    connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {name}")
