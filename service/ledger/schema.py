"""Bring the ledger's file to the newest schema."""

import sqlite3
from contextlib import closing
from pathlib import Path

from service.core.errors import SettingsError
from service.database import ledger_path, sqlite_thread_engine

NEWEST = "0001"
_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(data_dir: Path) -> None:
    """Create or upgrade the ledger in `data_dir`; does nothing when it is up to date."""
    path = ledger_path(data_dir)
    found = _revision(path)
    if found is not None and found > NEWEST:
        raise SettingsError(f"{path} was made by a newer Daybook (schema {found}; this one knows {NEWEST})")
    if found != NEWEST:
        _upgrade(path)


def _revision(path: Path) -> str | None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:  # no such table: a new file
            return None
        return row and str(row[0])


def _upgrade(path: Path) -> None:
    from alembic import command  # noqa: PLC0415 - slow to import, and seldom needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    engine = sqlite_thread_engine(path, "write")  # it says BEGIN itself: a kill leaves all of it or nothing
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
