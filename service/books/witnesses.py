"""The places where witnesses of the ledger are kept: the data directory, Redis, and the books.

Keeping them is best effort, at most once a second: a place that can't be written or read is passed over.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from msgspec import DecodeError, json
from redis.exceptions import RedisError
from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from service.books import tables
from service.books.store import BookStore
from service.clock import utc_now
from service.core.errors import LostEvents
from service.core.moments import from_us, to_us
from service.ledger.store import Ledger
from service.ledger.witness import Guard, Witness, Witnesses
from service.queue.nudge import connect
from service.settings import Settings
from service.storage.files import replace_file
from service.storage.statements import HotInsert

BOOKS = "the books"  # the name of that place
_REDIS_SECONDS = 1.0
_INTERVAL_SECONDS = 1.0

_ADD_WITNESS = HotInsert(
    tables.witness,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=["id"], set_={name: insert.excluded[name] for name in ("position", "digest", "at_us")}
    ),
)


class Place(Protocol):
    """A place where a witness is kept."""

    name: str

    async def read(self) -> Witness | None:
        """The witness there; None if there is none, or it can't be read."""

    async def write(self, witness: Witness) -> None:
        """Keep a witness in place of the one before, if the place can be written."""


class FilePlace:
    """A file in the data directory."""

    name = "the data directory"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> Witness | None:
        """See `Place`."""
        with suppress(OSError, DecodeError):
            return json.decode(self._path.read_bytes(), type=Witness)
        return None

    async def write(self, witness: Witness) -> None:
        """See `Place`."""
        with suppress(OSError):
            await asyncio.to_thread(self._replace, json.encode(witness) + b"\n")

    def _replace(self, content: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._path, content)


class RedisPlace:
    """A key in Redis or Valkey."""

    name = "Redis"

    def __init__(self, url: str, prefix: str, key: str) -> None:
        self._url, self._prefix, self._key = url, prefix, key

    async def read(self) -> Witness | None:
        """See `Place`."""
        body = await self._ask(lambda redis: redis.get(self._key))
        with suppress(DecodeError):
            return json.decode(body, type=Witness) if body else None
        return None

    async def write(self, witness: Witness) -> None:
        """See `Place`."""
        await self._ask(lambda redis: redis.set(self._key, json.encode(witness)))

    async def _ask(self, command: Callable[[Any], Awaitable[Any]]) -> Any:
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_REDIS_SECONDS), connect(self._url, self._prefix) as redis:
                return await command(redis)
        return None


class BooksPlace:
    """The books, which their worker writes."""

    name = BOOKS

    def __init__(self, store: BookStore) -> None:
        self._store = store

    async def read(self) -> Witness | None:
        """See `Place`."""
        with suppress(SQLAlchemyError, OSError):
            return await self._store.read(read_from_books)
        return None

    async def write(self, witness: Witness) -> None:
        """See `Place`."""
        with suppress(SQLAlchemyError, OSError):
            await self._store.write(lambda connection: write_to_books(connection, witness))


def places(settings: Settings) -> list[Place]:
    """The places outside of the books, for the ledger of these settings.

    Their name holds that of PostgreSQL's database, not of its host, which is another one after a failover.
    """
    if settings.database_url:
        name = urlsplit(settings.database_url).path.strip("/")
        file = f"witness-{name}.json"
    else:
        name = sha256(str(settings.data_dir.resolve()).encode()).hexdigest()[:16]
        file = "witness.json"
    found: list[Place] = [FilePlace(settings.data_dir / file)]
    if settings.redis_url:
        found.append(RedisPlace(settings.redis_url, settings.redis_prefix, f"witness:{name}"))
    return found


async def read_witnesses(kept_at: Sequence[Place]) -> Witnesses:
    """The witnesses of these places, by the places' names."""
    found = {place.name: await place.read() for place in kept_at}
    return {name: witness for name, witness in found.items() if witness}


def in_thread(work: Callable[[], Awaitable[Any]]) -> Any:
    """The result of a coroutine, for a plain function that a running event loop may have called."""

    async def run() -> Any:
        return await work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()


def read_from_books(connection: Connection) -> Witness | None:
    """What the books know: their witness, or the position of a book that is further; None without books."""
    names = inspect(connection).get_table_names()
    if tables.checkpoints.name not in names:
        return None
    position = connection.execute(select(func.max(tables.checkpoints.c.position))).scalar() or 0
    row = connection.execute(select(tables.witness)).one_or_none() if tables.witness.name in names else None
    if row and row.position >= position:
        return Witness(position=row.position, digest=row.digest, at=from_us(row.at_us))
    return Witness(position=position, digest=None, at=utc_now()) if position else None


def write_to_books(connection: Connection, witness: Witness) -> None:
    """Keep a witness in the books."""
    _ADD_WITNESS.add(connection, [(1, witness.position, witness.digest, to_us(witness.at))])


class WitnessKeeper:
    """Keeps the witnesses of a process up to date, and has its guard look at the ledger once a second."""

    def __init__(self, ledger: Ledger, guard: Guard, kept_at: Sequence[Place]) -> None:
        self._ledger = ledger
        self._guard = guard
        self._kept_at = kept_at
        self._kept = 0

    async def look(self) -> Witness:
        """The ledger's head. Raises LostEvents if the ledger lacks what this process, or any other, knows."""
        witnesses = await self._guard.witnesses(elsewhere=self._guard.loss is not None)
        look = partial(self._guard.look, witnesses=witnesses, vault=self._ledger.vault)
        return await self._ledger.read(look)

    async def run(self) -> None:
        """Look, and keep what is new, for ever."""
        while True:
            with suppress(LostEvents, SQLAlchemyError, OSError):  # the guard has said what is lost
                seen = await self.look()
                if seen.position != self._kept:
                    for place in self._kept_at:
                        await place.write(seen)
                    self._kept = seen.position
            await asyncio.sleep(_INTERVAL_SECONDS)
