"""A ledger and its books in a directory of their own, as a test needs them."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import json
from sqlalchemy import Connection

from projections import BOOKS
from projections.book import Book, Rules
from projections.kept import MOST_KEPT
from service.books.engine import BATCH, Engine
from service.books.store import BookStore
from service.books.view import Scope, View
from service.bootstrap import open_books, open_ledger, prepare
from service.core.delivery import Proof
from service.core.events import Event
from service.ledger.draft import Incoming
from service.reads.catalog import READS
from service.reads.parameters import parse_all
from service.settings import Settings, load
from tests.support.postgres import PostgresServer
from tests.support.stores import empty_data_dir, prepared_database, with_rules

NOW = datetime(2025, 11, 13, 10, 30, tzinfo=UTC)
READ = {read.name: read for read in READS}


def now() -> datetime:
    """The clock of every test: it stands still."""
    return NOW


_postgres: PostgresServer | None = None  # where temporary books are made; in SQLite files if there is none


@contextmanager
def on(server: PostgresServer) -> Iterator[None]:
    """Make temporary books in PostgreSQL, each in a database of its own."""
    global _postgres  # noqa: PLW0603 - properties make books themselves: no fixture reaches them
    _postgres = server
    yield
    _postgres = None


@asynccontextmanager
async def new_books(rules: Rules | None = None) -> AsyncIterator["TemporaryBooks"]:
    """An empty ledger with empty books beside it."""
    with TemporaryDirectory(prefix="daybook-books-") as directory:
        url = None
        if _postgres:
            url = prepared_database(_postgres, rules)
        else:
            for name in ("ledger.db", "books.db"):
                shutil.copyfile(empty_data_dir() / name, Path(directory) / name)
        books = TemporaryBooks(load(data_dir=directory, database_url=url), rules or Rules())
        try:
            yield books
        finally:
            await books.ledger.close()
            if _postgres and url:
                _postgres.leave(url)


class TemporaryBooks:
    """One ledger with its books. A worker lives only as long as one call, as if it were killed after it."""

    def __init__(self, settings: Settings, rules: Rules) -> None:
        self.directory = settings.data_dir
        self.rules = rules
        self.ledger = open_ledger(settings)
        self.settings = settings

    async def append(self, events: Sequence[Event]) -> None:
        """Deliver events, each as a delivery of its own, in one transaction."""
        if events:
            await self.ledger.append([incoming(event) for event in events], NOW)

    @asynccontextmanager
    async def store(
        self, rules: Rules | None = None, books: Sequence[Book] = BOOKS
    ) -> AsyncIterator[BookStore]:
        """The books, opened anew."""
        settings = with_rules(self.settings, rules or self.rules)
        if rules:
            prepare(settings)
        store = open_books(settings, books)
        try:
            await store.register()
            yield store
        finally:
            await store.close()

    async def advance(
        self, clock: Callable[[], datetime] = now, batch: int = BATCH, kept_states: int = MOST_KEPT
    ) -> int:
        """Let a new worker bring the books to the ledger's end. Its clock is asked in each transaction."""
        async with self.store() as store:
            return await Engine(self.ledger, store, clock, batch=batch, kept_states=kept_states).catch_up()

    async def record(self, *events: Event) -> None:
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
    """One read's document from an open store; a query's `from` is written `from_`.

    What its path names is in the query, too.
    """
    scope = Scope(currency=currency, today=today, account=account)
    asked = {key.rstrip("_"): value for key, value in query.items()}
    in_path = {key: asked.pop(key) for key in list(asked) if f"{{{key}}}" in READ[name].path}
    args = parse_all(READ[name].parameters, asked, today) | in_path

    def answer(connection: Connection) -> dict:
        books = store.positions(connection).books
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
