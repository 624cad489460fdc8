"""Thin events for tests: a fetcher over a ledger and the stand-in of Stripe's API."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import count

from handlers import stripe
from service.ledger.fetches import read_pending_fetches
from service.ledger.store import Ledger
from service.settings import load
from service.sync.client import ApiClient
from service.sync.thin_events import ThinFetcher
from tests.support.senders import STRIPE
from tests.support.stripe_api import KEY, StripeApi


async def _pass_over(_seconds: float) -> None:
    """A wait that takes no time."""


@asynccontextmanager
async def open_fetcher(
    ledger: Ledger, clock: Callable[[], datetime], api: StripeApi, key: str = KEY
) -> AsyncIterator[ThinFetcher]:
    """A fetcher whose waits take no time; it is woken by nobody but the test."""
    processor = stripe.PROCESSOR
    assert processor.api
    assert processor.api.events
    assert processor.thin_events
    client = ApiClient(
        processor.api,
        {"stripe_api_key": key, "stripe_api_url": api.url},
        pause=_pass_over,
        random_fraction=lambda: 1.0,
        monotonic=count().__next__,
    )
    fetcher = ThinFetcher(
        processor,
        processor.thin_events,
        processor.api.events,
        client,
        ledger,
        clock,
        load(stripe_webhook_secrets=STRIPE.secret),
        lambda _position: None,
    )
    try:
        yield fetcher
    finally:
        await fetcher.close()
        await client.close()


async def fetch(fetcher: ThinFetcher) -> None:
    """Fetch all that is due, in as many tasks as the fetcher starts."""
    await fetcher.fetch_due()
    while fetcher._tasks:
        await asyncio.wait(list(fetcher._tasks))


async def pending(ledger: Ledger) -> int:
    """How many thin events wait for what they name."""
    return sum(each.count for each in await ledger.read(read_pending_fetches))


def waits() -> Iterator[timedelta]:
    """How long a fetch is put off each time that it fails."""
    for number in count():
        yield min(timedelta(seconds=90) * 2**number, timedelta(hours=1))
