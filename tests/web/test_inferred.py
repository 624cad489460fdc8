"""The past that is inferred from bills, as the reads show it."""

from itertools import pairwise
from typing import Any

import pytest

from tests.support.posted_books import invoices
from tests.support.running import Daybook
from tests.support.senders import subscription
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

BILLED = ("2025-08-10", "2025-09-10", "2025-10-10", "2025-11-10")
FIRST_EVENT = "2025-11-01T10:00:00Z"


def billed(start: str, end: str, cents: int, interval: str) -> dict[str, Any]:
    return {
        "starts_at": f"{start}T00:00:00Z",
        "ends_at": f"{end}T00:00:00Z",
        "amount": cents,
        "interval": interval,
    }


@pytest.fixture
async def past(daybook: Daybook) -> list[str]:
    """Three monthly bills before a contract's first event, beside a contract that was always known.

    The bills' causes.
    """
    causes = [
        await invoices(
            daybook,
            "cust-1",
            start,
            10_000,
            subscription_id="sub-1",
            billed=[billed(start, end, 10_000, "month")],
        )
        for start, end in pairwise(BILLED)
    ]
    await daybook.record("subscription.recorded", "2025-08-01T10:00:00Z", **subscription("2", 30_000))
    await daybook.record("subscription.recorded", FIRST_EVENT, **subscription("1", 10_000))
    await daybook.catch_up()
    return causes


@pytest.mark.usefixtures("past")
async def test_mrr_of_a_past_day_says_how_much_of_it_is_inferred(daybook: Daybook) -> None:
    found = [
        await daybook.get("/api/v1/mrr", today=day) for day in ("2025-08-09", "2025-10-31", "2025-11-01")
    ]
    assert [answer["mrr_cents"] for answer in found] == [30_000, 40_000, 40_000]
    assert [answer["meta"]["inferred_share"] for answer in found] == [0.0, 0.25, 0.0]


async def test_the_movements_of_the_past_are_inferred_and_name_their_bills(
    daybook: Daybook, past: list[str]
) -> None:
    answer = await daybook.get(
        "/api/v1/mrr/movements", from_="2025-08-01", to="2025-11-13", detail="customers"
    )
    assert [(row["date"], row["kind"], row["trust"]) for row in answer["movements"]] == [
        ("2025-08-01", "new", "signed"),
        ("2025-08-10", "new", "inferred"),
    ]
    assert answer["movements"][1]["causes"] == past[:1]
    assert [period["opening_cents"] for period in answer["periods"]] == [0, 40_000, 40_000, 40_000]
    assert answer["meta"]["inferred_share"] == 0.25


@pytest.mark.usefixtures("past")
async def test_metrics_say_how_much_of_what_opened_their_periods_is_inferred(daybook: Daybook) -> None:
    answer = await daybook.get("/api/v1/metrics", from_="2025-10-01", to="2025-11-30", by="month")
    assert [period["opening_cents"] for period in answer["periods"]] == [40_000, 40_000]
    assert answer["meta"]["inferred_share"] == 0.25


async def test_what_is_inferred_is_explained_by_the_bills(daybook: Daybook, past: list[str]) -> None:
    answer = await daybook.get("/api/v1/explain", figure="mrr/mrr_cents", today="2025-10-31")
    assert answer["adds_up"] is True
    assert {(row["trust"], row["contributes"]) for row in answer["rows"]} == {
        ("signed", 30_000),
        ("inferred", 10_000),
    }
    assert past[0] in {event["cause"] for event in answer["events"]}
    assert answer["meta"]["inferred_share"] == 0.25


@pytest.mark.usefixtures("past")
async def test_a_bill_from_before_the_first_event_says_that_its_mrr_is_inferred(daybook: Daybook) -> None:
    found = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=9, today="2025-10-31")
    rows = {(row["mrr_cents"], row["mrr_inferred"], row["trust"]) for row in found["payments"]}
    assert rows == {(10_000, True, "signed")}


async def test_two_policies_are_compared_on_a_day_that_is_inferred(daybook: Daybook) -> None:
    weekly = [billed("2025-10-06", "2025-10-13", 24_900, "week")]
    await invoices(daybook, "cust-1", "2025-10-06", 24_900, subscription_id="sub-1", billed=weekly)
    await daybook.record("subscription.recorded", FIRST_EVENT, **subscription("1", 24_900, "week"))
    await daybook.catch_up()

    answer = await daybook.get("/api/v1/mrr/compare", policies="default,stripe", today="2025-10-10")
    (customer,) = answer["customers"]
    (contract,) = customer["contracts"]
    assert answer["difference_cents"] == contract["difference_cents"] == 107_900 - 107_817
    assert [(reason["rule"], reason["amount_cents"]) for reason in contract["reasons"]] == [
        ("weeks_per_month", 83)
    ]
    assert customer["trust"] == "inferred"
    assert answer["meta"]["inferred_share"] == 1.0
