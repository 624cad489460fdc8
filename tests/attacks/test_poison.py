"""One delivery, or one contract, that would stall every book: the books go on without it, and say so."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import json

from service.bootstrap import existing_ledger
from service.ledger.set_aside import read_set_aside
from service.lookback import maker
from service.settings import Settings, load
from service.verify import verify_all
from tests.support.processes import NO_TLS, DaybookProcesses, post, signed
from tests.support.running import Daybook, running
from tests.support.senders import STANDARD, STRIPE, stripe_event, stripe_subscription
from tests.support.stores import EACH_STORE
from tests.support.waiting import PATIENCE_SECONDS, eventually

STORES = EACH_STORE
BEGIN = datetime(2025, 12, 1, tzinfo=UTC)
HEALTHY = {
    "subscription_id": "sub-1",
    "customer_id": "cus-1",
    "status": "active",
    "currency": "usd",
    "items": [{"interval": "month", "unit_amount": "10000"}],
}


def repeating(count: int) -> list[dict[str, Any]]:
    """Discounts of which each ends on a day of its own."""
    return [
        {
            "percent_off": f"0.{10**11 + number}",
            "duration": "repeating",
            "ends_at": (BEGIN + timedelta(days=number)).isoformat(),
        }
        for number in range(count)
    ]


def crowded(subscription_id: str) -> dict[str, Any]:
    """A contract with as many items and discounts as a delivery may bring: too many days to price it on."""
    discounts = repeating(480)
    items = [
        {
            "interval": "month",
            "unit_amount": "100000",
            "item_id": f"item-{number}",
            "discounts": discounts[number * 40 : number * 40 + 40],
        }
        for number in range(12)
    ]
    items += [{"interval": "month", "unit_amount": "1"}] * 80
    return {**HEALTHY, "subscription_id": subscription_id, "customer_id": "cus-x", "items": items}


@pytest.fixture
async def daybook(data_dir: Path) -> AsyncIterator[Daybook]:
    async with running(data_dir) as daybook:
        yield daybook


async def test_a_subscription_of_thousands_of_discounts_is_kept_and_read_by_no_book(daybook: Daybook) -> None:
    body = {
        "type": "subscription.recorded",
        "occurred_at": "2025-11-01T00:00:00Z",
        "data": {**HEALTHY, "discounts": repeating(5_000)},
    }
    answer = await daybook.post(STANDARD, body)

    assert (answer.status_code, answer.json()["quarantined"]) == (200, True)
    assert await daybook.quarantine() == {("standard.acme", "unreadable"): 1}
    (waiting,) = (await daybook.get("/api/v1/quarantine"))["quarantine"]
    assert waiting["detail"] == "it has 5000 discounts, and none that is real has more than 500"


async def test_so_is_one_of_stripe_with_thousands_of_items_taxes_and_schedules(daybook: Daybook) -> None:
    payload = stripe_subscription("1", 100)
    (item,) = payload["items"]["data"]
    item["price"]["tax_behavior"] = "inclusive"
    payload["items"]["data"] = [item] * 1_500
    payload["default_tax_rates"] = [{"id": "txr_1", "inclusive": True, "percentage": 0.01}] * 3_000
    answer = await daybook.post(STRIPE, stripe_event("customer.subscription.updated", payload))

    assert (answer.status_code, answer.json()["quarantined"]) == (200, True)
    (waiting,) = (await daybook.get("/api/v1/quarantine"))["quarantine"]
    assert waiting["detail"] == "it has 1500 items, and none that is real has more than 500"


async def test_a_contract_within_the_bounds_that_takes_too_much_work_is_set_aside(daybook: Daybook) -> None:
    await daybook.record("subscription.recorded", "2025-11-01T00:00:00Z", **HEALTHY)
    poison = crowded("sub-x")
    await daybook.record(
        "subscription.recorded",
        "2025-11-02T00:00:00Z",
        **{**HEALTHY, "subscription_id": "sub-x", "customer_id": "cus-x"},
    )
    await daybook.record("subscription.recorded", "2025-11-03T00:00:00Z", **poison)
    await daybook.record("subscription.recorded", "2025-11-04T00:00:00Z", **{**HEALTHY, "status": "past_due"})
    await daybook.catch_up()

    mrr = await daybook.get("/api/v1/mrr", at_least=str(await daybook.head()), timeout_ms="0")
    assert (mrr["mrr_cents"], mrr["meta"]["set_aside"]) == (20_000, 1)
    (found,) = (await daybook.get("/api/v1/quarantine"))["set_aside"]
    assert found["history"] == "subscription|standard.acme||sub-x"
    assert (found["error"], found["up_to"], found["position"]) == ("TooMuchWork", 2, 5)
    metrics = (await daybook.ask("/metrics")).text
    assert "daybook_set_aside_histories 1.0" in metrics
    event = await daybook.get(f"/api/v1/ledger/events/{found['position']}")
    assert (event["type"], event["data"]["key"]) == ("subject.set_aside", "sub-x")


@pytest.mark.parametrize("few_events", [1_000, 0], ids=["in a thread", "in a process"])
async def test_restatements_that_take_too_much_work_are_400_and_nothing_goes_on(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch, few_events: int, store_kind: str
) -> None:
    if (few_events, store_kind) == (0, "postgresql"):
        pytest.skip("the process is that of SQLite")
    monkeypatch.setattr(maker, "FEW_EVENTS", few_events)
    for number in range(30):  # each is within the bounds of a fold, and all that came before are folded again
        daybook.clock.now += timedelta(minutes=1)
        told = daybook.clock.now.isoformat()
        items = [{**item, "unit_amount": str(number)} for item in crowded("sub-x")["items"][:5]]
        await daybook.record("subscription.recorded", told, **{**crowded("sub-x"), "items": items})
    await daybook.catch_up()
    asked: dict[str, Any] = {"from": "2025-11-01", "timeout_ms": 30_000}

    refused = await daybook.http.get("/api/v1/restatements", params=asked)
    while refused.status_code == 503 and "being prepared" in refused.json()["detail"]:
        refused = await daybook.http.get("/api/v1/restatements", params=asked)

    assert (refused.status_code, refused.json()["type"]) == (400, "urn:daybook:problem:parameter")
    assert "takes too long to compare" in refused.json()["detail"]
    lookback = daybook.state.lookback
    assert (lookback._task, lookback._process) == (None, None)
    await daybook.record("subscription.recorded", "2025-11-04T00:00:00Z", **HEALTHY)
    with monkeypatch.context() as patch:  # whatever holds the same events is not begun again
        patch.setattr(lookback, "_start", None)
        again = await daybook.http.get("/api/v1/restatements", params={**asked, "from": "2025-10-01"})
    assert again.status_code == 400
    before = await daybook.get("/api/v1/restatements", from_="2025-10-01", to="2025-10-02")
    assert before["restatements"] == []


# The same, by real processes that are killed meanwhile


@pytest.mark.timeout(600)
async def test_a_worker_that_is_killed_again_and_again_comes_past_it(processes: DaybookProcesses) -> None:
    processes.start("web")
    processes.start("worker")
    await asyncio.to_thread(processes.wait_ready)
    await asyncio.to_thread(post, processes, 1)
    for number, subscription_id in enumerate(("sub-x", "sub-y")):
        body = json.encode(
            {
                "type": "subscription.recorded",
                "occurred_at": "2025-11-03T00:00:00Z",
                "data": crowded(subscription_id),
            }
        )
        answer = await asyncio.to_thread(
            httpx.post,
            f"{processes.url}/webhooks/standard/biller",
            content=body,
            headers=signed(f"evt-poison-{number}", body),
            timeout=PATIENCE_SECONDS,
            verify=NO_TLS,
        )
        assert answer.json()["received"] is True
        await asyncio.to_thread(processes.kill, "worker")
        processes.start("worker")
    await asyncio.to_thread(post, processes, 2)
    await eventually(lambda: processes.caught_up(6), "the books hold four events and two that set aside")

    settings: Settings = load(data_dir=processes.data_dir)
    assert (await verify_all(settings)).lag_events == 0
    assert len(await set_aside(settings)) == 2


async def set_aside(settings: Settings) -> list[Any]:

    async with existing_ledger(settings) as ledger:
        return await ledger.read(read_set_aside)
