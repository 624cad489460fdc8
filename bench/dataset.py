"""Builds a ledger of many customers with its books; continues where an earlier build ended."""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from msgspec import Struct

from bench.ledgers import NOW
from bench.lives import Lives, events
from projections.book import Book
from service.books.engine import Engine
from service.books.store import BookStore
from service.bootstrap import configured_books, open_books, open_ledger, prepare
from service.core.delivery import Proof
from service.core.events import Event
from service.ledger.append import read_head
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.settings import Settings

T = TypeVar("T")

_BATCH = 1_000
_PROOF = Proof(processor="stripe", method="bench", received_at=NOW)


class BuildResult(Struct, frozen=True, kw_only=True):
    """The counts and seconds of a build, without the parts that existed before."""

    events: int
    appended: int
    append_seconds: float
    folded: int
    fold_seconds: float


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


class EmptyBooksBench(Struct, frozen=True, kw_only=True):
    """Folds a ledger again and again, each time into empty books."""

    settings: Settings  # of a ledger whose books may be emptied
    ledger: Ledger

    async def rate(self, books: tuple[Book, ...], count: int) -> float:
        """Events a second through these books."""
        for path in self.settings.data_dir.glob("books.db*"):
            path.unlink()
        prepare(self.settings)
        store = open_books(self.settings, books)
        await store.register()
        started = time.perf_counter()
        done = await Engine(self.ledger, store, lambda: NOW).catch_up(until=count)
        seconds = time.perf_counter() - started
        await store.close()
        return done / seconds


def book_sets(settings: Settings) -> Iterator[tuple[str, tuple[Book, ...]]]:
    """The sets of books to compare, the smallest first."""
    all_books = configured_books(settings)
    by_name = {book.name: book for book in all_books}
    four = tuple(by_name[name] for name in ("mrr", "bills", "collections", "customers"))
    yield "mrr, bills, collections, customers (baseline)", four
    yield "and revenue", (*four, by_name["revenue"])
    yield f"all {len(all_books)}", all_books
    yield "revenue alone", (by_name["revenue"],)
