"""Reconciliation with Stripe: what was missed is appended once, and what differs is named, nothing else."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from projections.bills import Contract
from service.core.errors import Unavailable
from service.maintenance.erasure import erase, make_erasure_event
from service.sync.reconcile.books import read_row_by_key
from tests.support.paths import ROOT
from tests.support.stores import EACH_STORE
from tests.support.stripe_api import (
    KEY,
    Shop,
    StripeApi,
    cut_off,
    event,
    invoice,
    pretty,
    refusal,
    subscription,
)
from tests.support.sync_daybook import NOW, SECONDS, SyncDaybook, differences
from tests.support.waiting import PATIENCE_SECONDS

HOUR = 3_600


def busy_month(shop: Shop) -> None:
    """230 events of subscriptions and invoices; several in one second, over three pages."""
    for number in range(110):
        shop.happens(
            "customer.subscription.created", subscription(number), SECONDS - 400 * HOUR + number // 3
        )
    for number in range(80):
        shop.happens("invoice.finalized", invoice(number), SECONDS - 300 * HOUR + number // 3)
    for number in range(40):
        changed = subscription(number, quantity=5)
        shop.happens("customer.subscription.updated", changed, SECONDS - 200 * HOUR + number)


# Events


@pytest.mark.parametrize("store_kind", EACH_STORE, scope="module")
async def test_missed_events_are_appended_exactly_once(daybook: SyncDaybook, api: StripeApi) -> None:
    # given a month of which every third event was missed, and an API on a bad day
    busy_month(api.shop)
    await daybook.deliver(*(told for i, told in enumerate(api.shop.events) if i % 3))
    missing = [told for i, told in enumerate(api.shop.events) if i % 3 == 0]
    api.faults = [
        lambda _: refusal(429, Retry_After="7"),
        lambda _: refusal(429, "rate_limit", Stripe_Should_Retry="false"),
        lambda _: None,
        cut_off,
        lambda _: refusal(500),
        lambda _: refusal(503, Stripe_Should_Retry="true"),
    ]

    # when it is reconciled, twice
    first = await daybook.reconcile(api)
    head = await daybook.head()
    second = await daybook.reconcile(api)

    # then the ledger has each event once, as Stripe listed it, and the books agree
    assert first.missed == dict(Counter(told["type"] for told in missing))
    assert (first.differing, first.compared) == (0, {"subscription": 110, "invoice": 80})
    rows = await daybook.rows()
    assert Counter(row["event_id"] for row in rows) == Counter(told["id"] for told in api.shop.events)
    assert {row["event_id"] for row in rows if row["trust"] == "fetched"} == {told["id"] for told in missing}
    assert (second.missed, await daybook.head()) == ({}, head)
    assert daybook.waits == [7.0, 1.0, 0.5, 1.0, 2.0]
    assert api.versions == {"2025-08-27.basil"}


async def test_the_bytes_that_are_kept_are_those_that_stripe_listed(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    told = api.shop.happens("customer.subscription.created", subscription(1), SECONDS - HOUR)

    await daybook.reconcile(api)

    [row] = await daybook.rows()
    async with daybook.ledger.reading() as reader:
        raw = await reader.delivery(row["position"])
    assert json.loads(raw["body"]) == told
    assert raw["body"] in pretty({"data": [told]}).body
    assert json.loads(raw["proof"])["method"] == "fetch"


async def test_an_event_in_another_rendering_is_no_conflict(daybook: SyncDaybook, api: StripeApi) -> None:
    told = api.shop.happens("customer.subscription.created", subscription(1), SECONDS - HOUR)
    await daybook.deliver(told | {"api_version": "2020-08-27", "request": None})

    report = await daybook.reconcile(api)

    assert report.missed == {}
    async with daybook.ledger.reading() as reader:
        assert await reader.count_quarantined() == {}


async def test_types_that_the_books_do_not_use_are_not_missed(daybook: SyncDaybook, api: StripeApi) -> None:
    api.shop.events.append(event(1, "payment_method.attached", {"id": "pm_1"}, SECONDS - HOUR))
    api.shop.events.append(event(2, "invoice.upcoming", {"object": "invoice"}, SECONDS - HOUR))

    report = await daybook.reconcile(api)

    assert (report.listed, report.missed, await daybook.rows()) == (2, {}, [])


async def test_what_cannot_be_read_waits_in_quarantine_once(daybook: SyncDaybook, api: StripeApi) -> None:
    told = event(1, "customer.subscription.created", {"id": "sub_1"}, SECONDS - HOUR)
    api.shop.events.append(told)

    assert (await daybook.reconcile(api)).missed == {"customer.subscription.created": 1}
    told["pending_webhooks"] = 1
    assert (await daybook.reconcile(api)).missed == {}

    async with daybook.ledger.reading() as reader:
        assert await reader.count_quarantined() == {("stripe", "unreadable"): 1}


async def test_what_cannot_be_read_of_somebody_erased_does_not_come_back(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    told = event(1, "customer.subscription.created", {"id": "sub_1", "customer": "cus_1"}, SECONDS - HOUR)
    expanded = {"id": "sub_1", "customer": {"id": "cus_1", "name": "Ada Example"}}
    api.shop.events += [told, event(2, "customer.subscription.updated", expanded, SECONDS - HOUR)]
    await daybook.deliver(event(3, "customer.created", {"object": "customer", "id": "cus_1"}, SECONDS), told)
    await erase(
        daybook.settings,
        daybook.ledger,
        await make_erasure_event(daybook.ledger, "cus_1", None, None, NOW),
        daybook.clock,
    )

    assert (await daybook.reconcile(api)).missed == {}

    async with daybook.ledger.reading() as reader:
        assert [row["body"] for row in await reader.quarantined_deliveries(0, 10)] == [None]


async def test_only_the_period_asked_for_is_listed(daybook: SyncDaybook, api: StripeApi) -> None:
    api.shop.happens("customer.subscription.created", subscription(1), SECONDS - 100 * HOUR)
    api.shop.happens("customer.subscription.created", subscription(2), SECONDS - HOUR)

    report = await daybook.reconcile(api, since=timedelta(hours=2))

    assert await daybook.event_ids() == ["evt_2", observed(api.shop, "sub_1")]
    assert differences(report, mended=True) == {("subscription", "sub_1", "status", "active", None)}


async def test_connected_accounts_are_those_that_the_books_know(daybook: SyncDaybook, api: StripeApi) -> None:
    # given an account whose list does not say whose it is, and one that gives no access any more
    api.shops["acct_1"] = Shop()
    known = api.shops["acct_1"].happens("customer.subscription.created", subscription(1), SECONDS - 2 * HOUR)
    api.shops["acct_1"].happens("customer.subscription.created", subscription(2), SECONDS - HOUR)
    gone = event(9, "customer.subscription.created", subscription(9), SECONDS - HOUR, "acct_2")
    await daybook.deliver(known | {"account": "acct_1"}, gone)

    report = await daybook.reconcile(api)

    assert [(row["account"], row["event_id"]) for row in await daybook.rows()] == [
        ("acct_1", "evt_1"),
        ("acct_2", "evt_9"),
        ("acct_1", "evt_2"),
    ]
    assert differences(report) == {("account", "acct_2", "status", None, "known")}


# Differences


def planted(shop: Shop) -> set[tuple[str, str, str, Any, Any]]:
    """Changes that no event tells, one of each kind; what a report must say of them."""
    its = shop.objects
    its["sub_1"]["status"] = "past_due"
    its["sub_2"]["customer"] = "cus_other"
    its["sub_3"]["items"]["data"][0]["quantity"] = 4
    its["sub_4"]["items"]["data"][0]["current_period_end"] += 86_400
    its["sub_5"]["cancel_at"] = SECONDS + 1000 * HOUR
    its["sub_6"]["currency"] = its["sub_6"]["items"]["data"][0]["price"]["currency"] = "eur"
    its["sub_7"] |= {"status": "canceled", "ended_at": SECONDS - 30 * HOUR}
    del its["sub_8"]
    its["sub_9"]["items"] = None
    its["sub_new"] = subscription(0, id="sub_new")
    its["in_1"]["amount_due"] = 20_000
    its["in_2"]["amount_remaining"] = 700
    its["in_3"]["customer"] = "cus_other"
    its["in_4"]["status_transitions"]["finalized_at"] += 86_400
    its["in_5"] |= {"status": "paid", "amount_paid": 14_700, "amount_remaining": 0}
    del its["in_6"]
    its["in_new"] = invoice(0, id="in_new")
    end, day = "2025-10-02", "2025-10-03"
    return {
        ("subscription", "sub_1", "status", "past_due", "active"),
        ("subscription", "sub_2", "customer", "cus_other", "cus_2"),
        ("subscription", "sub_3", "mrr_cents", 19_600, 24_500),
        ("subscription", "sub_3", "next_bill_cents", 19_600, 24_500),
        ("subscription", "sub_4", "next_bill_date", day, end),
        ("subscription", "sub_5", "cancel_date", "2025-11-15", None),
        ("subscription", "sub_6", "currency", "eur", "usd"),
        ("subscription", "sub_7", "status", "canceled", "active"),
        ("subscription", "sub_7", "mrr_cents", 0, 24_500),
        ("subscription", "sub_7", "next_bill_cents", None, 24_500),
        ("subscription", "sub_7", "next_bill_date", None, end),
        ("subscription", "sub_7", "cancel_date", "2025-10-03", None),
        ("subscription", "sub_8", "status", None, "active"),
        ("subscription", "sub_9", "status", "unreadable", "active"),
        (
            "subscription",
            "sub_9",
            "shape",
            "Object missing required field `items` - at `$.data.object`",
            None,
        ),
        ("subscription", "sub_new", "status", "active", None),
        ("invoice", "in_1", "amount_due_cents", 20_000, 14_700),
        ("invoice", "in_2", "amount_remaining_cents", 700, 14_700),
        ("invoice", "in_3", "customer", "cus_other", "cus_3"),
        ("invoice", "in_4", "date", day, end),
        ("invoice", "in_5", "status", "paid", "open"),
        ("invoice", "in_5", "amount_remaining_cents", 0, 14_700),
        ("invoice", "in_6", "status", None, "open"),
        ("invoice", "in_new", "status", "open", None),
    }


NOT_MENDED = {"sub_8", "sub_9", "in_6"}  # Stripe has two of them no more, and one can't be read


@pytest.mark.parametrize("store_kind", EACH_STORE, scope="module")
async def test_overdue_contracts_are_compared_first_so_that_a_run_that_is_cut_off_has_mended_them(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    # given three contracts that should have billed on the second, of which one was heard of since
    for number, created in ((1, SECONDS - 200 * HOUR), (2, SECONDS - 200 * HOUR), (3, SECONDS - HOUR)):
        api.shop.happens("customer.subscription.created", subscription(number), created)
    await daybook.deliver(*api.shop.events)
    api.shop.objects["sub_2"] = subscription(2, quantity=5)  # of which no event tells

    def away(path: str) -> None:
        if path == "/v1/subscriptions":
            api.faults = [lambda _: refusal(500)] * 8

    api.before = away

    # when the list can't be had
    with pytest.raises(Unavailable):
        await daybook.reconcile(api)

    # then those of which nothing was heard have been fetched, and the one that differs is right
    asked = [path for path, _ in api.asked if path.startswith("/v1/subscriptions")]
    assert asked[:2] == ["/v1/subscriptions/sub_1", "/v1/subscriptions/sub_2"]
    assert asked[-8:] == ["/v1/subscriptions"] * 8
    assert (await daybook.event_ids())[3:] == [observed(api.shop, "sub_2")]


@pytest.mark.parametrize("store_kind", EACH_STORE, scope="module")
async def test_planted_differences_are_recorded_as_observed_and_named(
    daybook: SyncDaybook, api: StripeApi, logged: list[Any]
) -> None:
    busy_month(api.shop)
    await daybook.deliver(*api.shop.events)
    expected = planted(api.shop)
    staying = {each for each in expected if each[1] in NOT_MENDED}

    report = await daybook.reconcile(api)
    head = await daybook.head()
    second = await daybook.reconcile(api)

    # what can be mended is, once
    assert differences(report, mended=True) == expected - staying
    assert differences(report) == differences(second) == staying
    assert (report.differing, report.mended) == (3, {"subscription": 8, "invoice": 6})
    assert (second.mended, await daybook.head()) == ({}, head)
    assert json.loads(await daybook.kept("reconciled|stripe") or b"")["differing"] == 3
    # and each event stands with the object's bytes
    rows = [row for row in await daybook.rows() if "@" in row["event_id"]]
    changed = {key for _, key, *_ in expected} - NOT_MENDED
    assert {row["event_id"] for row in rows} == {observed(api.shop, key) for key in changed}
    assert {row["trust"] for row in rows} == {"fetched"}
    # the log names ids and fields alone
    lines = [entry for entry in logged if entry["event"] in {"books_differ", "books_mended"}]
    assert {(entry["kind"], entry["id"], entry["field"]) for entry in lines} == {d[:3] for d in expected}
    assert all(
        entry.keys() <= {"event", "log_level", "processor", "account", "kind", "id", "field"}
        for entry in lines
    )


def observed(shop: Shop, key: str, times: int = 1) -> str:
    """The id under which an object of the API is recorded as it is now."""
    content = json.dumps(
        shop.objects[key], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    return f"{key}@{sha256(content).hexdigest()[:32]}:{times}"


async def test_what_comes_back_is_recorded_again(daybook: SyncDaybook, api: StripeApi) -> None:
    await daybook.deliver(
        api.shop.happens("customer.subscription.created", subscription(1), SECONDS - 50 * HOUR)
    )
    ids = []
    for hours, quantity in enumerate((5, 7, 5)):
        daybook.now = NOW + timedelta(hours=hours)
        api.shop.objects["sub_1"] = subscription(1, quantity)
        await daybook.reconcile(api)
        ids.append(observed(api.shop, "sub_1", 2 if hours == 2 else 1))

    assert await daybook.event_ids() == ["evt_1", *ids]
    assert await monthly_cents(daybook) == 5 * 4_900


async def test_a_later_webhook_replaces_what_was_observed_and_an_earlier_one_does_not(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    api.shop.objects["sub_1"] = subscription(1, 5)
    await daybook.reconcile(api)
    await daybook.deliver(event(1, "customer.subscription.created", subscription(1, 1), SECONDS - HOUR))
    assert await monthly_cents(daybook) == 5 * 4_900

    await daybook.deliver(event(2, "customer.subscription.updated", subscription(1, 2), SECONDS + HOUR))
    assert await monthly_cents(daybook) == 2 * 4_900


async def monthly_cents(daybook: SyncDaybook) -> int:
    """What the first subscription brings in a month, as the books have it."""
    key = "subscription|stripe||sub_1"
    return (await read_row_by_key(daybook.store, Contract, "bills", [key]))[key].amount_cents


async def test_what_is_observed_belongs_to_the_account_that_was_asked(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    api.shops["acct_1"] = Shop()
    first = api.shops["acct_1"].happens("customer.subscription.created", subscription(1), SECONDS - HOUR)
    await daybook.deliver(first | {"account": "acct_1"})
    api.shops["acct_1"].objects["sub_1"] = subscription(1, 9)

    assert (await daybook.reconcile(api)).mended == {"subscription": 1}

    assert [row["account"] for row in await daybook.rows()] == ["acct_1", "acct_1"]
    assert await daybook.retranslation_changes() == []


async def test_what_is_observed_of_the_other_mode_does_not_count(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    api.shop.objects["sub_1"] = subscription(1, livemode=False)

    report = await daybook.reconcile(api)

    [row] = await daybook.rows()
    assert (row["type"], report.mended, report.differing) == ("unused", {}, 1)
    assert await daybook.retranslation_changes() == []


async def test_what_an_object_does_not_tell_itself_is_no_difference(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    """Its customer's coupon, and the price that its schedule has for the next bill."""
    created, renewed = SECONDS - 50 * HOUR, SECONDS + 99 * HOUR
    contract = subscription(2)
    contract["items"]["data"][0]["current_period_end"] = renewed
    coupon = {"id": "co_1", "object": "coupon", "percent_off": 10, "duration": "forever"}
    discount = {"id": "di_1", "object": "discount", "coupon": coupon, "customer": "cus_1", "start": created}
    customer = {"id": "cus_1", "object": "customer", "name": None, "email": None, "discount": discount}
    price = contract["items"]["data"][0]["price"] | {"unit_amount": 9_900, "unit_amount_decimal": "9900"}
    schedule = {
        "id": "sub_sched_1",
        "object": "subscription_schedule",
        "subscription": "sub_2",
        "customer": "cus_2",
        "status": "active",
        "end_behavior": "release",
        "phases": [{"start_date": renewed, "end_date": None, "items": [{"price": price, "quantity": 1}]}],
    }
    api.shop.happens("customer.subscription.created", subscription(1), created)
    api.shop.happens("customer.subscription.created", contract, created)
    told = [
        event(901, "customer.updated", customer, created),
        event(902, "subscription_schedule.created", schedule, created),
    ]
    await daybook.deliver(*api.shop.events, *told)

    report = await daybook.reconcile(api)

    assert differences(report) == set()
    assert report.compared == {"subscription": 2, "invoice": 0}
    keys = [f"subscription|stripe||sub_{number}" for number in (1, 2)]
    rows = await read_row_by_key(daybook.store, Contract, "bills", keys)
    assert [rows[key].amount_cents for key in keys] == [13_230, 9_900]


async def test_a_failed_payment_and_every_status_that_lives_agree(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    created = SECONDS - 50 * HOUR
    for number, status in enumerate(("trialing", "incomplete", "unpaid", "paused", "past_due", "active")):
        its = {"status": status, "trial_end": SECONDS + 99 * HOUR if status == "trialing" else None}
        api.shop.happens("customer.subscription.updated", subscription(number, **its), created)
    paused = subscription(10, pause_collection={"behavior": "void"}, cancel_at_period_end=True)
    api.shop.happens("customer.subscription.updated", paused, created)
    api.shop.happens("invoice.payment_failed", invoice(1), created)

    report = await daybook.reconcile(api)

    assert differences(report) == set()
    assert report.compared == {"subscription": 7, "invoice": 1}


@pytest.mark.parametrize("delivered", [True, False])
async def test_what_changes_while_it_is_compared_is_no_difference(
    daybook: SyncDaybook, api: StripeApi, *, delivered: bool
) -> None:
    # given changes at the moment at which each list, and each object, is asked for
    busy_month(api.shop)
    await daybook.deliver(*api.shop.events)
    changes = iter(
        [
            ("/v1/subscriptions", "customer.subscription.updated", subscription(1, quantity=9)),
            ("/v1/invoices", "invoice.updated", invoice(2, amount_remaining=100)),
            (
                "/v1/invoices",
                "invoice.paid",
                invoice(3, status="paid", amount_paid=14_700, amount_remaining=0),
            ),
            ("/v1/invoices", "customer.subscription.deleted", subscription(4, status="canceled")),
            ("/v1/subscriptions/sub_1", "customer.subscription.updated", subscription(1, quantity=8)),
        ]
    )
    waiting = [next(changes)]

    def change(path: str) -> None:
        while waiting and waiting[0][0] == path:
            _, kind, told = waiting.pop()
            api.shop.happens(kind, told, SECONDS)
            waiting.extend([following] if (following := next(changes, None)) else [])

    api.before = change

    async def pause(seconds: float) -> None:
        if delivered:
            await daybook.deliver(*api.shop.events[230:])
        await daybook.catch_up(seconds)

    # when it is reconciled, whether or not webhooks come
    report = await daybook.reconcile(api, pause=pause)

    # then all of them happened, and none is a difference
    assert not waiting
    assert differences(report) == set()
    assert len(await daybook.rows()) == 235


async def test_an_event_whose_webhook_is_on_its_way_is_left_to_it(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    # given three changes whose webhooks are pending: since a minute, since six, and one that has come
    for number in range(3):
        told = api.shop.happens("customer.subscription.created", subscription(number), SECONDS - 50 * HOUR)
        await daybook.deliver(told)
    for number, minutes in ((0, 1), (1, 6), (2, 1)):
        changed = subscription(number, quantity=9)
        told = api.shop.happens("customer.subscription.updated", changed, SECONDS - 60 * minutes)
        told["pending_webhooks"] = 1
    await daybook.deliver(told)

    report = await daybook.reconcile(api)

    assert (report.missed, differences(report)) == ({"customer.subscription.updated": 1}, set())
    assert [row["event_id"] for row in (await daybook.rows())[3:]] == ["evt_6", "evt_5"]


async def test_a_dry_run_writes_nothing(daybook: SyncDaybook, api: StripeApi) -> None:
    busy_month(api.shop)
    api.shop.events.append(event(900, "customer.subscription.created", {"id": "sub_x"}, SECONDS - HOUR))
    await daybook.deliver(*api.shop.events[:200])
    head = await daybook.head()

    report = await daybook.reconcile(api, dry_run=True)

    assert report.missed == {"customer.subscription.updated": 30, "customer.subscription.created": 1}
    assert {key for _, key, *_ in differences(report)} == {f"sub_{number}" for number in range(10, 40)}
    assert not report.is_clean
    assert await daybook.head() == head
    assert (await daybook.kept("reconciled|stripe"), await daybook.kept("reconcile|stripe|")) == (None, None)
    async with daybook.ledger.reading() as reader:
        assert await reader.count_quarantined() == {}


# Interruptions


async def test_a_killed_run_is_taken_up_where_it_stopped(
    daybook: SyncDaybook, api: StripeApi, killable: Callable[..., subprocess.Popen[bytes]]
) -> None:
    # given a run that is killed while it waits for the third page
    busy_month(api.shop)
    reached, go_on = threading.Event(), threading.Event()

    def hang(_path: str) -> None:
        if len(api.asked) == 3:
            reached.set()
            go_on.wait(PATIENCE_SECONDS)

    api.before = hang
    seconds = int(time.time())
    days = (seconds - SECONDS) // 86_400 + 40
    running = killable("reconcile", "stripe", "--since", f"{days}d")
    assert await asyncio.to_thread(reached.wait, PATIENCE_SECONDS)
    running.kill()
    running.wait()
    go_on.set()
    assert len(await daybook.rows()) == 200

    # when another one begins, and something has happened since
    api.before = lambda _path: None
    api.asked.clear()
    daybook.now = datetime.fromtimestamp(seconds + 60, UTC)
    api.shop.happens("customer.subscription.created", subscription(500), seconds + 30)
    report = await daybook.reconcile(api)

    # then it lists only what the first did not (and the last second again), and nothing is there twice
    assert (report.listed, sum(report.missed.values()), differences(report)) == (34, 31, set())
    assert Counter(row["event_id"] for row in await daybook.rows()) == Counter(
        told["id"] for told in api.shop.events
    )


@pytest.fixture
def killable(daybook: SyncDaybook, api: StripeApi) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """The command as a process on the same stores."""
    started = []
    given = {
        "DAYBOOK_DATA_DIR": str(daybook.settings.data_dir),
        "DAYBOOK_STRIPE_API_KEY": KEY,
        "DAYBOOK_STRIPE_API_URL": api.url,
    }

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "service.cli", *arguments]
        started.append(subprocess.Popen(command, env={**os.environ, **given}, cwd=ROOT))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_an_api_that_stays_away_ends_the_run_and_what_was_appended_stays(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    busy_month(api.shop)
    api.faults = [lambda _: None, *[lambda _: refusal(429, Retry_After="600")] * 8]

    with pytest.raises(Unavailable, match="429, 8 times"):
        await daybook.reconcile(api)

    assert len(await daybook.rows()) == 100
    assert daybook.waits == [60.0] * 7
    assert sum((await daybook.reconcile(api)).missed.values()) == 130


BROKEN = {
    "goes on without more": {"object": "list", "data": [], "has_more": True},
    "does not say whether it goes on": {"object": "list", "data": []},
    "no list": {"object": "event"},
    "no object": [],
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_list_that_does_not_end_as_it_should_is_not_taken_for_whole(
    daybook: SyncDaybook, api: StripeApi, answer: Any
) -> None:
    api.faults = [lambda _: pretty(answer)]

    with pytest.raises(Unavailable):
        await daybook.reconcile(api)

    assert await daybook.kept("reconciled|stripe") is None


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_is_not_tried_again_and_repeats_no_key(
    daybook: SyncDaybook, api: StripeApi, status: int
) -> None:
    api.faults = [lambda _: refusal(status)]

    with pytest.raises(Unavailable) as refused:
        await daybook.reconcile(api)

    assert (len(api.asked), daybook.waits) == (1, [])
    assert str(refused.value) == f"Stripe answered {status} to /v1/events"


async def test_books_that_stand_still_are_told_from_books_that_differ(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    busy_month(api.shop)

    async def nobody_works(_seconds: float) -> None:
        pass

    with pytest.raises(Unavailable, match="the books hold position 0, not yet 230"):
        await daybook.reconcile(api, pause=nobody_works)
