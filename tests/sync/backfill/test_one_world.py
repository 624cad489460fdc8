"""Books that a backfill fills, beside those that webhooks filled, of the same random lives of customers."""

import asyncio
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import Unavailable
from tests.support.effort import examples
from tests.support.one_world import TODAY, a_daybook, an_api, figures, read
from tests.support.stripe_api import Shop, StripeApi, cut_off, refusal
from tests.support.stripe_world import START, shops
from tests.support.sync_daybook import SyncDaybook


async def closing_mrr(daybook: SyncDaybook) -> dict[date, int]:
    """The MRR at the end of each day."""
    span = {"from_": START.date().isoformat(), "to": TODAY.isoformat()}
    answer = await read(daybook, "mrr-movements", by="day", **span)
    return {date.fromisoformat(each["period"]): each["closing_cents"] for each in answer["periods"]}


def customer_ids(shop: Shop) -> list[str]:
    return [each["id"] for each in shop.listed("customer")]


@given(shops())
@examples(10)
def test_a_backfill_alone_gives_the_figures_that_webhooks_give(shop: Shop) -> None:
    async def compare() -> None:
        async with a_daybook() as told, a_daybook() as backfilled:
            await told.deliver(*shop.events)
            with an_api(deepcopy(shop)) as api:
                await backfilled.backfill(api)
            ids = customer_ids(shop)
            assert await figures(backfilled, ids, "2025-01") == await figures(told, ids, "2025-01")

    asyncio.run(compare())


@given(shops(changes_seats=True))
@examples(10)
def test_mrr_of_a_past_day_differs_only_where_the_day_was_not_billed_as_it_was(shop: Shop) -> None:
    """Seats that changed are billed from the next period on, and a void invoice bills nothing."""

    async def compare() -> None:
        async with a_daybook() as told, a_daybook() as backfilled:
            await told.deliver(*shop.events)
            with an_api(deepcopy(shop)) as api:
                await backfilled.backfill(api)
            known, inferred = await closing_mrr(told), await closing_mrr(backfilled)
            differing = {day for day in known if known[day] != inferred[day]}
            assert differing <= set(unbilled_days(shop))
            assert known[TODAY] == inferred[TODAY]

    asyncio.run(compare())


def unbilled_days(shop: Shop) -> Iterator[date]:
    """The days in periods of which an invoice is void, or in which seats changed."""
    for event in shop.events:
        thing = event["data"]["object"]
        if event["type"] == "invoice.voided":
            period = thing["lines"]["data"][0]["period"]
            yield from days(period["start"], period["end"])
        if event["type"] == "customer.subscription.updated":
            [item] = thing["items"]["data"]
            if event["created"] != item["current_period_start"]:
                yield from days(event["created"], item["current_period_end"])


def days(start: int, end: int) -> Iterator[date]:
    day = datetime.fromtimestamp(start, UTC).date()
    while day < datetime.fromtimestamp(end, UTC).date():
        yield day
        day += timedelta(days=1)


async def backfill_with_faults(daybook: SyncDaybook, api: StripeApi, faults: list[int]) -> None:
    """Runs until one finishes: at each of these requests, counted on, one ends, is reset, or has to wait."""
    kinds = [
        lambda _: refusal(402),  # the run ends, as if it were killed
        cut_off,
        lambda _: refusal(429, Retry_After="1"),
    ]
    for number, request in enumerate(faults):
        api.faults += [lambda _: None] * request + [kinds[number % len(kinds)]]
    while True:
        try:
            await daybook.backfill(api)
        except Unavailable:
            continue
        return


@given(shops(), st.lists(st.integers(0, 6), max_size=6), st.lists(st.integers(0, 6), max_size=6))
@examples(6)
def test_webhooks_and_backfills_give_one_digest_in_any_order_and_number(
    shop: Shop, faults: list[int], others: list[int]
) -> None:
    async def compare() -> None:
        async with a_daybook() as first, a_daybook() as second:
            with an_api(deepcopy(shop)) as api:
                await first.deliver(*shop.events)
                await backfill_with_faults(first, api, faults)
                api.faults = []
                await backfill_with_faults(second, api, others)
                await second.deliver(*shop.events)
                head = await second.head()
                api.faults = []
                await backfill_with_faults(second, api, faults)
                await second.deliver(*shop.events)
            assert await second.head() == head
            assert await second.book_digests() == await first.book_digests()
            assert sorted(await second.event_ids()) == sorted(await first.event_ids())

    asyncio.run(compare())
