"""Connections: SQLite files in the data directory, one for the ledger and one for the books.

The web process writes only the ledger, the worker only the books, so neither waits for the other.
"""

from pathlib import Path
from typing import Any, Literal

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

Mode = Literal["read", "write"]

_BUSY_TIMEOUT_MS = 10_000


def sqlite_engine(path: Path, mode: Mode, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> AsyncEngine:
    """An engine on one file. "write" begins at once as the one writer; "read" can't write.

    A transaction that reads first and writes later fails at once whatever the busy timeout says, if
    another has written meanwhile; so a writer says BEGIN IMMEDIATE (SQLite, "Isolation In SQLite").
    """
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1 if mode == "write" else 4,
        max_overflow=0 if mode == "write" else 12,
    )
    begin = "BEGIN IMMEDIATE" if mode == "write" else "BEGIN"

    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        if mode == "write":
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute(f"PRAGMA synchronous = {synchronous}")
        else:
            cursor.execute("PRAGMA query_only = ON")
        cursor.execute("PRAGMA cache_size = -65536")  # KiB: 64 MiB
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def ledger_path(data_dir: Path) -> Path:
    """Where the ledger is: the one file that can't be made again."""
    return data_dir / "ledger.db"


def books_path(data_dir: Path) -> Path:
    """Where the books are: they can be deleted at any time, and are rebuilt from the ledger."""
    return data_dir / "books.db"
