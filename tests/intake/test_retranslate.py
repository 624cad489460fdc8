"""Newer translators over what older ones read: what would change is shown first, and then appended."""

import json
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import time_machine
from msgspec.structs import replace

from handlers import mxmerchant
from handlers.mxmerchant import contracts, notifications, payments
from handlers.stripe import payloads, translations
from handlers.stripe.translations import ObjectTranslation
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import CustomerErased, Data, Event, Payment, Subscription
from service.intake.retranslate import Retranslator
from service.ledger.draft import Incoming
from service.sync.client import ApiClient
from service.sync.confirm import Confirmer
from service.sync.poll import Poller
from service.verify import verify_chain
from tests.support.cli import Run, document
from tests.support.mxmerchant_api import MERCHANT, MxApi
from tests.support.mxmerchant_api import payment as payment_of_api
from tests.support.running import NOW, Daybook, running
from tests.support.senders import (
    MX,
    MX_TOKEN,
    STANDARD,
    STRIPE,
    payment,
    stripe_charge,
    stripe_event,
    stripe_invoice,
    stripe_subscription,
)
from tests.support.stores import EACH_STORE, NewDataDir
from tests.support.stripe_api import serve
from tests.support.temporary_books import incoming

STORES = EACH_STORE

FAMILY = "customer.subscription."
Say = Callable[[Any, str], Data]


@pytest.fixture(autouse=True)
def _frozen() -> Any:
    with time_machine.travel(NOW, tick=False):
        yield


def reads_as(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have subscriptions read by another translator."""
    monkeypatch.setitem(
        translations.TRANSLATIONS_BY_PREFIX, FAMILY, ObjectTranslation(payloads.Subscription, say)
    )


def twofold(told: payloads.Subscription, kind: str) -> Data:
    """A translator that takes every quantity twice."""
    data = translations.subscription(told, kind)
    assert isinstance(data, Subscription)
    return replace(data, items=tuple(replace(item, quantity=2 * item.quantity) for item in data.items))


def another(told: payloads.Subscription, kind: str) -> Data:
    """A translator that takes one contract for another."""
    data = translations.subscription(told, kind)
    assert isinstance(data, Subscription)
    return replace(data, subscription_id="sub_wrong", customer_id="cus_wrong")


def unreadable(_told: payloads.Subscription, _kind: str) -> Data:
    raise Unreadable("Expected `int` - at `$.data.object.quantity`")


def subscribed(key: str, cents: int = 24900, event_id: str | None = None, **more: Any) -> dict[str, Any]:
    told = stripe_subscription(key, cents, **more)
    return stripe_event("customer.subscription.created", told, event_id=event_id or f"evt_{key}")


async def everything(daybook: Daybook) -> None:
    """Of each processor something that nobody translates otherwise."""
    lines = [{"amount": 500}]
    for event_id, kind, told in (
        ("evt_in", "invoice.paid", stripe_invoice("1", 500, NOW, lines, customer="cus_1")),
        ("evt_ch", "charge.succeeded", stripe_charge("1", 700, NOW, customer="cus_1")),
        ("evt_pr", "price.updated", {"id": "price_1", "object": "price"}),
    ):
        await daybook.post(STRIPE, stripe_event(kind, told, event_id=event_id))
    for sender in (MX, MX_TOKEN, STANDARD):
        await daybook.post(sender, sender.event("7", 900), message_id=f"msg_{sender.name}")
        await daybook.post(sender, sender.unused, message_id=f"msg_unused_{sender.name}")
    record = {"id": 3, "merchantId": 7, "customerName": "Ada Example", "status": "Active"}
    records = [{**record, "every": "1 Month", "amount": "10.00"}]
    await daybook.post(MX, {"records": records}, message_id="msg_contracts")
    listed = {"id": 55, "merchantId": "1000000001", "amount": "5.00", "status": "Approved"}
    event = payments.listed_payment_event(listed, "1000000001", NOW)
    assert event is not None
    body = json.dumps(listed).encode()
    proof = Proof(processor="mxmerchant", method="fetch", received_at=NOW, trust="fetched")
    fetched = Incoming(
        events=[event], content_digest=sha256(body).digest(), headers=b"{}", body=body, proof=proof
    )
    await daybook.state.ledger.append([fetched], NOW)


async def documents(daybook: Daybook) -> str:
    """What the books say, without where the ledger is."""
    await daybook.catch_up()
    told = []
    for path in ("revenue/month-detail", "mrr", "revenue/monthly-totals", "mrr/movements", "contracts"):
        answer = await daybook.get(f"/api/v1/{path}", today="2025-11-13")
        told.append({name: answer[name] for name in answer if name != "meta"})
    return json.dumps(told, sort_keys=True)


async def retranslate(command: Run, *options: Any, exit_code: int = 0) -> Any:
    return document(await command("retranslate", "--json", *options), exit_code)


async def test_the_preview_lists_what_differs_and_writes_nothing(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    await everything(daybook)
    with monkeypatch.context() as older:
        reads_as(twofold, older)
        await daybook.post(STRIPE, subscribed("1"))
    await daybook.post(STRIPE, subscribed("2"))
    await daybook.catch_up()
    head = await daybook.head()

    # when
    report = await retranslate(command, exit_code=1)

    # then
    assert report["changes"] == [
        {
            "kind": "changed",
            "cause": "stripe:evt_1",
            "type": "subscription.recorded",
            "position": head - 1,
            "differences": [{"field": "data.items[0].quantity", "before": 2, "after": 1}],
        }
    ]
    counts = {
        name: report[name] for name in ("changed", "added", "dropped", "refused", "released", "applied")
    }
    assert counts == {**dict.fromkeys(counts, 0), "changed": 1, "applied": False}
    assert report["left_out"] == {}
    figures = {each["figure"]: (each["before_cents"], each["after_cents"]) for each in report["figures"]}
    mrr, due = (await daybook.get("/api/v1/mrr"))["mrr_cents"], await upcoming(daybook)
    assert figures == {"mrr_cents": (mrr, mrr - 24900), "upcoming_cents": (due, due - 24900)}
    assert await daybook.head() == head
    for_people = await command("retranslate")
    assert (for_people.exit_code, "--apply" in for_people.output) == (1, True)


@pytest.mark.parametrize(
    ("bills_at", "figure"),
    [(1763812800, "upcoming_cents"), (1762948800, "overdue_cents")],  # 22 and 12 November
)
async def test_the_preview_tells_what_is_still_to_come_from_what_is_late(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch, bills_at: int, figure: str
) -> None:
    with monkeypatch.context() as older:
        reads_as(twofold, older)
        await daybook.post(STRIPE, subscribed("1", bills_at=bills_at))
    await daybook.catch_up()

    report = await retranslate(command, exit_code=1)

    changed = {each["figure"]: (each["before_cents"], each["after_cents"]) for each in report["figures"]}
    assert changed == {"mrr_cents": (49800, 24900), figure: (49800, 24900)}
    summary = (await daybook.get("/api/v1/revenue/current-month"))["summary"]
    assert summary[figure] == 49800


async def upcoming(daybook: Daybook) -> int:
    month = await daybook.get("/api/v1/revenue/current-month")
    cents: int = month["summary"]["upcoming_cents"]
    return cents


@pytest.mark.parametrize("older", [twofold, another, None], ids=["amount", "history", "unused"])
async def test_applied_the_books_are_those_of_a_ledger_translated_so_from_the_start(
    daybook: Daybook,
    command: Run,
    monkeypatch: pytest.MonkeyPatch,
    new_data_dir: NewDataDir,
    tmp_path: Path,
    older: Say | None,
) -> None:
    # given what the books say where today's translator has read everything
    moment = {"created": 1763028000}
    later = {**subscribed("1", 49900, "evt_10"), **moment, "type": "customer.subscription.updated"}
    posts = [subscribed("1", event_id="evt_1"), later, subscribed("2")]
    async with running(new_data_dir(tmp_path / "straight")) as straight:
        for post in posts:
            await straight.post(STRIPE, post)
        right = await documents(straight)

    # when
    with monkeypatch.context() as before:
        if older:
            reads_as(older, before)
        else:
            before.delitem(translations.TRANSLATIONS_BY_PREFIX, FAMILY)
        for post in posts:
            await daybook.post(STRIPE, post)
        wrong = await documents(daybook)
    applied = await retranslate(command, "--apply")
    again = await retranslate(command)

    # then
    assert (applied["changed"], applied["applied"], again["changes"]) == (3, True, [])
    assert await documents(daybook) == right != wrong
    assert await daybook.head() == 9
    assert await verify_chain(daybook.state.ledger) == 9
    redelivered = await daybook.post(STRIPE, posts[0])
    assert redelivered.json() == {"received": True, "position": 1, "duplicate": True}


async def test_a_correction_can_be_corrected(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    await daybook.post(STRIPE, subscribed("1"))
    first = await documents(daybook)
    with monkeypatch.context() as faulty:
        reads_as(twofold, faulty)
        await retranslate(command, "--apply")
        assert await documents(daybook) != first

    # when
    report = await retranslate(command, "--apply")

    # then
    (change,) = report["changes"]
    assert (change["cause"], change["position"]) == ("stripe:evt_1", 3)
    assert await documents(daybook) == first
    told = (await daybook.get("/api/v1/ledger/events"))["events"]
    assert [event["event_id"] for event in told] == [
        "evt_1",
        "evt_1·superseded",
        "evt_1·2",
        "evt_1·2·superseded",
        "evt_1·3",
    ]
    assert (await retranslate(command))["changes"] == []


async def test_a_cause_shows_the_revision_that_counts_and_the_signed_bytes(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        reads_as(twofold, older)
        await daybook.post(STRIPE, subscribed("1"))
    await retranslate(command, "--apply")
    await daybook.catch_up()

    new = await daybook.get("/api/v1/ledger/causes/stripe:evt_1")
    old = await daybook.get("/api/v1/ledger/events/1")
    marker = await daybook.get(f"/api/v1/ledger/causes/{quote(old['superseded_by'])}")

    assert old["superseded_by"] == "stripe:evt_1·superseded"
    assert (marker["type"], marker["data"]["event_id"]) == ("event.superseded", "evt_1")
    assert (new["superseded_by"], new["event_id"]) == (None, "evt_1·2")
    for name in ("raw_body_base64", "headers", "verification"):
        assert old[name] == marker[name] == new[name]
    (contract,) = (await daybook.get("/api/v1/contracts"))["contracts"]
    assert contract["causes"] == ["stripe:evt_1"]
    assert await daybook.get(f"/api/v1/ledger/causes/{quote('stripe:evt_1·2')}") == new


async def test_an_event_that_becomes_two_or_none_or_another(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given names that were told by events of their own, and then are not, and then are again
    await daybook.post(MX, payment("7", 900))
    whole = await documents(daybook)
    with monkeypatch.context() as other:
        other.setattr(notifications, "with_name", lambda event, *_name: [event])
        fewer = await retranslate(command, "--apply")
        assert (await retranslate(command))["changes"] == []
        await daybook.catch_up()
        people = await daybook.get("/api/v1/revenue/monthly-totals", detail="cash")
        assert [row["customer_name"] for row in people["cash"]] == [None]

    # when
    more = await retranslate(command, "--apply")

    # then
    assert [(each["kind"], each["cause"]) for each in fewer["changes"]] == [
        ("dropped", "mxmerchant:1000000001:PaymentSuccess:7:customer")
    ]
    assert [(each["kind"], each["cause"]) for each in more["changes"]] == [
        ("added", "mxmerchant:1000000001:PaymentSuccess:7:customer")
    ]
    assert await documents(daybook) == whole
    assert (await retranslate(command))["changes"] == []


async def test_quarantine_that_can_be_read_now_is_part_of_a_retranslation(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        reads_as(unreadable, older)
        await daybook.post(STRIPE, subscribed("1"))

    preview = await retranslate(command, exit_code=1)
    applied = await retranslate(command, "--apply")

    assert (preview["released"], preview["added"]) == (applied["released"], applied["added"]) == (1, 1)
    assert (await daybook.quarantine(), await daybook.head()) == ({}, 1)
    assert preview["figures"][0]["after_cents"] == 24900
    assert (await retranslate(command))["released"] == 0


async def test_an_event_is_judged_by_the_delivery_that_first_told_it(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a list that was read in part, and whole when it came again a minute later
    record = {"merchantId": "7", "customerName": "Ada Example", "status": "Active", "every": "1 Month"}
    records = [{**record, "id": n, "amount": "10.00"} for n in (1, 2)]
    cadence = contracts._cadence

    def limited(told: Any) -> Any:
        if told.id == 2:
            raise Unreadable("`$.every` is no interval that is known")
        return cadence(told)

    with monkeypatch.context() as older:
        older.setattr(contracts, "_cadence", limited)
        await daybook.post(MX, {"records": records}, message_id="msg_1")
    daybook.clock.now = NOW + timedelta(minutes=1)
    await daybook.post(MX, {"records": records}, message_id="msg_1")
    head = await daybook.head()

    # when
    report = await retranslate(command, "--apply")

    # then the two times at which it was observed don't argue
    assert (report["changes"], report["released"], await daybook.head()) == ([], 1, head)
    assert (await retranslate(command))["released"] == 0


async def test_what_can_not_be_read_any_more_stays_as_it_is(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daybook.post(STRIPE, subscribed("1"))
    reads_as(unreadable, monkeypatch)

    report = await retranslate(command, "--apply")

    assert (report["refused"], report["changes"], await daybook.head()) == (1, [], 1)


async def test_a_retranslation_can_be_limited_to_one_processor_and_to_later_positions(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        reads_as(twofold, older)
        for n in range(1, 4):
            await daybook.post(STRIPE, subscribed(str(n)))

    assert (await retranslate(command, "--processor", "mxmerchant"))["deliveries"] == 0
    assert (await retranslate(command, "--after", 2, exit_code=1))["changed"] == 1
    listed = await retranslate(command, "--limit", 1, exit_code=1)
    assert (listed["changed"], len(listed["changes"])) == (3, 1)


async def test_the_poller_compares_with_what_counts(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a contract and an unsigned payment, both told otherwise since
    record = {"id": 3, "merchantId": MERCHANT, "customerName": "Ada Example", "status": "Active"}
    processor = mxmerchant.PROCESSOR
    assert processor.api
    assert processor.api.contracts
    assert processor.confirmations
    with serve(MxApi()) as api:
        api.contracts = [{**record, "every": "1 Month", "amount": "10.00"}]
        api.payments = [payment_of_api(7, "9.00")]
        values = dict.fromkeys(processor.api.settings, "example") | {
            "mxmerchant_merchant_id": MERCHANT,
            "mxmerchant_api_url": api.url,
        }
        client = ApiClient(processor.api, values)
        asked = (client, daybook.state.ledger, daybook.clock)
        poller = Poller(processor, processor.api.contracts, *asked)
        confirmer = Confirmer(processor, processor.confirmations, *asked)
        with monkeypatch.context() as older:
            older.setattr(contracts, "_cadence", lambda _contract: ("week", 1))
            older.setattr(notifications, "parse_minor", lambda *_told: 1)
            assert await poller.poll() == 1
            await daybook.post(MX_TOKEN, payment("7", 900))
        applied = await retranslate(command, "--apply")
        assert applied["changed"] == 2

        # then the poller has nothing new to tell, and confirms under the payment's own id
        assert await poller.poll() == 0
        async with daybook.state.ledger.reading() as reader:
            (told,) = await reader.unconfirmed_events("mxmerchant", processor.confirmations, NOW)
        assert told.event_id == f"{MERCHANT}:PaymentSuccess:7:unsigned"
        assert (await confirmer.confirm(), await confirmer.confirm()) == (1, 0)
        await client.close()
    assert (await retranslate(command))["changes"] == []
    monkeypatch.setitem(payments._STATUS_MEANINGS[Payment], "approved", "failed")
    (change,) = (await retranslate(command, exit_code=1))["changes"]
    assert change["cause"].endswith(":fetched")


async def test_two_retranslations_at_once_append_once(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    with monkeypatch.context() as older:
        reads_as(twofold, older)
        for n in range(3):
            await daybook.post(STRIPE, subscribed(str(n)))
    ledger, meanwhile = (
        daybook.state.ledger,
        Retranslator(daybook.state.ledger, daybook.clock, daybook.state.settings, apply=True),
    )
    append = ledger.append

    async def after_the_other(batch: Any, now: Any) -> Any:
        monkeypatch.setattr(ledger, "append", append)
        await meanwhile.run(0, lambda _done: None)
        return await ledger.append(batch, now)

    # when one has compared and not appended yet, another does both
    monkeypatch.setattr(ledger, "append", after_the_other)
    late = await Retranslator(ledger, daybook.clock, daybook.state.settings, apply=True).run(
        0, lambda _done: None
    )

    # then
    assert (late.changed, meanwhile.report.changed, await daybook.head()) == (3, 3, 9)
    assert await daybook.quarantine() == {}
    assert (await retranslate(command))["changes"] == []


async def test_what_told_of_somebody_erased_is_left_out_and_so_are_its_revisions(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    with monkeypatch.context() as older:
        reads_as(twofold, older)
        await daybook.post(STRIPE, subscribed("1"))
        await retranslate(command)
    await retranslate(command, "--apply")

    # when
    await daybook.state.ledger.append([incoming(erasure("cus_1"))], NOW)
    reads_as(twofold, monkeypatch)
    report = await retranslate(command)

    # then
    assert (report["left_out"], report["changes"]) == ({"erased": 1}, [])
    for cause in ("stripe:evt_1", "stripe:evt_1·2"):
        assert (await daybook.ask(f"/api/v1/ledger/causes/{quote(cause)}")).status_code == 410


async def test_a_revision_is_kept_under_the_keys_of_all_whom_its_delivery_names(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a list of two customers' contracts, of which one is told otherwise since
    record = {"merchantId": "7", "status": "Active", "every": "1 Month", "amount": "10.00"}
    records = [{**record, "id": n, "customerId": f"cus_{n}"} for n in (1, 2)]
    cadence = contracts._cadence
    with monkeypatch.context() as older:
        older.setattr(contracts, "_cadence", lambda told: ("week", 1) if told.id == 1 else cadence(told))
        await daybook.post(MX, {"records": records}, message_id="msg_1")
    (change,) = (await retranslate(command, "--apply"))["changes"]
    assert change["cause"] == "mxmerchant:msg_1:1"

    # when the other customer is erased
    await daybook.state.ledger.append([incoming(erasure("cus_2", "mxmerchant", "7"))], NOW)

    # then what was said of both can't be read any more
    for cause in ("msg_1:1", "msg_1:1·2"):
        assert (await daybook.ask(f"/api/v1/ledger/causes/{quote(f'mxmerchant:{cause}')}")).status_code == 410


def erasure(customer_id: str, processor: str = "stripe", account: str = "") -> Event:
    data, event_id = CustomerErased(customer_id=customer_id), f"{customer_id}·erased"
    return Event(processor=processor, account=account, event_id=event_id, occurred_at=NOW, data=data)
