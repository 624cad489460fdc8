"""Bring the ledger's schema to the newest one."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, text

from service.core.errors import SettingsError
from service.storage.database import ledger_path, sqlite_engine

NEWEST = "0003"
_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate_file(data_dir: Path) -> None:
    """Create or upgrade the ledger's file in `data_dir`; does nothing when it is up to date."""
    path = ledger_path(data_dir)
    if _is_newest(path):
        return
    in_file(data_dir, migrate)


def in_file(data_dir: Path, work: Callable[[Connection], None]) -> None:
    """Do a piece of work on the ledger's file in one write transaction: a kill leaves all or nothing."""
    engine = sqlite_engine(ledger_path(data_dir), "write")
    try:
        with engine.begin() as connection:
            work(connection)
    finally:
        engine.dispose()


def _is_newest(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        try:
            return bool(connection.execute("SELECT version_num FROM alembic_version").fetchone() == (NEWEST,))
        except sqlite3.OperationalError:  # no such table: a new file
            return False


def migrate(connection: Connection) -> None:
    """Create or upgrade the ledger that a write transaction sees; nobody else may do so meanwhile.

    Raises SettingsError if a newer Daybook left a schema that this one can't work on.
    """
    from alembic import command, config, migration  # noqa: PLC0415 - web and worker seldom need it, and it is slow

    found = migration.MigrationContext.configure(connection).get_current_revision()
    if found is None or found < NEWEST:
        options = config.Config()
        options.set_main_option("script_location", str(_MIGRATIONS))
        options.attributes["connection"] = connection
        command.upgrade(options, "head")
    elif found > NEWEST:
        oldest = str(connection.execute(text("SELECT oldest FROM compatibility")).scalar_one())
        if oldest > NEWEST:
            raise SettingsError(
                f"the ledger was made by a newer Daybook (schema {found}; this one knows {NEWEST})"
            )
