"""Everything that Stripe's API holds is recorded as observed: whole, once, and as far as the key may read."""

from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from msgspec import json

from service.core.errors import Refused, Unavailable
from tests.support.stripe_api import Shop, StripeApi, cut_off, invoice, refusal
from tests.support.stripe_world import CENTS, DAY, StripeWorld, at
from tests.support.sync_daybook import SyncDaybook

LISTS = {
    "customers": 1,
    "products": 1,
    "prices": 1,
    "subscriptions": 1,
    "subscription schedules": 0,
    "invoices": 1,
    "charges": 1,
    "refunds": 1,
    "disputes": 1,
    "credit notes": 1,
}


@pytest.fixture
def world(api: StripeApi) -> StripeWorld:
    """One of each kind of object."""
    world = StripeWorld(api.shop)
    subscription = world.subscribe(world.customer(at(0)), world.product(at(0)), at(0), seats=2)
    bill = world.bill(subscription, at(0))
    charge = world.pay(bill, at(1))
    world.refund(charge, 100, at(2))
    world.dispute(charge, at(3), "lost", at(5))
    world.credit(bill, 300, at(4))
    return world


async def cash(daybook: SyncDaybook) -> list[tuple[str, int, int, int]]:
    """The collected, refunded and disputed money of each day."""
    async with daybook.store.reading() as connection:
        rows = await connection.exec_driver_sql(
            "SELECT date, sum(collected_cents), sum(refunded_cents), sum(disputed_cents) FROM cash_days "
            "GROUP BY date ORDER BY date"
        )
        return [(row[0], *map(int, row[1:])) for row in rows]


@pytest.mark.usefixtures("world")
async def test_each_object_is_recorded_as_observed_and_its_money_has_its_own_days(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    results = await daybook.backfill(api)

    assert {name: (each.listed, each.recorded) for name, each in results.items()} == {
        name: (count, count) for name, count in LISTS.items()
    }
    rows = await daybook.rows()
    assert {row["trust"] for row in rows} == {"fetched"}
    assert {row["occurred_at_us"] for row in rows} == {int(daybook.now.timestamp() * 1_000_000)}
    assert await cash(daybook) == [
        ("2025-01-11", 2 * CENTS, 0, 0),
        ("2025-01-12", 0, 100, 0),
        ("2025-01-13", 0, 0, 2 * CENTS),
        ("2025-01-14", 0, 300, 0),
    ]
    assert await daybook.retranslation_changes() == []


@pytest.mark.usefixtures("world")
async def test_what_was_last_observed_like_that_is_not_recorded_again_and_what_comes_back_is(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    await daybook.backfill(api)
    head = await daybook.head()
    daybook.now += timedelta(hours=1)

    assert sum(each.recorded for each in (await daybook.backfill(api)).values()) == 0
    assert await daybook.head() == head

    recorded = []
    for name in ("Blake", "Avery"):
        daybook.now += timedelta(hours=1)
        [customer] = [thing for thing in api.shop.objects.values() if thing["object"] == "customer"]
        customer["name"] = name
        recorded.append((await daybook.backfill(api))["customers"].recorded)
    assert recorded == [1, 1]


@pytest.mark.usefixtures("world")
async def test_a_dry_run_counts_and_writes_nothing(daybook: SyncDaybook, api: StripeApi) -> None:
    before = await daybook.backfill(api, dry_run=True)

    assert (await daybook.head())[0] == 0
    assert await daybook.kept("backfill|stripe|") is None
    assert before == await daybook.backfill(api)


async def test_only_what_was_created_since_is_asked_for(daybook: SyncDaybook, api: StripeApi) -> None:
    world = StripeWorld(api.shop)
    world.customer(at(0))
    world.customer(at(2))

    assert (await daybook.backfill(api, since=at(1)))["customers"].recorded == 1
    assert {query.get("created[gte]") for _, query in api.asked} == {str(at(1))}


async def test_a_connected_account_has_objects_of_its_own(daybook: SyncDaybook, api: StripeApi) -> None:
    api.shops["acct_1"] = Shop()
    StripeWorld(api.shops["acct_1"]).customer(at(0))
    StripeWorld(api.shop).customer(at(0))

    await daybook.backfill(api, "acct_1")

    assert [row["account"] for row in await daybook.rows()] == ["acct_1"]


# Whole objects


def with_lines(count: int) -> dict[str, Any]:
    """An invoice with so many lines of a dollar."""
    thing = invoice(1, amount_due=100 * count, subtotal=100 * count)
    line = thing["lines"]["data"][0]
    lines = [deepcopy(line) | {"id": f"il_{number}", "amount": 100} for number in range(count)]
    return thing | {"lines": thing["lines"] | {"data": lines}}


async def recorded_body(daybook: SyncDaybook, kind: str) -> dict[str, Any]:
    async with daybook.ledger.reading() as reader:
        bodies = [json.decode(row["body"]) for row in await reader.deliveries(0, 100)]
    [found] = [body for body in bodies if body["object"] == kind]
    return found


async def test_an_invoice_is_recorded_with_all_its_lines(daybook: SyncDaybook, api: StripeApi) -> None:
    thing = with_lines(230)
    api.shop.objects["in_1"] = thing

    await daybook.backfill(api)

    assert (await recorded_body(daybook, "invoice"))["lines"] == thing["lines"]
    [row] = await daybook.rows()
    assert len(json.decode(row["data"])["lines"]) == 230


async def test_lines_that_may_not_be_read_leave_the_invoice_as_it_is_listed(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    api.shop.objects["in_1"] = with_lines(12)
    api.refused = {"lines": 403}

    await daybook.backfill(api)

    lines = (await recorded_body(daybook, "invoice"))["lines"]
    assert (len(lines["data"]), lines["has_more"]) == (10, True)


async def test_the_tiers_of_a_price_are_fetched_with_the_items(daybook: SyncDaybook, api: StripeApi) -> None:
    world = StripeWorld(api.shop)
    price = world.product(at(0)) | {
        "billing_scheme": "tiered",
        "tiers_mode": "graduated",
        "unit_amount": None,
        "unit_amount_decimal": None,
        "tiers": [{"up_to": None, "unit_amount": 700, "flat_amount": None}],
    }
    world.subscribe(world.customer(at(0)), price, at(0), seats=3)

    await daybook.backfill(api)

    async with daybook.store.reading() as connection:
        rows = await connection.exec_driver_sql("SELECT sum(mrr_cents) FROM mrr_steps")
        assert rows.scalar_one() == 2_100


@pytest.mark.usefixtures("world")
async def test_an_api_that_does_not_know_a_parameter_is_asked_without_it(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    api.knows_expand = False

    results = await daybook.backfill(api)

    assert {name: each.recorded for name, each in results.items()} == LISTS
    asked = [query for path, query in api.asked if path == "/v1/invoices"]
    assert ["expand[]" in query for query in asked] == [True, False]


# What the key may not read, and what fails for a while


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.usefixtures("world")
async def test_a_list_that_is_refused_is_left_out_and_named(
    daybook: SyncDaybook, api: StripeApi, status: int
) -> None:
    api.refused = {"refunds": status, "prices": status}

    results = await daybook.backfill(api)

    refused = {name: each.refused for name, each in results.items() if each.refused}
    assert refused == {"refunds": status, "prices": status}
    assert results["refunds"].figures == "refunded money and net revenue"
    assert {name: each.recorded for name, each in results.items()} == LISTS | {"refunds": 0, "prices": 0}


async def test_a_key_that_may_read_nothing_is_an_error_each_time(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    api.faults = [lambda _: refusal(403)] * 20

    for _ in range(2):
        with pytest.raises(Unavailable, match="every list"):
            await daybook.backfill(api)


async def test_a_refusal_in_the_middle_of_a_list_ends_the_run(daybook: SyncDaybook, api: StripeApi) -> None:
    world = StripeWorld(api.shop)
    for _ in range(101):
        world.customer(at(0))
    api.faults = [lambda _: None, lambda _: refusal(403)]

    with pytest.raises(Refused):
        await daybook.backfill(api)


@pytest.mark.usefixtures("world")
async def test_rate_limits_and_resets_are_waited_for(daybook: SyncDaybook, api: StripeApi) -> None:
    api.faults = [lambda _: refusal(429, Retry_After="3"), cut_off, lambda _: None, lambda _: refusal(500)]

    results = await daybook.backfill(api)

    assert {name: each.recorded for name, each in results.items()} == LISTS
    assert daybook.waits[0] == 3.0


@pytest.mark.usefixtures("world")
async def test_an_object_that_cannot_be_read_is_kept_in_quarantine(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    [charge] = [thing for thing in api.shop.objects.values() if thing["object"] == "charge"]
    charge["amount"] = "much"

    first, second = [await daybook.backfill(api), await daybook.backfill(api)]

    assert (first["charges"].recorded, first["charges"].quarantined) == (0, 1)
    assert (second["charges"].recorded, second["charges"].quarantined) == (0, 1)
    async with daybook.ledger.reading() as reader:
        assert await reader.count_quarantined() == {("stripe", "unreadable"): 1}


# Runs that are stopped


class Stopped(Exception):
    pass


def customers(api: StripeApi, count: int) -> None:
    world = StripeWorld(api.shop)
    for number in range(count):
        world.customer(at(0) + number * DAY)


async def stopped_at(daybook: SyncDaybook, api: StripeApi, request: int) -> None:
    """A run that ends without warning before this request is answered."""
    seen = 0

    def stop(_path: str) -> None:
        nonlocal seen
        seen += 1
        if seen >= request:
            api.faults = [lambda _: refusal(402)] * 99

    api.before = stop
    with pytest.raises(Refused):
        await daybook.backfill(api)
    api.before, api.faults, api.asked = (lambda _path: None), [], []


async def test_a_run_that_was_stopped_continues_where_it_was_and_a_finished_one_begins_anew(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    customers(api, 250)
    await stopped_at(daybook, api, 3)
    assert (await daybook.head())[0] == 200

    results = await daybook.backfill(api)

    assert (results["customers"].listed, results["customers"].recorded) == (250, 250)
    assert next(query for path, query in api.asked if path == "/v1/customers")["starting_after"]
    assert (await daybook.head())[0] == 250
    api.asked = []
    assert (await daybook.backfill(api))["customers"].listed == 250
    assert "starting_after" not in api.asked[0][1]


async def test_a_run_since_another_day_does_not_continue_one_that_was_stopped(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    customers(api, 250)
    await stopped_at(daybook, api, 3)

    assert (await daybook.backfill(api, since=at(-1)))["customers"].listed == 250


async def test_a_list_begins_anew_once_the_object_after_which_it_was_to_continue_is_gone(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    customers(api, 250)
    await stopped_at(daybook, api, 3)
    last = json.decode(await daybook.kept("backfill|stripe|") or b"")["next_query"]["starting_after"]
    del api.shop.objects[last]

    assert (await daybook.backfill(api))["customers"].recorded == 250
    assert (await daybook.head())[0] == 250
