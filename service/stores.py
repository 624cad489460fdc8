"""Where the stores are: the ledger and the books that the settings name, made ready and opened."""

import fcntl
import os
from collections.abc import Sequence
from secrets import token_hex
from socket import gethostname

from sqlalchemy import Connection, text

from projections import BOOKS
from projections.book import Book, Rules
from service.books import tables
from service.books.leases import Leases
from service.books.store import BookStore, lay_out_file
from service.database import PostgresDatabase, SqliteDatabase, books_path, ledger_path, postgres_once
from service.ledger.schema import migrate, migrate_file
from service.ledger.store import Ledger
from service.settings import Settings

LEDGER_SCHEMA = "daybook"
_PREPARING = 0xDA7B00C  # one at a time: an advisory lock


def books_schema() -> str:
    """The schema of this layout of the books: a version that has another leaves the old one standing."""
    return f"daybook_books_{tables.layout():x}"


def open_ledger(settings: Settings) -> Ledger:
    """The ledger. Close it, or the process hangs at its end."""
    if settings.database_url:
        return Ledger(PostgresDatabase(settings.database_url, LEDGER_SCHEMA, durable=True))
    return Ledger(SqliteDatabase(ledger_path(settings.data_dir)))


def open_books(settings: Settings, books: Sequence[Book] = BOOKS) -> BookStore:
    """The books under the settings' rules. Close it, or the process hangs at its end."""
    rules = Rules(reporting_tz=settings.reporting_tz, weeks_per_month=settings.weeks_per_month)
    if settings.database_url:
        database = PostgresDatabase(settings.database_url, books_schema(), durable=False)
        return BookStore(database, rules, books, tables.PARTITIONS)
    return BookStore(SqliteDatabase(books_path(settings.data_dir), "NORMAL"), rules, books)


def open_leases(settings: Settings) -> Leases | None:
    """The leases of this process; None where there is one worker. They come with connections of their own."""
    if not settings.database_url:
        return None
    name = f"{gethostname()}:{os.getpid()}:{token_hex(2)}"
    return Leases(open_books(settings), name)


def prepare(settings: Settings) -> None:
    """Bring the ledger's schema and the books' layout to what this version needs; quick when they are.

    Whoever starts first does it, and the others wait.
    """
    if settings.database_url:
        postgres_once(settings.database_url, _prepare_ledger, LEDGER_SCHEMA)
        postgres_once(settings.database_url, _prepare_books, books_schema())
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with open(settings.data_dir / "prepare.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        migrate_file(settings.data_dir)
        lay_out_file(settings.data_dir)


def _prepare_ledger(connection: Connection) -> None:
    _make_schema(connection, LEDGER_SCHEMA)
    migrate(connection)


def _prepare_books(connection: Connection) -> None:
    _make_schema(connection, books_schema())
    tables.metadata.create_all(connection)


def _make_schema(connection: Connection, name: str) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PREPARING})
    connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {name}")
