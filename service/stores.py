"""Where the stores are: the ledger and the books that the settings name, made ready and opened."""

import fcntl
import os
from collections.abc import Callable, Sequence
from functools import partial
from secrets import token_hex
from socket import gethostname
from zlib import crc32

from msgspec import json
from sqlalchemy import Connection, text

from projections import BOOKS, MRR
from projections.book import Book, Rules
from service import master
from service.books import tables
from service.books.leases import Leases
from service.books.store import BookStore, lay_out_file, register, versions
from service.core.errors import Integrity, SettingsError
from service.database import PostgresDatabase, SqliteDatabase, books_path, ledger_path, postgres_once
from service.ledger.schema import in_file, migrate, migrate_file
from service.ledger.store import Ledger
from service.ledger.vault import GENERAL, is_keyed
from service.reads.view import Options
from service.rulebook import load_rulebook
from service.settings import Settings

LEDGER_SCHEMA = "daybook"
_PREPARING = 0xDA7B00C  # one at a time: an advisory lock


def books_schema(settings: Settings) -> str:
    """The schema of the books of this layout, these versions and rules; others leave it standing.

    With them go the leases: whoever keeps other books must not hold the partitions of these. Policies come
    and go within it.
    """
    kept = [tables.layout(), sorted(versions(BOOKS, _rules(settings)))]
    return f"daybook_books_{crc32(json.encode(kept)):08x}"


def kept_books(settings: Settings) -> tuple[Book, ...]:
    """The books that are kept: those of the table, and MRR again under each other policy."""
    policies = load_rulebook(settings.rulebook).policies
    return (*BOOKS, *(MRR.under(name, policy) for name, policy in policies.items()))


def open_ledger(settings: Settings) -> Ledger:
    """The ledger. Close it, or the process hangs at its end. Raises SettingsError without its master key."""
    vault = master.vault(settings)
    if settings.database_url:
        return Ledger(PostgresDatabase(settings.database_url, LEDGER_SCHEMA, durable=True), vault)
    return Ledger(SqliteDatabase(ledger_path(settings.data_dir)), vault)


def open_books(settings: Settings, books: Sequence[Book] | None = None) -> BookStore:
    """The books under the settings' rules. Close it, or the process hangs at its end."""
    books = books or kept_books(settings)
    if settings.database_url:
        shared = PostgresDatabase(settings.database_url, books_schema(settings), durable=False)
        return BookStore(shared, _rules(settings), books, _partitions(settings))
    file = SqliteDatabase(books_path(settings.data_dir), "NORMAL", brief=True)
    return BookStore(file, _rules(settings), books)


def read_options(settings: Settings) -> Options:
    """What of the settings reads depend on."""
    opportunities = load_rulebook(settings.rulebook).opportunities
    return Options(segment_limits=settings.segment_limits, opportunities=opportunities)


def _rules(settings: Settings) -> Rules:
    return Rules(reporting_tz=settings.reporting_tz, weeks_per_month=settings.weeks_per_month)


def open_leases(settings: Settings) -> Leases | None:
    """The leases of this process; None where there is one worker. They come with connections of their own."""
    if not settings.database_url:
        return None
    name = f"{gethostname()}:{os.getpid()}:{token_hex(2)}"
    return Leases(open_books(settings), name)


def prepare(settings: Settings) -> None:
    """Bring the ledger's schema and the books to what this version needs; quick when they are.

    Whoever starts first does it, and the others wait. Raises SettingsError if the ledger has another master
    key than this process.
    """
    books, rules = kept_books(settings), _rules(settings)
    add_books = partial(register, rules=rules, books=books, partitions=_partitions(settings))
    if settings.database_url:
        schema = books_schema(settings)
        postgres_once(settings.database_url, partial(_prepare_ledger, settings=settings), LEDGER_SCHEMA)
        postgres_once(settings.database_url, lambda c: _prepare_books(c, schema, add_books), schema)
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with open(settings.data_dir / "prepare.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        migrate_file(settings.data_dir)
        in_file(settings.data_dir, partial(_settle_key, settings=settings))
        lay_out_file(settings.data_dir, add_books)


def _partitions(settings: Settings) -> int:
    return tables.PARTITIONS if settings.database_url else 1


def _prepare_ledger(connection: Connection, settings: Settings) -> None:
    _make_schema(connection, LEDGER_SCHEMA)
    migrate(connection)
    _settle_key(connection, settings)


def _settle_key(connection: Connection, settings: Settings) -> None:
    """Make a new ledger's master key; make sure that an old one's is this."""
    if not is_keyed(connection):
        master.make(settings)
    try:
        master.vault(settings).make_keys(connection, [GENERAL])
    except Integrity:
        raise SettingsError(
            "the ledger was sealed with another master key than DAYBOOK_MASTER_KEY or master.key hold"
        ) from None


def _prepare_books(connection: Connection, schema: str, add_books: Callable[[Connection], None]) -> None:
    _make_schema(connection, schema)
    tables.metadata.create_all(connection)
    add_books(connection)


def _make_schema(connection: Connection, name: str) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PREPARING})
    connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {name}")
