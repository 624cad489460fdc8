"""The books' file: opened, laid out, and handed to the engine (one writer) and the reads."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from msgspec import json
from sqlalchemy import Connection, create_engine, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from projections import BOOKS
from projections.book import Book, Rules
from service.books import tables
from service.database import books_path, in_thread, sqlite_engine, sqlite_thread_engine

T = TypeVar("T")


def lay_out(data_dir: Path) -> None:
    """Create the books' file, or empty one of another layout; its books are filled from the ledger."""
    path = books_path(data_dir)
    layout = tables.layout()
    if _layout_of(path) == layout:
        return
    for stale in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        stale.unlink(missing_ok=True)
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        tables.metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {layout}")
    engine.dispose()


def _layout_of(path: Path) -> int | None:
    """The layout of a books' file; None if it is no database at all, since it can be made again."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
        except sqlite3.OperationalError:  # locked, say: it is a database
            raise
        except sqlite3.DatabaseError:
            return None


class BookStore:
    """The books in one file, for one set of rules. Close it, or the process hangs at its end."""

    def __init__(self, data_dir: Path, rules: Rules, books: Sequence[Book] = BOOKS) -> None:
        self.rules = rules
        self.rules_key = json.encode(rules, enc_hook=_text).decode()  # books under other rules are others
        self.books = tuple(books)
        self._reader = sqlite_engine(books_path(data_dir))
        self._thread_reader = sqlite_thread_engine(books_path(data_dir), "read")
        self._writer_thread = ThreadPoolExecutor(1, "books-writer")
        self._thread_writer = sqlite_thread_engine(books_path(data_dir), "write", synchronous="NORMAL")

    async def close(self) -> None:
        """Close every connection."""
        await self._reader.dispose()
        self._thread_reader.dispose()
        self._writer_thread.shutdown(wait=False)
        self._thread_writer.dispose()

    async def write(self, change: Callable[[Connection], T]) -> T:
        """What a plain function does in one write transaction, run in a thread."""
        return await in_thread(self._thread_writer, change, self._writer_thread)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """What a plain function finds in one consistent view, run in a thread."""
        return await in_thread(self._thread_reader, query)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A consistent view of the books as they are now."""
        async with self._reader.connect() as connection:
            yield connection

    async def register(self) -> None:
        """Make a checkpoint for each book under these rules, at position 0 where it is new."""
        rows = [
            {"name": b.name, "version": b.version, "rules": self.rules_key, "position": 0} for b in self.books
        ]

        def add(connection: Connection) -> None:
            known = self.checkpoints(connection)
            new = [{**row, "advanced_at_us": 0} for row in rows if row["name"] not in known]
            if new:
                connection.execute(insert(tables.checkpoints), new)

        await self.write(add)

    def checkpoints(self, connection: Connection) -> dict[str, tuple[int, int]]:
        """(id, position) of each book of these versions and rules, by its name."""
        c = tables.checkpoints.c
        found = connection.execute(
            select(c.id, c.name, c.version, c.position).where(c.rules == self.rules_key)
        )
        versions = {book.name: book.version for book in self.books}
        return {row.name: (row.id, row.position) for row in found if versions.get(row.name) == row.version}


def _text(value: object) -> str:
    assert isinstance(value, Fraction)  # noqa: S101 - the only type that JSON lacks
    return str(value)
