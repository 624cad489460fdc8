"""Ledgers for measurements: subscriptions with their invoices, as events of the handlers."""

import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct

from projections import BOOKS
from projections.book import Book
from service.books.store import BookStore
from service.bootstrap import open_books, open_ledger, prepare
from service.core.delivery import Proof
from service.core.events import Event, Invoice, Item, Subscription
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.settings import load

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Bench(Struct):
    """An open ledger and its directory."""

    directory: Path
    ledger: Ledger

    async def store(self, books: tuple[Book, ...] = BOOKS) -> BookStore:
        """Empty books on the ledger."""
        for name in ("books.db", "books.db-wal", "books.db-shm"):
            (self.directory / name).unlink(missing_ok=True)
        prepare(load(data_dir=self.directory))
        store = open_books(load(data_dir=self.directory), books)
        await store.register()
        return store

    async def append(self, events: Iterable[Event]) -> None:
        proof = Proof(processor="stripe", method="bench", received_at=NOW)
        deliveries = [
            Incoming(events=[e], content_digest=b"", headers=b"{}", body=b"{}", proof=proof) for e in events
        ]
        for start in range(0, len(deliveries), 1_000):
            await self.ledger.append(deliveries[start : start + 1_000], NOW)


@asynccontextmanager
async def bench_ledger() -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory() as directory:
        prepare(load(data_dir=Path(directory)))
        ledger = open_ledger(load(data_dir=Path(directory)))
        yield Bench(directory=Path(directory), ledger=ledger)
        await ledger.close()


def lives(count: int, subscriptions: int) -> list[Event]:
    """`count` events, in turn over the subscriptions: two states of a subscription for each paid invoice."""
    return [_event(number, number % subscriptions) for number in range(count)]


def subscription_event(number: int, key: str, amount: int, moment: datetime) -> Event:
    data = Subscription(
        subscription_id=f"sub_{key}",
        customer_id=f"cus_{key}",
        status="active",
        currency="usd",
        next_bill_at=moment + timedelta(days=30),
        items=(Item(interval="month", unit_amount=amount),),
    )
    return Event(processor="stripe", event_id=f"evt_{key}_{number}", occurred_at=moment, data=data)


def _event(number: int, key: int) -> Event:
    moment = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    if number % 3 < 2:
        return subscription_event(number, str(key), 4_900 + number % 7 * 100, moment)
    data = Invoice(
        invoice_id=f"in_{number}",
        subscription_id=f"sub_{key}",
        customer_id=f"cus_{key}",
        currency="usd",
        status="paid",
        amount_due=4_900,
        amount_paid=4_900,
        created_at=moment,
        finalized_at=moment,
        paid_at=moment,
    )
    return Event(processor="stripe", event_id=f"evt_{number}", occurred_at=moment, data=data)
