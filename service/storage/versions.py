"""The version of what is stored: another one after each commit, and cheap to ask for.

Two equal versions mean that nothing was committed in between. Where a store can't be asked, its version
equals no other.
"""

import asyncio
import sqlite3
from collections.abc import Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from asyncpg.exceptions import InterfaceError, PostgresError
from sqlalchemy.exc import SQLAlchemyError

from service.storage.database import open_to_look, read_only_engine

_SECONDS = 1.0  # PostgreSQL may hang
# A snapshot names the transactions that it does not see. After a failover, the same name may mean others.
_SELECT_VERSION = "SELECT pg_current_snapshot()::text || ' ' || pg_postmaster_start_time()::text"


class Versions(Protocol):
    """The stores' version; belongs to one event loop. `interval` lies between two looks for a change."""

    interval: float

    async def current(self) -> Hashable:
        """The version of all that is committed now."""

    async def close(self) -> None:
        """Close the connections."""


class SqliteVersions:
    """The version of files: what SQLite counts on a connection that is open all the time, in microseconds."""

    interval = 0.002

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._connections: list[sqlite3.Connection] = []

    async def current(self) -> Hashable:
        """See `Versions`. Never waits for a lock, since it keeps the event loop."""
        try:
            for path in self._paths[len(self._connections) :]:
                self._connections.append(open_to_look(path, wait_seconds=0))
            return tuple(each.execute("PRAGMA data_version").fetchone() for each in self._connections)
        except sqlite3.Error:
            await self.close()
            return object()

    async def close(self) -> None:
        """See `Versions`."""
        for connection in self._connections:
            connection.close()
        self._connections = []


class PostgresVersions:
    """The version of all databases of a server: which transactions a query sees, by one statement.

    Whoever asks while it runs shares the next one with all others who do.
    """

    interval = 0.01

    def __init__(self, url: str) -> None:
        self._engine = read_only_engine(url)
        self._pooled: Any = None
        self._running: asyncio.Task[Hashable] | None = None
        self._next: asyncio.Task[Hashable] | None = None

    async def current(self) -> Hashable:
        """See `Versions`."""
        if self._next is None:
            self._next = asyncio.create_task(self._select_after(self._running))
        return await asyncio.shield(self._next)

    async def _select_after(self, running: asyncio.Task[Hashable] | None) -> Hashable:
        if running:
            await asyncio.wait({running})
        self._running, self._next = self._next, None
        try:
            async with asyncio.timeout(_SECONDS):
                return await self._select()
        except (OSError, SQLAlchemyError, PostgresError, InterfaceError):
            self._drop()
            return object()

    async def _select(self) -> Hashable:
        if self._pooled is None:
            self._pooled = await self._engine.raw_connection()
        version: Hashable = await self._pooled.driver_connection.fetchval(_SELECT_VERSION)
        return version

    def _drop(self) -> None:
        """Connect anew the next time."""
        if self._pooled is not None:
            self._pooled.invalidate()
            self._pooled = None

    async def close(self) -> None:
        """See `Versions`."""
        if tasks := [task for task in (self._running, self._next) if task]:
            await asyncio.wait(tasks)
        if self._pooled is not None:
            with suppress(OSError, PostgresError, InterfaceError):
                await self._pooled.driver_connection.close(timeout=_SECONDS)
        self._drop()
        await self._engine.dispose()
