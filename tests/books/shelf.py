"""A ledger and its books in a directory of their own, as a test needs them."""

import atexit
import shutil
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from msgspec import json
from sqlalchemy import Connection

from projections.book import Rules
from service.books.engine import BATCH, Engine, Settled
from service.books.store import BookStore, lay_out
from service.core.delivery import Proof
from service.core.events import Event
from service.ledger.draft import Incoming
from service.ledger.schema import migrate
from service.ledger.store import Ledger
from service.reads.catalog import READS
from service.reads.parameters import parse_all
from service.reads.view import Scope, View

NOW = datetime(2025, 11, 13, 10, 30, tzinfo=UTC)
READ = {read.name: read for read in READS}


def now() -> datetime:
    """The clock of every test: it stands still."""
    return NOW


@cache
def _empty_shelf() -> Path:
    """A directory with both files laid out and empty; laying them out again takes far longer than a copy."""
    directory = Path(mkdtemp(prefix="daybook-empty-"))
    atexit.register(shutil.rmtree, directory)
    migrate(directory)
    lay_out(directory)
    return directory


@asynccontextmanager
async def new_shelf(rules: Rules | None = None) -> AsyncIterator["Shelf"]:
    """An empty ledger with empty books beside it."""
    with TemporaryDirectory(prefix="daybook-books-") as directory:
        for name in ("ledger.db", "books.db"):
            shutil.copyfile(_empty_shelf() / name, Path(directory) / name)
        shelf = Shelf(Path(directory), rules or Rules())
        try:
            yield shelf
        finally:
            await shelf.ledger.close()


class Shelf:
    """One data directory. A worker lives only as long as one call, as if it were killed after it."""

    def __init__(self, directory: Path, rules: Rules) -> None:
        self.directory = directory
        self.rules = rules
        self.ledger = Ledger(directory)

    async def append(self, events: Sequence[Event]) -> None:
        """Deliver events, each as a delivery of its own, in one transaction."""
        if events:
            await self.ledger.append([incoming(event) for event in events], NOW)

    @asynccontextmanager
    async def store(self, rules: Rules | None = None) -> AsyncIterator[BookStore]:
        """The books, opened anew."""
        store = BookStore(self.directory, rules or self.rules)
        try:
            await store.register()
            yield store
        finally:
            await store.close()

    async def advance(self, settled: Settled | None = None, batch: int = BATCH) -> int:
        """Let a new worker bring the books to the ledger's end."""
        async with self.store() as store:
            return await Engine(self.ledger, store, now, settled, batch).catch_up()

    async def tell(self, *events: Event) -> None:
        """Deliver events, and advance the books over them."""
        await self.append(events)
        await self.advance()

    async def read(self, name: str, currency: str, today: date, **query: str) -> dict:
        """One read's document, as it goes out."""
        async with self.store() as store:
            return await document(store, name, currency, today, **query)


async def document(
    store: BookStore, name: str, currency: str, today: date, account: str | None = None, **query: str
) -> dict:
    """One read's document from an open store; a query's `from` is written `from_`."""
    scope = Scope(currency=currency, today=today, account=account)
    asked = {key.rstrip("_"): value for key, value in query.items()}
    args = parse_all(READ[name].parameters, asked, today)

    def answer(connection: Connection) -> dict:
        books = {book: book_id for book, (book_id, _) in store.checkpoints(connection).items()}
        return READ[name].answer(View(connection=connection, books=books, scope=scope), args)

    return json.decode(json.encode(await store.read(answer)))


def incoming(event: Event) -> Incoming:
    """An event as the delivery that brought it."""
    body = json.encode(event)
    return Incoming(
        events=[event],
        content_digest=sha256(body).digest(),
        headers=b"{}",
        body=body,
        proof=Proof(processor=event.processor, method="test", received_at=NOW),
    )


def in_batches(events: Sequence[Event], sizes: Iterable[int]) -> list[Sequence[Event]]:
    """`events` cut into pieces of these sizes; what is left is the last piece."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(events[start : start + size])
        start += size
    return [piece for piece in (*pieces, events[start:]) if piece]
