"""Thin events over HTTP: what they are answered, and how it shows that one waits for what it names."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.running import Daybook, running
from tests.support.senders import STRIPE
from tests.support.stripe_api import KEY, StripeApi, serve, subscription, thin_event
from tests.support.temporary_books import NOW
from tests.support.thin_events import fetch, open_fetcher

SECONDS = int(NOW.timestamp())
EVENT_ID = "evt_thin_1"


@pytest.fixture
def api() -> Iterator[StripeApi]:
    with serve(StripeApi()) as api:
        yield api


@pytest.fixture
async def daybook(data_dir: Path, api: StripeApi) -> AsyncIterator[Daybook]:
    async with running(data_dir, stripe_api_key=KEY, stripe_api_url=api.url) as daybook:
        yield daybook


def thin(api: StripeApi, **fields: Any) -> dict[str, Any]:
    """The delivery that says that a subscription of 147 dollars a month began."""
    snapshot = api.shop.happens("customer.subscription.created", subscription(1), SECONDS - 60)
    return thin_event(1, snapshot) | fields


async def mrr(daybook: Daybook) -> int:
    await daybook.catch_up()
    cents: int = (await daybook.get("/api/v1/mrr"))["mrr_cents"]
    return cents


async def test_a_thin_event_is_kept_without_effect_until_it_is_fetched(
    daybook: Daybook, api: StripeApi
) -> None:
    body = thin(api)

    first, again = [await daybook.post(STRIPE, body) for _ in range(2)]

    assert first.json() == {"received": True, "position": 1, "duplicate": False, "pending": "fetch"}
    assert again.json() == {"received": True, "position": 1, "duplicate": True}
    assert await mrr(daybook) == 0
    async with open_fetcher(daybook.state.ledger, daybook.clock, api) as fetcher:
        await fetch(fetcher)
    assert await mrr(daybook) == 14700
    shown = await daybook.get("/api/v1/ledger/causes/stripe:evt_1")
    assert shown["trust"] == "fetched"


async def test_one_that_waits_shows_in_readyz_and_in_the_metrics(daybook: Daybook, api: StripeApi) -> None:
    await daybook.post(STRIPE, thin(api))
    daybook.clock.now += timedelta(seconds=70)

    assert (await daybook.get("/readyz"))["pending_fetches"] == [
        {
            "processor": "stripe",
            "count": 1,
            "oldest_at": "2025-11-13T10:30:00Z",
            "oldest_seconds": 70,
        }
    ]
    metrics = (await daybook.ask("/metrics")).text
    assert 'daybook_pending_fetches{processor="stripe"} 1.0' in metrics
    assert 'daybook_oldest_pending_fetch_seconds{processor="stripe"} 70.0' in metrics

    async with open_fetcher(daybook.state.ledger, daybook.clock, api) as fetcher:
        await fetch(fetcher)
    assert (await daybook.get("/readyz"))["pending_fetches"] == []
    assert 'daybook_pending_fetches{processor="stripe"} 0.0' in (await daybook.ask("/metrics")).text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "v1.customer.subscription.item_price_changed"}, {}),
        ({"type": "v2.core.event_destination.ping"}, {}),
        ({"livemode": False}, {"ignored": "test mode"}),
    ],
)
async def test_what_has_no_effect_is_kept_and_never_fetched(
    daybook: Daybook, api: StripeApi, fields: dict[str, Any], said: dict[str, Any]
) -> None:
    answer = await daybook.post(STRIPE, thin(api, **fields))

    assert answer.json() == {"received": True, "position": 1, "duplicate": False, **said}
    assert (await daybook.get("/readyz"))["pending_fetches"] == []
    assert (await daybook.get("/api/v1/ledger/events/1"))["type"] == "unused"


async def test_other_content_under_its_id_is_a_conflict(daybook: Daybook, api: StripeApi) -> None:
    body = thin(api)
    await daybook.post(STRIPE, body)

    answer = await daybook.post(STRIPE, body | {"snapshot_event": "evt_2"})

    assert answer.json() == {"received": True, "position": 1, "duplicate": False, "conflict": True}


async def test_a_wrong_signature_is_refused(daybook: Daybook, api: StripeApi) -> None:
    answer = await daybook.post(STRIPE, thin(api), secret="whsec_other")

    assert answer.status_code == 400
    assert await daybook.head() == 0


async def test_without_an_api_key_it_waits_in_quarantine_until_there_is_one(
    data_dir: Path, api: StripeApi
) -> None:
    # given a Daybook without a key
    body = thin(api)
    async with running(data_dir) as daybook:
        with capture_logs() as lines:
            answer = await daybook.post(STRIPE, body)
            await daybook.post(STRIPE, body)
        assert answer.json() == {
            "received": True,
            "position": None,
            "duplicate": False,
            "quarantined": True,
        }
        assert await daybook.quarantine() == {("stripe", "no_api"): 1}
        assert await daybook.head() == 0
        (row,) = (await daybook.get("/api/v1/quarantine"))["quarantine"]
        assert row["detail"] == "what this event names can't be fetched without DAYBOOK_STRIPE_API_KEY"
        assert [line["event"] for line in lines if line["event"] == "event_not_fetched"] == [
            "event_not_fetched"
        ]
        assert 'outcome="no_api"' in (await daybook.ask("/metrics")).text

    # when there is one
    async with running(data_dir, stripe_api_key=KEY, stripe_api_url=api.url) as daybook:
        async with open_fetcher(daybook.state.ledger, daybook.clock, api) as fetcher:
            assert await fetcher.take_up() == 1
            await fetch(fetcher)
            assert await fetcher.take_up() == 0

        # then it is fetched
        assert await daybook.quarantine() == {}
        assert await mrr(daybook) == 14700
        assert (await daybook.post(STRIPE, body)).json()["duplicate"] is True
