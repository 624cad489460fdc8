"""What thin events name is fetched once, whatever fails meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.core.events import Subscription, ThinEvent
from service.intake import quarantine
from service.sync.thin_events import ThinFetcher
from tests.support.stores import EACH_STORE
from tests.support.stripe_api import (
    Shop,
    StripeApi,
    cut_off,
    invoice,
    refusal,
    subscription,
    thin_event,
)
from tests.support.sync_daybook import MONTH, SECONDS, SyncDaybook
from tests.support.thin_events import fetch, open_fetcher, pending, waits

STORES = EACH_STORE


@pytest.fixture
async def fetcher(daybook: SyncDaybook, api: StripeApi) -> AsyncIterator[ThinFetcher]:
    async with open_fetcher(daybook.ledger, daybook.clock, api) as fetcher:
        yield fetcher


def changes(shop: Shop, **thin: Any) -> dict[str, Any]:
    """A subscription begins in a shop; the thin event that says so."""
    snapshot = shop.happens("customer.subscription.created", subscription(1), SECONDS - 60)
    whole = thin_event(1, snapshot, context=thin.get("context"))
    shop.thin_events[whole["id"]] = whole
    return thin_event(1, snapshot, **thin)


def paths(api: StripeApi) -> list[str]:
    return [path for path, _ in api.asked]


async def recorded(daybook: SyncDaybook) -> list[tuple[str, str, str]]:
    """The id, type and trust of each event that has an effect."""
    rows = [row for row in await daybook.rows() if not row["type"].startswith("event.")]
    return [(row["event_id"], row["type"], row["trust"]) for row in rows]


async def quarantined(daybook: SyncDaybook) -> dict[tuple[str, str], int]:
    async with daybook.ledger.reading() as reader:
        return await reader.count_quarantined()


SNAPSHOT = [("evt_1", "subscription.recorded", "fetched")]


async def test_the_event_that_it_names_is_recorded_under_its_own_id(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    await daybook.deliver(changes(api.shop))
    assert await recorded(daybook) == []
    assert await pending(daybook.ledger) == 1

    await fetch(fetcher)

    assert await recorded(daybook) == SNAPSHOT
    assert paths(api) == ["/v1/events/evt_1"]
    assert await pending(daybook.ledger) == 0
    assert await daybook.retranslation_changes() == []


async def test_one_that_names_no_event_is_asked_for_it_first(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    await daybook.deliver(changes(api.shop, names_snapshot=False))

    await fetch(fetcher)

    assert paths(api) == ["/v2/core/events/evt_thin_1", "/v1/events/evt_1"]
    assert await recorded(daybook) == SNAPSHOT


@pytest.mark.parametrize("names_snapshot", [True, False])
async def test_of_an_event_that_is_kept_no_longer_the_object_is_observed_at_the_fetch(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher, names_snapshot: bool
) -> None:
    thin = changes(api.shop, names_snapshot=names_snapshot)
    api.shop.events.clear()
    api.shop.thin_events.clear()
    await daybook.deliver(thin)

    await fetch(fetcher)

    (row,) = [row for row in await daybook.rows() if row["type"] == "subscription.recorded"]
    assert (row["event_id"], row["trust"], row["occurred_at_us"]) == (
        "evt_thin_1·2",
        "fetched",
        SECONDS * 1_000_000,
    )
    assert paths(api)[-1] == "/v1/subscriptions/sub_1"
    assert await quarantined(daybook) == {}
    assert await pending(daybook.ledger) == 0
    assert await daybook.retranslation_changes() == []


async def test_a_redelivery_after_the_fetch_changes_nothing(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    thin = changes(api.shop)
    api.shop.events.clear()
    await daybook.deliver(thin)
    await fetch(fetcher)
    before, asked = await daybook.head(), len(api.asked)

    await daybook.deliver(thin)
    await fetch(fetcher)

    assert (await daybook.head(), len(api.asked)) == (before, asked)


async def test_an_event_that_a_webhook_brought_is_not_fetched(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    thin = changes(api.shop)
    await daybook.deliver(*api.shop.events, thin)

    await fetch(fetcher)

    assert api.asked == []
    assert await recorded(daybook) == [("evt_1", "subscription.recorded", "signed")]
    assert await pending(daybook.ledger) == 0


async def test_an_event_that_was_fetched_and_then_delivered_is_one(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    await daybook.deliver(changes(api.shop))
    await fetch(fetcher)

    await daybook.deliver(*api.shop.events)

    assert await recorded(daybook) == [*SNAPSHOT, ("evt_1·2", "subscription.recorded", "signed")]
    assert await quarantined(daybook) == {}


async def test_reconciliation_and_fetch_record_one_event(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    await daybook.deliver(changes(api.shop))
    report = await daybook.reconcile(api)
    asked = len(api.asked)

    await fetch(fetcher)

    assert report.missed == {"customer.subscription.created": 1}
    assert len(api.asked) == asked
    assert await recorded(daybook) == SNAPSHOT


async def test_of_a_connected_account_it_is_asked_in_the_context_of_the_event(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    api.shops["acct_1"] = Shop()
    await daybook.deliver(changes(api.shops["acct_1"], context="org_1/acct_1", names_snapshot=False))

    await fetch(fetcher)

    (row,) = [row for row in await daybook.rows() if row["type"] == "subscription.recorded"]
    assert (row["event_id"], row["account"]) == ("evt_1", "acct_1")


async def test_an_object_of_a_connected_account_is_observed_there(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    api.shops["acct_1"] = Shop()
    thin = changes(api.shops["acct_1"], context="acct_1")
    api.shops["acct_1"].events.clear()
    await daybook.deliver(thin)

    await fetch(fetcher)

    (row,) = [row for row in await daybook.rows() if row["type"] == "subscription.recorded"]
    assert (row["event_id"], row["account"]) == ("evt_thin_1·2", "acct_1")


FAULTS = {
    "429": lambda _: refusal(429, "rate_limit", Retry_After="7"),
    "500": lambda _: refusal(500),
    "503": lambda _: refusal(503),
    "reset": cut_off,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_for_a_while_delays_the_fetch(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher, fault: str
) -> None:
    await daybook.deliver(changes(api.shop))
    api.faults = [FAULTS[fault]] * 3

    await fetch(fetcher)

    assert await recorded(daybook) == SNAPSHOT
    assert len(api.asked) == 4


async def test_a_fetch_that_fails_is_due_again_each_time_later(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    await daybook.deliver(changes(api.shop))
    for _, wait in zip(range(8), waits(), strict=False):
        api.faults = [FAULTS["500"]] * 8
        with capture_logs() as lines:
            await fetch(fetcher)
        assert [line["event"] for line in lines if "cause" in line] == ["fetch_failed"]
        daybook.now += wait - timedelta(microseconds=1)
        asked = len(api.asked)
        await fetch(fetcher)
        assert len(api.asked) == asked
        assert await pending(daybook.ledger) == 1
        daybook.now += timedelta(microseconds=1)

    await fetch(fetcher)

    assert await recorded(daybook) == SNAPSHOT


async def test_a_worker_that_dies_in_a_fetch_leaves_it_to_the_next_one(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    await daybook.deliver(changes(api.shop))
    assert await daybook.ledger.claim_fetch("stripe", daybook.now) == "evt_thin_1"

    await fetch(fetcher)
    assert api.asked == []
    daybook.now += next(waits())
    await fetch(fetcher)

    assert await recorded(daybook) == SNAPSHOT


async def test_many_tasks_and_processes_fetch_each_event_once(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    thins = []
    for number in range(12):
        thing = subscription(number, quantity=number + 1)
        snapshot = api.shop.happens("customer.subscription.created", thing, SECONDS - 60)
        thins.append(thin_event(number, snapshot))
    await daybook.deliver(*thins)

    async with open_fetcher(daybook.ledger, daybook.clock, api) as other:
        await asyncio.gather(*(fetch(each) for each in (fetcher, other, fetcher, other)))

    assert sorted(paths(api)) == sorted(f"/v1/events/evt_{number + 1}" for number in range(12))
    assert len(await recorded(daybook)) == 12


async def test_one_that_is_refused_leaves_the_others_for_the_next_look(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    lost = thin_event(9, api.shop.happens("invoice.paid", invoice(9), SECONDS), context="acct_lost")
    await daybook.deliver(lost, changes(api.shop))

    for _ in range(2):
        await fetch(fetcher)

    assert await pending(daybook.ledger) == 1
    assert ("evt_2", "subscription.recorded", "fetched") in await recorded(daybook)


# What can't be had any more


async def gone(daybook: SyncDaybook, api: StripeApi) -> dict[str, Any]:
    """A thin event of a draft that was deleted, long ago."""
    snapshot = api.shop.happens("invoice.deleted", invoice(1, status="draft"), SECONDS)
    api.shop.events.clear()
    api.shop.objects.clear()
    thin = thin_event(1, snapshot)
    await daybook.deliver(thin)
    return thin


async def test_what_the_api_has_no_longer_is_shown_in_quarantine(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    await gone(daybook, api)

    await fetch(fetcher)

    assert await quarantined(daybook) == {("stripe", "gone"): 1}
    assert await pending(daybook.ledger) == 0
    assert await recorded(daybook) == []


async def test_it_can_be_tried_again_from_quarantine_any_number_of_times(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    await gone(daybook, api)
    await fetch(fetcher)
    for number in (1, 2):
        daybook.now += timedelta(hours=1)
        await quarantine.retry(daybook.ledger, number, daybook.now, daybook.settings)
        assert await quarantined(daybook) == {}
        await fetch(fetcher)
        assert await quarantined(daybook) == {("stripe", "gone"): 1}

    api.shop.objects["in_1"] = invoice(1, status="draft")
    daybook.now += timedelta(hours=1)
    await quarantine.retry(daybook.ledger, 3, daybook.now, daybook.settings)
    await fetch(fetcher)

    assert await recorded(daybook) == [("evt_thin_1·2", "invoice.recorded", "fetched")]
    assert await quarantined(daybook) == {}


async def test_what_is_refused_waits_as_long_as_the_event_is_kept(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    await daybook.deliver(changes(api.shop, context="acct_lost"))
    await fetch(fetcher)
    assert await quarantined(daybook) == {}

    daybook.now += MONTH
    await fetch(fetcher)

    assert await quarantined(daybook) == {("stripe", "gone"): 1}
    async with daybook.ledger.reading() as reader:
        (row,) = await reader.quarantined_deliveries(0, 1)
    assert row["detail"] == "Stripe answered 403 to /v1/events/evt_1"


async def test_what_is_fetched_and_can_not_be_read_is_in_quarantine_as_that(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    thin = changes(api.shop)
    api.shop.events[0]["data"]["object"]["items"] = "none"
    await daybook.deliver(thin)

    await fetch(fetcher)

    assert await quarantined(daybook) == {("stripe", "unreadable"): 1}
    assert await pending(daybook.ledger) == 0


async def test_an_answer_that_is_no_thin_event_is_asked_for_again(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    await daybook.deliver(changes(api.shop, names_snapshot=False))
    whole = api.shop.thin_events.pop("evt_thin_1")
    api.shop.thin_events["evt_thin_1"] = {"object": "v2.core.event"}

    await fetch(fetcher)
    assert await pending(daybook.ledger) == 1
    api.shop.thin_events["evt_thin_1"] = whole
    daybook.now += next(waits())
    await fetch(fetcher)

    assert await recorded(daybook) == SNAPSHOT


async def test_a_wrong_key_names_neither_itself_nor_the_answer(daybook: SyncDaybook, api: StripeApi) -> None:
    await daybook.deliver(changes(api.shop))

    async with open_fetcher(daybook.ledger, daybook.clock, api, key="sk_live_other") as fetcher:
        with capture_logs() as lines:
            await fetch(fetcher)

    (line,) = [line for line in lines if line["event"] == "fetch_failed"]
    assert line["detail"] == "Stripe answered 401 to /v1/events/evt_1"
    assert "sk_live" not in str(lines)


async def test_a_thin_event_that_was_observed_is_known_by_what_was_observed(
    daybook: SyncDaybook, api: StripeApi, fetcher: ThinFetcher
) -> None:
    thin = changes(api.shop)
    api.shop.events.clear()
    await daybook.deliver(thin)
    await fetch(fetcher)

    async with daybook.ledger.reading() as reader:
        position = await reader.find_effective("stripe", "evt_thin_1")
        rows = await reader.recorded_events(["evt_thin_1", "evt_thin_1·2"])

    data = {row.position: type(row.event.data) for row in rows}
    assert position is not None
    assert data[position] is Subscription
    assert set(data.values()) == {ThinEvent, Subscription}
