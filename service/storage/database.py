"""Connections: SQLite files in the data directory, or one PostgreSQL database.

With SQLite a running web process writes only the ledger's file, a worker only the books', so neither waits
for the other. With PostgreSQL both are schemas of one database.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from asyncpg.exceptions import InternalClientError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

Mode = Literal["read", "write"]
Synchronous = Literal["FULL", "NORMAL"]
T = TypeVar("T")

_BUSY_TIMEOUT_MS = 5_000
# Connections at once, of each kind, in one process. PostgreSQL's are shared by all processes.
_FILE_READERS = {"pool_size": 4, "max_overflow": 4}
_SERVER_READERS = {"pool_size": 2, "max_overflow": 2}
_WRITERS = {"pool_size": 1, "max_overflow": 0}
_CONNECT_SECONDS = 3
_COMMAND_SECONDS = 8  # a database that says nothing for so long is lost; less than a read may take
_SESSION = {
    "application_name": "daybook",
    "jit": "off",  # it costs more than any of these statements
    # Each of them looks up what it names. A plan that walks a table is right while the table is small or its
    # statistics are old, and ruins everything later.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # A process whose machine is gone is noticed.
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "5s",
}

# A process that stops in the middle of a transaction keeps nobody waiting for longer than this.
_WRITING = {"lock_timeout": "4s", "idle_in_transaction_session_timeout": "2500ms"}
_READING = {"default_transaction_read_only": "on", "idle_in_transaction_session_timeout": "60s"}


class Database(Protocol):
    """The connections to one store. Close it, or the process hangs at its end."""

    async def write(self, work: Callable[[Connection], T]) -> T:
        """What a plain function does in one write transaction, away from the caller's event loop."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What a plain function finds in one consistent view, away from the caller's event loop."""

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A consistent view, on the caller's event loop."""

    @property
    def again(self) -> "Callable[[], Database]":
        """What opens the same store once more, in another process too."""

    async def close(self) -> None:
        """Close every connection."""


class SqliteDatabase:
    """One file: one writer in a thread of its own, readers in the shared threads.

    `brief`: a read ends with an error after some seconds, so that its thread is there for others.
    """

    def __init__(self, path: Path, synchronous: Synchronous = "FULL", *, brief: bool = False) -> None:
        self.again = partial(SqliteDatabase, path, synchronous, brief=brief)
        self._writer = sqlite_engine(path, "write", synchronous)
        self._writer_thread = ThreadPoolExecutor(1, f"{path.stem}-writer")  # never behind slow reads
        self._reader = sqlite_engine(path, "read")
        if brief:
            event.listen(self._reader, "begin", _end_in_time)
        self._async_reader = _sqlite_async_engine(path)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await _in_thread(self._writer, work, self._writer_thread)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await _in_thread(self._reader, work)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """See `Database`."""
        async with self._async_reader.begin() as connection:
            yield connection

    async def close(self) -> None:
        """See `Database`."""
        self._writer_thread.shutdown(wait=False)
        self._writer.dispose()
        self._reader.dispose()
        await self._async_reader.dispose()


class PostgresDatabase:
    """One schema of a PostgreSQL database. Plain functions run in the event loop of a thread of ours.

    `durable`: a commit waits for the disk, and work that lost its connection is done once more. What can be
    made again from what is durable need not wait; and it was made from what the lost server had.
    """

    def __init__(self, url: str, schema: str, *, durable: bool) -> None:
        session = {**_SESSION, "search_path": schema, "synchronous_commit": "on" if durable else "off"}
        self.again = partial(PostgresDatabase, url, schema, durable=durable)
        self._durable = durable
        self._thread = _LoopThread(schema)
        self._writer = _postgres_engine(url, session, "write")
        self._reader = _postgres_engine(url, session, "read")
        self._async_reader = _postgres_engine(url, session, "read", patient=True)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """See `Database`."""
        transaction = _in_loop if self._durable else _transaction
        return await self._thread.run(transaction(self._writer, work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await self._thread.run(_in_loop(self._reader, work))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """See `Database`."""
        async with _begun(self._async_reader) as connection:
            yield connection

    async def close(self) -> None:
        """See `Database`."""
        await self._async_reader.dispose()
        await self._thread.run(self._writer.dispose())
        await self._thread.run(self._reader.dispose())
        self._thread.close()


class _LoopThread:
    """A thread that runs an event loop: what is slow in it holds up nothing else."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def postgres_once(url: str, work: Callable[[Connection], T], schema: str = "public") -> T:
    """What a plain function does in one write transaction on a connection of its own. Blocks."""

    async def run() -> T:
        engine = _postgres_engine(url, {**_SESSION, "search_path": schema}, "write", patient=True)
        try:
            return await _in_loop(engine, work)
        finally:
            await engine.dispose()

    with ThreadPoolExecutor(1) as thread:  # where no event loop runs yet
        return thread.submit(asyncio.run, run()).result()


async def postgres_rewrite(url: str, tables: Iterable[str]) -> None:
    """Write these tables anew, so that nothing stands in them that was removed."""
    engine = _postgres_engine(url, _SESSION, "write", patient=True)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            for table in tables:
                await connection.exec_driver_sql(f"VACUUM (FULL) {table}")
    finally:
        await engine.dispose()


@asynccontextmanager
async def postgres_lock(url: str, name: str) -> AsyncIterator[bool]:
    """Whether this process got the lock of this name, which it then has until the block ends, or it does.

    The lock is its connection's: a pooler that hands connections round between transactions breaks it.
    """
    engine = _postgres_engine(url, _SESSION, "write", patient=True)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            query = text("SELECT pg_try_advisory_lock(hashtext(:name))")
            yield bool((await connection.execute(query, {"name": name})).scalar())
    finally:
        await engine.dispose()


def _postgres_engine(url: str, session: dict[str, str], mode: Mode, *, patient: bool = False) -> AsyncEngine:
    """Readers see one state in a whole transaction; writers each statement the newest one.

    A writer waits for a lock with its first statement, and must then see what was committed meanwhile.
    `patient`: a statement may take as long as it likes, as a migration's or a verification's.
    """
    limits = _READING if mode == "read" else {} if patient else _WRITING
    engine = create_async_engine(
        url,
        isolation_level="REPEATABLE READ" if mode == "read" else "READ COMMITTED",
        hide_parameters=True,  # what a statement holds is not for the log
        pool_timeout=_CONNECT_SECONDS,
        connect_args={
            "timeout": _CONNECT_SECONDS,
            "command_timeout": None if patient else _COMMAND_SECONDS,
            "server_settings": session | limits,
            "target_session_attrs": "primary",  # a standby that an address led to can't be written
        },
        **(_SERVER_READERS if mode == "read" else _WRITERS),
    )
    if mode == "write" and not patient:
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


async def _in_loop(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    """One transaction; once more if its connection was lost, as those in the pool are by a restart.

    Should the first one have been committed all the same: what is written here may be written again.
    """
    try:
        return await _transaction(engine, work)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return await _transaction(engine, work)


async def _transaction(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    async with _begun(engine) as connection:
        return await connection.run_sync(work)


@asynccontextmanager
async def _begun(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.begin() as connection:
            yield connection
    except InternalClientError as error:  # no server of the address is a primary
        raise ConnectionError(str(error)) from error


async def _in_thread(
    engine: Engine, work: Callable[[Connection], T], threads: ThreadPoolExecutor | None = None
) -> T:
    """One transaction in one thread: through aiosqlite each statement would be several hops."""

    def run() -> T:
        try:
            with engine.begin() as connection:
                return work(connection)
        except StopIteration as error:  # no future can carry it, so nobody would ever hear of it
            raise RuntimeError("an iterator ended where it should not") from error

    return await asyncio.get_running_loop().run_in_executor(threads, run)


def _end_in_time(connection: Connection) -> None:
    """Interrupt whatever this transaction runs once it has taken as long as a statement may."""
    deadline = time.monotonic() + _COMMAND_SECONDS
    driver: Any = connection.connection.dbapi_connection
    driver.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)  # instructions: some ms


def _sqlite_async_engine(path: Path) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", poolclass=AsyncAdaptedQueuePool, hide_parameters=True, **_FILE_READERS
    )
    _configure(engine.sync_engine, "read", "FULL")
    return engine


def sqlite_engine(path: Path, mode: Mode, synchronous: Synchronous = "FULL") -> Engine:
    """An engine for plain functions that run in a thread: many statements for one hop to it and back.

    "write" begins at once as the one writer; "read" can't write.
    """
    size = _FILE_READERS if mode == "read" else _WRITERS
    engine = create_engine(f"sqlite:///{path}", poolclass=QueuePool, hide_parameters=True, **size)
    _configure(engine, mode, synchronous)
    return engine


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
            if synchronous == "FULL":  # the ledger's: a key that is destroyed is gone from the file, too
                cursor.execute("PRAGMA secure_delete = ON")
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
