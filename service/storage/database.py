"""Connections to SQLite files in the data directory, or to one PostgreSQL database.

With SQLite a running web process writes only the ledger's file, and a worker only the books' file, so neither
waits for the other. With PostgreSQL ledger and books are schemas of one database.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import quote

from asyncpg.exceptions import InternalClientError
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from service.core.errors import Unavailable
from service.storage.damage import explained

Mode = Literal["look", "read", "write"]
Synchronous = Literal["FULL", "NORMAL"]
T = TypeVar("T")

_BUSY_TIMEOUT_MS = 5_000
# The number of connections of each kind in one process. All processes share PostgreSQL's limit.
_SQLITE_READER_POOL = {"pool_size": 4, "max_overflow": 4}
_POSTGRES_READER_POOL = {"pool_size": 2, "max_overflow": 2}
_WRITER_POOL = {"pool_size": 1, "max_overflow": 0}
_CONNECT_SECONDS = 3
_END_SECONDS = 1  # for work that is cancelled at the end: a lost connection may take longer
_COMMAND_SECONDS = 8  # a database that is silent for so long is lost; a read may take longer
_SESSION_SETTINGS = {
    "application_name": "daybook",
    "jit": "off",  # compiling costs more than any of these statements
    # All statements look rows up by an index. A plan that scans a table is right while the table is small, or
    # seems right by old statistics, and is far too slow later.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # A client whose machine is gone is noticed.
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "5s",
}

# A process that stops in the middle of a transaction keeps the others waiting for no longer than this.
_WRITER_SETTINGS = {"lock_timeout": "4s", "idle_in_transaction_session_timeout": "2500ms"}
_READER_SETTINGS = {"default_transaction_read_only": "on", "idle_in_transaction_session_timeout": "60s"}


class Database(Protocol):
    """The connections to one database. Close it, or the process hangs at its end."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run a plain function in one write transaction, outside the caller's event loop."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a plain function in one consistent view, outside the caller's event loop."""

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A consistent view, on the caller's event loop."""

    @property
    def reopen(self) -> "Callable[[], Database]":
        """A function that opens the same database again; it can be sent to another process."""

    @property
    def connections(self) -> "Connections":
        """How many connections were made to write; another number says that the last one was lost."""

    async def close(self) -> None:
        """Close every connection."""


class Connections:
    """Counts the connections that an engine has made."""

    def __init__(self, engine: Engine) -> None:
        self.number = 0
        event.listen(engine, "connect", self._count)

    def _count(self, _connection: Any, _record: Any) -> None:
        self.number += 1


class _OpenFile:
    """The file that an engine's connections have open, as long as it is still the one at the path."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self._path = path
        self._engine = engine
        self._identity: tuple[int, int] | None = None
        event.listen(engine, "connect", self._remember)

    def check(self) -> None:
        """Let the next transaction connect anew if another file is there now.

        Raises Unavailable if none is.
        """
        if self._identity is None:
            return  # nothing was connected yet
        try:
            found = self._path.stat()
        except FileNotFoundError:
            raise Unavailable(f"{self._path.name} is gone") from None
        if self._identity != (found.st_dev, found.st_ino):
            self._engine.dispose()

    def _remember(self, _connection: Any, _record: Any) -> None:
        found = self._path.stat()
        self._identity = (found.st_dev, found.st_ino)


class SqliteDatabase:
    """One file: one writer in a thread of its own, readers in the shared threads.

    `time_limited`: a read ends with an error after some seconds, so that its thread is free for other reads.
    `only_looks`: as long as nothing is written, no file is changed; see `sqlite_engine`.
    """

    def __init__(
        self,
        path: Path,
        synchronous: Synchronous = "FULL",
        *,
        time_limited: bool = False,
        only_looks: bool = False,
    ) -> None:
        self.reopen = partial(
            SqliteDatabase, path, synchronous, time_limited=time_limited, only_looks=only_looks
        )
        mode: Mode = "look" if only_looks else "read"
        self._writer = sqlite_engine(path, "write", synchronous)
        self._file = _OpenFile(path, self._writer) if synchronous == "FULL" else None
        self.connections = Connections(self._writer)
        self._writer_thread = ThreadPoolExecutor(1, f"{path.stem}-writer")  # never waits for slow reads
        self._reader = sqlite_engine(path, mode)
        if time_limited:
            event.listen(self._reader, "begin", _interrupt_when_overdue)
        self._async_reader = _sqlite_async_engine(path, mode)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `Database`. Raises Unavailable if the file of a durable database is gone."""
        if self._file:
            self._file.check()
        return await _run_in_thread(self._writer, work, self._writer_thread)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await _run_in_thread(self._reader, work)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """See `Database`."""
        async with self._async_reader.begin() as connection:
            yield connection

    async def close(self) -> None:
        """See `Database`."""
        self._writer_thread.shutdown(wait=False)
        self._reader.dispose()
        await self._async_reader.dispose()
        self._writer.dispose()


class PostgresDatabase:
    """One schema of a PostgreSQL database. Plain functions run in the event loop of a separate thread.

    `durable`: a commit waits for the disk, and work that lost its connection is done once more. Books need
    neither: they can be made again from the ledger, and work on them that lost its server is out of date.
    """

    def __init__(self, url: str, schema: str, *, durable: bool) -> None:
        session = {
            **_SESSION_SETTINGS,
            "search_path": schema,
            "synchronous_commit": "on" if durable else "off",
        }
        self.reopen = partial(PostgresDatabase, url, schema, durable=durable)
        self._durable = durable
        self._thread = _LoopThread(schema)
        self._writer = _postgres_engine(url, session, "write")
        self.connections = Connections(self._writer.sync_engine)
        self._reader = _postgres_engine(url, session, "read")
        self._async_reader = _postgres_engine(url, session, "read", unlimited=True)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `Database`."""
        transaction = _transaction_with_retry if self._durable else _transaction
        return await self._thread.run(transaction(self._writer, work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await self._thread.run(_transaction_with_retry(self._reader, work))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """See `Database`."""
        async with _begin_transaction(self._async_reader) as connection:
            yield connection

    async def close(self) -> None:
        """See `Database`."""
        await self._async_reader.dispose()
        await self._thread.run(self._writer.dispose())
        await self._thread.run(self._reader.dispose())
        self._thread.close()


class _LoopThread:
    """A thread that runs an event loop: slow work in it delays nothing else."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(_end_other_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_other_tasks() -> None:
    """Cancel what is left to do in this loop, whose callers have gone."""
    if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_END_SECONDS)


def run_on_postgres(url: str, work: Callable[[Connection], T], schema: str = "public") -> T:
    """Run a plain function in one write transaction on a connection of its own. Blocks."""

    async def run() -> T:
        engine = _postgres_engine(url, {**_SESSION_SETTINGS, "search_path": schema}, "write", unlimited=True)
        try:
            return await _transaction_with_retry(engine, work)
        finally:
            await engine.dispose()

    with ThreadPoolExecutor(1) as thread:  # a thread without a running event loop
        return thread.submit(asyncio.run, run()).result()


async def rewrite_postgres_tables(url: str, tables: Iterable[str]) -> None:
    """Write these tables anew, so that no removed data is left in their files."""
    engine = _postgres_engine(url, _SESSION_SETTINGS, "write", unlimited=True)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            for table in tables:
                await connection.exec_driver_sql(f"VACUUM (FULL) {table}")
    finally:
        await engine.dispose()


@asynccontextmanager
async def postgres_lock(url: str, name: str) -> AsyncIterator[bool]:
    """Whether this process got the lock of this name. It holds the lock until the block or the process ends.

    The lock belongs to a connection: a pooler that changes connections between transactions breaks it.
    """
    engine = _postgres_engine(url, _SESSION_SETTINGS, "write", unlimited=True)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            query = text("SELECT pg_try_advisory_lock(hashtext(:name))")
            yield bool((await connection.execute(query, {"name": name})).scalar())
    finally:
        await engine.dispose()


def read_only_engine(url: str) -> AsyncEngine:
    """An engine for statements that read, on the caller's event loop."""
    return _postgres_engine(url, _SESSION_SETTINGS, "read")


def _postgres_engine(
    url: str, session: dict[str, str], mode: Mode, *, unlimited: bool = False
) -> AsyncEngine:
    """An engine whose readers see one state in a whole transaction, and whose writers see the newest one.

    A writer waits for a lock with its first statement, and must then see what was committed meanwhile.
    `unlimited`: a statement may take any time, as those of a migration or a verification do.
    """
    limits = _READER_SETTINGS if mode == "read" else {} if unlimited else _WRITER_SETTINGS
    engine = create_async_engine(
        url,
        isolation_level="REPEATABLE READ" if mode == "read" else "READ COMMITTED",
        hide_parameters=True,  # the values of a statement must not be logged
        pool_timeout=_CONNECT_SECONDS,
        connect_args={
            "timeout": _CONNECT_SECONDS,
            "command_timeout": None if unlimited else _COMMAND_SECONDS,
            "server_settings": session | limits,
            "target_session_attrs": "primary",  # the address may lead to a standby, which can't be written
        },
        **(_POSTGRES_READER_POOL if mode == "read" else _WRITER_POOL),
    )
    if mode == "write" and not unlimited:
        event.listen(engine.sync_engine, "connect", _limit_transactions)
    return engine


def _limit_transactions(connection: Any, _record: Any) -> None:
    """End a transaction whose process stopped between two messages of one statement (PostgreSQL 17 on)."""
    cursor = connection.cursor()
    cursor.execute(
        f"""SELECT set_config('transaction_timeout', '{2 * _COMMAND_SECONDS}s', false)
        WHERE current_setting('server_version_num')::int >= 170000"""
    )
    cursor.close()
    connection.commit()


async def _transaction_with_retry(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    """One transaction, done once more if its connection was lost: a restart loses those in the pool.

    The first one may have been committed all the same; all work that comes here can be done twice.
    """
    try:
        return await _transaction(engine, work)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return await _transaction(engine, work)


async def _transaction(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    async with _begin_transaction(engine) as connection:
        return await connection.run_sync(work)


@asynccontextmanager
async def _begin_transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.begin() as connection:
            yield connection
    except InternalClientError as error:  # no server at the address is a primary
        raise ConnectionError(str(error)) from error


async def _run_in_thread(
    engine: Engine, work: Callable[[Connection], T], threads: ThreadPoolExecutor | None = None
) -> T:
    """One transaction in one thread: with aiosqlite each statement would change threads several times."""

    def run() -> T:
        try:
            with engine.begin() as connection:
                return work(connection)
        except StopIteration as error:  # a future can't carry it, so the caller would wait for ever
            raise RuntimeError("an iterator ended where it should not") from error

    return await asyncio.get_running_loop().run_in_executor(threads, run)


def _interrupt_when_overdue(connection: Connection) -> None:
    """Interrupt a transaction's statements once it has taken as long as a statement may."""
    deadline = time.monotonic() + _COMMAND_SECONDS
    driver: Any = connection.connection.dbapi_connection
    driver.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)  # every 100 000 instructions


def _sqlite_async_engine(path: Path, mode: Mode) -> AsyncEngine:
    engine = create_async_engine(
        _sqlite_url("sqlite+aiosqlite", path, mode),
        poolclass=AsyncAdaptedQueuePool,
        hide_parameters=True,
        **_SQLITE_READER_POOL,
    )
    _configure(engine.sync_engine, "read", "FULL")
    return engine


def sqlite_engine(path: Path, mode: Mode, synchronous: Synchronous = "FULL") -> Engine:
    """An engine for plain functions that run in one thread.

    A "write" transaction takes SQLite's write lock when it begins; a "read" engine can't write. A "look"
    engine changes no file, while the last "read" connection brings the write-ahead log into the file, and
    removes what of it is damaged. A clean stop needs one of those: then the file alone is the database.
    """
    size = _WRITER_POOL if mode == "write" else _SQLITE_READER_POOL
    engine = create_engine(
        _sqlite_url("sqlite", path, mode), poolclass=QueuePool, hide_parameters=True, **size
    )
    _configure(engine, mode, synchronous)
    return engine


def open_to_look(path: Path, wait_seconds: float = 5) -> sqlite3.Connection:
    """A connection that changes no file, and waits for a lock for so long; see `sqlite_engine`."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=wait_seconds)


def _sqlite_url(driver: str, path: Path, mode: Mode) -> URL:
    if mode != "look":
        return URL.create(driver, database=str(path))
    return URL.create(driver, database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"})


def _configure(engine: Engine, mode: Mode, synchronous: Synchronous) -> None:
    """Set up every connection, and begin transactions by a statement instead of the driver.

    A transaction that reads first and writes later fails at once, whatever the busy timeout, if another one
    wrote meanwhile; so a writer uses BEGIN IMMEDIATE (SQLite, "Isolation In SQLite").
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
            if synchronous == "FULL":  # the ledger: a destroyed key must be gone from the file, too
                cursor.execute("PRAGMA secure_delete = ON")
        else:
            cursor.execute("PRAGMA query_only = ON")
        # The worker changes pages all over the books; for whoever appends or reads the system keeps enough.
        keeps_books = mode == "write" and synchronous == "NORMAL"
        cursor.execute(f"PRAGMA cache_size = {-65_536 if keeps_books else -8_192}")  # KiB
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.close()

    @event.listens_for(engine, "handle_error")
    def _explain(context: Any) -> None:
        if (error := explained(engine, context.original_exception)) is not context.original_exception:
            raise DatabaseError(context.statement, None, error)

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)


def ledger_path(data_dir: Path) -> Path:
    """The ledger's file, the only one that can't be made again."""
    return data_dir / "ledger.db"


def books_path(data_dir: Path) -> Path:
    """The books' file, which can be deleted at any time: the books are rebuilt from the ledger."""
    return data_dir / "books.db"
