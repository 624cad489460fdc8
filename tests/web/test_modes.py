"""Test events beside live ones: kept and counted, and in no figure."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.intake.retranslate import Retranslator
from service.verify import verify_chain
from tests.support.running import NOW, Daybook, running
from tests.support.senders import STRIPE, stripe_charge, stripe_event, stripe_subscription
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

LIVE = {"livemode": True}
TEST = {"livemode": False}


def subscribed(key: str, cents: int, **more: Any) -> dict[str, Any]:
    contract = stripe_subscription(key, cents)
    return stripe_event("customer.subscription.created", contract, event_id=f"evt_{key}", **more)


def charged(key: str, cents: int, **more: Any) -> dict[str, Any]:
    charge = stripe_charge(key, cents, NOW, customer=f"cus_{key}")
    return stripe_event("charge.succeeded", charge, event_id=f"evt_{key}", **more)


@pytest.fixture
async def testing(data_dir: Path) -> AsyncIterator[Daybook]:
    """A Daybook whose test events count."""
    async with running(data_dir, stripe_mode="test") as daybook:
        yield daybook


async def figures(daybook: Daybook, **query: Any) -> tuple[int, int, int]:
    """MRR, what was collected this month, and the count of ignored events."""
    await daybook.catch_up()
    mrr = await daybook.get("/api/v1/mrr", **query)
    months = await daybook.get("/api/v1/revenue/monthly-totals", from_="2025-11", to="2025-11", **query)
    return mrr["mrr_cents"], months["months"][0]["collected_cents"], mrr["meta"]["ignored_events"]


async def test_a_test_event_is_kept_and_counts_nowhere(daybook: Daybook, logged: list[Any]) -> None:
    answers = [
        (await daybook.post(STRIPE, event)).json()
        for event in (
            subscribed("1", 3100, **LIVE),
            subscribed("2", 88000, **TEST),
            charged("3", 47000, **TEST, account="acct_4"),
            charged("5", 1900),
        )
    ]

    assert [answer.get("ignored") for answer in answers] == [None, "test mode", "test mode", None]
    assert await figures(daybook) == (3100, 1900, 2)
    assert (await figures(daybook, account="acct_4"))[2] == 1
    assert (await figures(daybook, currency="jpy"))[2] == 2
    kept = await daybook.get("/api/v1/ledger/causes/stripe:evt_2")
    assert (kept["type"], kept["data"]) == (
        "unused",
        {
            "original_type": "customer.subscription.created",
            "customer_id": "cus_2",
            "ignored": "test mode",
            "event_id": "evt_2",
        },
    )
    lines = [entry for entry in logged if entry["event"] == "event_ignored"]
    assert [(line["reason"], line["left_out"]) for line in lines] == [("test mode", 0)]
    assert await verify_chain(daybook.state.ledger) == 4


async def test_where_test_events_count_the_live_ones_do_not(testing: Daybook) -> None:
    live = (await testing.post(STRIPE, subscribed("1", 3100, **LIVE))).json()
    test = (await testing.post(STRIPE, subscribed("2", 700, **TEST))).json()

    assert (live["ignored"], "ignored" in test) == ("live mode", False)
    assert (await figures(testing))[::2] == (700, 1)


async def test_a_retry_of_an_ignored_event_is_a_duplicate(daybook: Daybook) -> None:
    event = charged("6", 2500, **TEST)
    await daybook.post(STRIPE, event)

    again = (await daybook.post(STRIPE, {**event, "pending_webhooks": 0})).json()

    assert again == {"received": True, "position": 1, "duplicate": True, "ignored": "test mode"}
    assert (await figures(daybook))[2] == 1


async def test_an_ignored_event_may_have_any_object(daybook: Daybook) -> None:
    event = stripe_event("invoice.paid", {"object": "invoice", "amount_due": "a lot"}, **TEST)

    answer = (await daybook.post(STRIPE, event)).json()

    assert answer == {"received": True, "position": 1, "duplicate": False, "ignored": "test mode"}


async def test_after_a_change_of_the_setting_a_retranslation_takes_up_the_others(daybook: Daybook) -> None:
    await daybook.post(STRIPE, subscribed("1", 3100, **LIVE))
    await daybook.post(STRIPE, subscribed("2", 700, **TEST))
    assert (await figures(daybook))[::2] == (3100, 1)
    ledger = daybook.state.ledger

    testing = daybook.state.settings.model_copy(update={"stripe_mode": "test"})
    changed = await Retranslator(ledger, daybook.clock, testing, apply=True).run(0, lambda _: None)

    assert changed.changed == 2
    assert (await figures(daybook))[::2] == (700, 1)
    assert not (await Retranslator(ledger, daybook.clock, testing).run(0, lambda _: None)).differs


async def test_many_alike_are_one_line_in_the_log(daybook: Daybook, logged: list[Any]) -> None:
    for number in range(5):
        await daybook.post(STRIPE, charged(str(number), 100, **TEST))
    daybook.clock.now = NOW.replace(minute=50)
    await daybook.post(STRIPE, charged("9", 100, **TEST))

    assert [line["left_out"] for line in logged if line["event"] == "event_ignored"] == [0, 4]


@pytest.mark.parametrize(
    ("context", "account"),
    [("acct_b", "acct_b"), ("org_1/acct_c", "acct_c"), ("org_1", ""), (None, ""), (7, "")],
)
async def test_an_ignored_event_has_the_account_of_its_context(
    daybook: Daybook, context: Any, account: str
) -> None:
    await daybook.post(STRIPE, charged("8", 100, **TEST, context=context))

    assert (await daybook.get("/api/v1/ledger/events/1"))["account"] == account
