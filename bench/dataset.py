"""Ledgers to measure, with their books; continues where an earlier build ended."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from bench.lives import Lives, events, lives
from service.books.engine import Engine
from service.books.store import BookStore
from service.bootstrap import open_books, open_ledger, prepare
from service.core.delivery import Proof
from service.core.events import Event
from service.ledger.append import read_head
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.rebuild.fill import fill_books
from service.settings import Settings, load

T = TypeVar("T")

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_EVENTS_PER_CUSTOMER = 20
_BATCH = 1_000
_PROOF = Proof(processor="stripe", method="bench", received_at=NOW)


class BuildResult(Struct, frozen=True, kw_only=True):
    """The counts and seconds of a build, without the parts that existed before."""

    events: int
    appended: int
    append_seconds: float
    folded: int
    fold_seconds: float


def ledger_of(directory: Path, count: int) -> Settings:
    """A ledger of so many events, made where it is not there yet; its books may have any position."""
    settings = load(data_dir=directory / str(count))
    prepare(settings)

    async def fill() -> None:
        ledger = open_ledger(settings)
        start = (await ledger.read(read_head)).position
        if start < count:
            await append(ledger, islice(events(lives(count // _EVENTS_PER_CUSTOMER + 100)), start, count))
        await ledger.close()

    asyncio.run(fill())
    return settings


def books_of(settings: Settings, position: int) -> None:
    """Fill the books of this ledger anew, up to this position."""

    async def fill() -> None:
        ledger, store = open_ledger(settings), await empty_books(settings)
        await fill_books(settings, ledger, store, position)
        await store.close()
        await ledger.close()

    asyncio.run(fill())


async def empty_books(settings: Settings) -> BookStore:
    """The books of this ledger, of which nothing is kept."""
    for path in settings.data_dir.glob("books.db*"):
        path.unlink()
    prepare(settings)
    store = open_books(settings)
    await store.register()
    return store


async def build(settings: Settings, lives: Lives) -> BuildResult:
    """Build the ledger of these lives, and all of its books."""
    prepare(settings)
    ledger, books = open_ledger(settings), open_books(settings)
    started = time.perf_counter()
    appended = await append(ledger, islice(events(lives), (await ledger.read(read_head)).position, None))
    appended_at = time.perf_counter()
    folded = await Engine(ledger, books, lambda: NOW).catch_up()
    ended = time.perf_counter()
    total = (await ledger.read(read_head)).position
    await books.close()
    await ledger.close()
    return BuildResult(
        events=total,
        appended=appended,
        append_seconds=appended_at - started,
        folded=folded,
        fold_seconds=ended - appended_at,
    )


async def append(ledger: Ledger, events_to_append: Iterable[Event]) -> int:
    """Append each event as a delivery of its own, in full batches. Returns their number."""
    remaining, count = iter(events_to_append), 0
    while batch := [_incoming(event) for event in islice(remaining, _BATCH)]:
        await ledger.append(batch, NOW)
        count += len(batch)
    return count


def _incoming(event: Event) -> Incoming:
    return Incoming(events=[event], content_digest=b"", headers=b"{}", body=b"{}", proof=_PROOF)


async def with_books(settings: Settings, work: Callable[[BookStore], Awaitable[T]]) -> T:
    """The result of `work` with the open books."""
    store = open_books(settings)
    try:
        return await work(store)
    finally:
        await store.close()
