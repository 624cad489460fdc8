"""The ledger's schema, brought to its newest revision."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, text

from service.core.errors import SettingsError
from service.storage.database import ledger_path, sqlite_engine

T = TypeVar("T")

NEWEST_REVISION = "0008"
OLDEST_REVISION = "0008"  # whose code can use a ledger of the newest
_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate_file(data_dir: Path) -> None:
    """Create or upgrade the ledger's file in `data_dir`; do nothing if it is up to date."""
    path = ledger_path(data_dir)
    if _is_newest(path):
        return
    run_on_file(data_dir, migrate)


def run_on_file(data_dir: Path, work: Callable[[Connection], T]) -> T:
    """Run `work` on the ledger's file in one write transaction, which survives a kill whole or not at all."""
    engine = sqlite_engine(ledger_path(data_dir), "write")
    try:
        with engine.begin() as connection:
            return work(connection)
    finally:
        engine.dispose()


def _is_newest(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        try:
            return bool(
                connection.execute("SELECT version_num FROM alembic_version").fetchone() == (NEWEST_REVISION,)
            )
        except sqlite3.OperationalError:  # no such table: a new file
            return False


def migrate(connection: Connection) -> None:
    """Create or upgrade the ledger's schema in a write transaction. The caller excludes all others.

    Raises SettingsError if the schema is a newer Daybook's, and this one can't work on it.
    """
    from alembic import command, config, migration  # noqa: PLC0415 - web and worker seldom need it, and it is slow

    revision = migration.MigrationContext.configure(connection).get_current_revision()
    if revision is None or revision < NEWEST_REVISION:
        options = config.Config()
        options.set_main_option("script_location", str(_MIGRATIONS))
        options.attributes["connection"] = connection
        command.upgrade(options, "head")
    elif revision > NEWEST_REVISION:
        oldest = str(connection.execute(text("SELECT oldest FROM compatibility")).scalar_one())
        if oldest > NEWEST_REVISION:
            raise SettingsError(
                f"the ledger was made by a newer Daybook (schema {revision}; "
                f"this one knows {NEWEST_REVISION})"
            )
