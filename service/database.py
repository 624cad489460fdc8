"""Connections: SQLite files in the data directory, one for the ledger and one for the books.

The web process writes only the ledger, the worker only the books, so neither waits for the other.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

Mode = Literal["read", "write"]
Synchronous = Literal["FULL", "NORMAL"]
T = TypeVar("T")

_BUSY_TIMEOUT_MS = 5_000


def sqlite_engine(path: Path) -> AsyncEngine:
    """An async engine on one file, to read it only."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        poolclass=AsyncAdaptedQueuePool,
        hide_parameters=True,  # what a statement holds is not for the log
        **_pool("read"),
    )
    _configure(engine.sync_engine, "read", "FULL")
    return engine


def sqlite_thread_engine(path: Path, mode: Mode, synchronous: Synchronous = "FULL") -> Engine:
    """An engine for plain functions that run in a thread: many statements for one hop to it and back.

    "write" begins at once as the one writer; "read" can't write.

    Through aiosqlite each statement is several hops, which is most of what a small transaction costs.
    """
    engine = create_engine(f"sqlite:///{path}", poolclass=QueuePool, hide_parameters=True, **_pool(mode))
    _configure(engine, mode, synchronous)
    return engine


async def in_thread(
    engine: Engine, work: Callable[[Connection], T], threads: ThreadPoolExecutor | None = None
) -> T:
    """What a plain function does with a connection, in one transaction and one thread.

    A writer brings a thread of its own: behind slow reads in the shared ones it would wait.
    """

    def run() -> T:
        try:
            with engine.begin() as connection:
                return work(connection)
        except StopIteration as error:  # no future can carry it, so nobody would ever hear of it
            raise RuntimeError("an iterator ended where it should not") from error

    return await asyncio.get_running_loop().run_in_executor(threads, run)


def _pool(mode: Mode) -> dict[str, int]:
    return {"pool_size": 1, "max_overflow": 0} if mode == "write" else {"pool_size": 4, "max_overflow": 12}


def _configure(engine: Engine, mode: Mode, synchronous: Synchronous) -> None:
    """Set up every connection; say BEGIN ourselves.

    A transaction that reads first and writes later fails at once whatever the busy timeout says, if
    another has written meanwhile; so a writer says BEGIN IMMEDIATE (SQLite, "Isolation In SQLite").
    """
    begin = "BEGIN IMMEDIATE" if mode == "write" else "BEGIN"

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
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

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)


def ledger_path(data_dir: Path) -> Path:
    """Where the ledger is: the one file that can't be made again."""
    return data_dir / "ledger.db"


def books_path(data_dir: Path) -> Path:
    """Where the books are: they can be deleted at any time, and are rebuilt from the ledger."""
    return data_dir / "books.db"
