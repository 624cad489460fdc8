"""Every row of contract section 2's table, at each of the endpoints."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import NOW, Daybook, running
from tests.support.senders import (
    MX,
    MX_TOKEN,
    SENDERS,
    SIGNING,
    STANDARD,
    STRIPE,
    Sender,
    recorded,
    secret,
    sign_standard,
    sign_stripe,
    stripe_event,
    stripe_subscription,
    subscription,
)
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

each = pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.name)
each_signing = pytest.mark.parametrize("sender", SIGNING, ids=lambda sender: sender.name)


async def nothing_kept(daybook: Daybook) -> bool:
    return await daybook.head() == 0 and await daybook.quarantine() == {}


def refused(answer: Any, status: int) -> str:
    """The problem's detail, after a look at its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    text = answer.text
    for sender in SENDERS:
        assert sender.secret not in text
        assert sender.secret.removeprefix("whsec_") not in text
    assert "Traceback" not in text
    return str(problem["detail"])


# 200


@each
async def test_a_new_event_is_recorded_at_the_next_position(daybook: Daybook, sender: Sender) -> None:
    first = await daybook.post(sender, sender.event("1", 100), message_id="msg_a")
    count = await daybook.head()
    second = await daybook.post(sender, sender.event("2", 100), message_id="msg_b")

    assert first.status_code == second.status_code == 200
    assert first.json() == {"received": True, "position": count, "duplicate": False}
    assert second.json() == {"received": True, "position": 2 * count, "duplicate": False}


@each
async def test_the_same_event_again_is_a_duplicate_at_its_first_position(
    daybook: Daybook, sender: Sender
) -> None:
    first = (await daybook.post(sender, sender.event("1", 100), message_id="msg_a")).json()
    await daybook.post(sender, sender.event("2", 100), message_id="msg_b")
    head = await daybook.head()
    daybook.clock.now += timedelta(hours=1)

    again = await daybook.post(sender, sender.event("1", 100), message_id="msg_a")

    assert again.status_code == 200
    assert again.json() == {"received": True, "position": first["position"], "duplicate": True}
    assert await daybook.head() == head
    assert await daybook.quarantine() == {}


@each
async def test_key_order_and_blanks_do_not_make_other_content(daybook: Daybook, sender: Sender) -> None:
    event = sender.event("1", 100)
    await daybook.post(sender, event, message_id="msg_a")

    turned = json.dumps(dict(reversed(event.items())), indent=2).encode()
    again = await daybook.post(sender, turned, message_id="msg_a")

    assert again.json()["duplicate"] is True


ODD_JSON = {
    "a byte order mark": lambda body: b"\xef\xbb\xbf" + body,
    "half an emoji": lambda body: body[:-1] + rb', "note": "cut \ud83d"}',
    "a number beyond a double": lambda body: body[:-1] + b', "seen": [1e999, 9%s]}' % (b"0" * 40),
    "a key twice": lambda body: body[:-1] + b', "note": 1, "note": "x"}',
}


@each
@pytest.mark.parametrize("odd", ODD_JSON.values(), ids=ODD_JSON)
async def test_json_that_is_odd_is_read_and_kept_as_it_came(
    daybook: Daybook, sender: Sender, odd: Callable[[bytes], bytes]
) -> None:
    body = odd(json.dumps(sender.event("1", 100)).encode())

    first = await daybook.post(sender, body, message_id="msg_a")
    again = await daybook.post(sender, body, message_id="msg_a")

    assert (first.status_code, first.json()["duplicate"], again.json()["duplicate"]) == (200, False, True)
    assert await daybook.quarantine() == {}
    event = await daybook.get("/api/v1/ledger/events/1")
    assert base64.b64decode(event["raw_body_base64"]) == body


async def test_fewer_pending_webhooks_at_stripe_are_still_a_duplicate(daybook: Daybook) -> None:
    event = STRIPE.event("1", 100)
    await daybook.post(STRIPE, event)

    again = await daybook.post(STRIPE, {**event, "pending_webhooks": 0})

    assert again.json()["duplicate"] is True


@each
async def test_other_content_under_one_id_is_a_conflict_kept_in_quarantine(
    daybook: Daybook, sender: Sender
) -> None:
    first = (await daybook.post(sender, sender.event("1", 100), message_id="msg_a")).json()
    head = await daybook.head()

    other = await daybook.post(sender, sender.event("1", 999), message_id="msg_a")

    assert other.status_code == 200
    assert other.json() == {
        "received": True,
        "position": first["position"],
        "duplicate": False,
        "conflict": True,
    }
    assert await daybook.head() == head
    assert await daybook.quarantine() == {(sender.processor, "conflict"): 1}
    metrics = (await daybook.http.get("/metrics")).text
    assert f'daybook_quarantine{{processor="{sender.processor}",reason="conflict"}} 1.0' in metrics


@each
async def test_a_type_that_the_books_do_not_use_is_recorded_without_effect(
    daybook: Daybook, sender: Sender
) -> None:
    answer = await daybook.post(sender, sender.unused)

    assert answer.json() == {"received": True, "position": 1, "duplicate": False}
    event = await daybook.get("/api/v1/ledger/events/1")
    assert event["type"] == "unused"
    await daybook.catch_up()
    assert (await daybook.get("/api/v1/contracts"))["contracts"] == []


async def test_what_becomes_of_a_coupon_changes_no_discount_that_it_gave(
    daybook: Daybook, logged: list[Any]
) -> None:
    coupon = {"id": "half", "object": "coupon", "duration": "forever", "percent_off": 50.0, "name": "Half"}
    discount = {"id": "di_1", "object": "discount", "coupon": coupon, "start": 1763028000, "end": None}
    contract = stripe_subscription("1", 4_000, discounts=[discount])
    told = [
        ("coupon.created", coupon),
        ("customer.subscription.created", contract),
        ("coupon.updated", coupon | {"name": "50 percent"}),
        ("coupon.deleted", coupon | {"deleted": True}),
    ]
    answers = [
        (await daybook.post(STRIPE, stripe_event(kind, thing, event_id=f"evt_{kind}"))).json()
        for kind, thing in told
    ]

    assert answers == [{"received": True, "position": n, "duplicate": False} for n in range(1, 5)]
    await daybook.catch_up()
    answer = await daybook.get("/api/v1/mrr")
    assert (answer["mrr_cents"], answer["meta"]["unpriced_contracts"]) == (2_000, 0)
    assert await daybook.quarantine() == {}
    assert [entry for entry in logged if "coupon" in str(entry)] == []


@each
async def test_a_shape_that_cannot_be_read_is_quarantined_whole(daybook: Daybook, sender: Sender) -> None:
    answer = await daybook.post(sender, sender.unreadable)

    assert answer.status_code == 200
    assert answer.json() == {"received": True, "position": None, "duplicate": False, "quarantined": True}
    assert await daybook.head() == 0
    assert await daybook.quarantine() == {(sender.processor, "unreadable"): 1}


@each
@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"17", b"{}"])
async def test_json_of_no_known_shape_is_quarantined(daybook: Daybook, sender: Sender, body: bytes) -> None:
    answer = await daybook.post(sender, body)

    assert answer.json()["quarantined"] is True
    assert await daybook.quarantine() == {(sender.processor, "unreadable"): 1}


@each
async def test_a_quarantined_delivery_that_comes_again_is_kept_once(daybook: Daybook, sender: Sender) -> None:
    for _ in range(3):
        answer = await daybook.post(sender, sender.unreadable, message_id="msg_a")
        assert answer.json()["quarantined"] is True

    assert await daybook.quarantine() == {(sender.processor, "unreadable"): 1}


# 400


@each
@pytest.mark.parametrize("body", [b"", b"not json", b'{"id": ', b"\x00", b"[" * 5000, b'{"id": "\xff"}'])
async def test_a_signed_body_that_is_not_json_is_400_and_in_quarantine(
    daybook: Daybook, sender: Sender, body: bytes
) -> None:
    answer = await daybook.post(sender, body)

    assert "not JSON" in refused(answer, 400)
    assert await daybook.head() == 0
    assert await daybook.quarantine() == {(sender.processor, "malformed"): 1}


@each_signing
async def test_a_missing_signature_is_400_and_nothing_is_kept(daybook: Daybook, sender: Sender) -> None:
    answer = await daybook.http.post(sender.path, json=sender.event("1", 100))

    refused(answer, 400)
    assert await nothing_kept(daybook)


@each_signing
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda value: value[:-3] + "AAA", id="other"),
        pytest.param(lambda value: value.replace("v1", "v9"), id="other version"),
        pytest.param(lambda _: "", id="empty"),
        pytest.param(lambda _: ",,, =;\\ v1,%", id="garbage"),
        pytest.param(lambda value: value * 200, id="long"),
    ],
)
async def test_a_wrong_signature_is_400_and_nothing_is_kept(
    daybook: Daybook, sender: Sender, changed: Any
) -> None:
    body = json.dumps(sender.event("1", 100)).encode()
    headers = sender.sign(body, NOW, "msg_a", secret("of somebody else"))
    name = list(headers)[-1]

    answer = await daybook.http.post(
        sender.path, content=body, headers={**headers, name: changed(headers[name])}
    )

    refused(answer, 400)
    assert await nothing_kept(daybook)


@each_signing
async def test_bytes_that_were_changed_are_400_though_they_mean_the_same(
    daybook: Daybook, sender: Sender
) -> None:
    body = json.dumps(sender.event("1", 100)).encode()
    headers = sender.sign(body, NOW, "msg_a", sender.secret)

    answer = await daybook.http.post(sender.path, content=body + b" ", headers=headers)

    refused(answer, 400)
    assert await nothing_kept(daybook)


async def test_a_token_that_is_not_known_is_400_and_not_repeated(daybook: Daybook) -> None:
    answer = await daybook.http.post("/webhooks/mxmerchant/a-wrong-token", json=MX.event("1", 100))

    assert "a-wrong-token" not in refused(answer, 400)
    assert await nothing_kept(daybook)


@each_signing
@pytest.mark.parametrize("seconds", [-301, 301, -86_400, 10**9])
async def test_a_timestamp_over_300_seconds_away_is_400(
    daybook: Daybook, sender: Sender, seconds: int
) -> None:
    answer = await daybook.post(sender, sender.event("1", 100), at=NOW + timedelta(seconds=seconds))

    assert "300 seconds" in refused(answer, 400)
    assert await nothing_kept(daybook)


@each_signing
@pytest.mark.parametrize("seconds", [-300, 300])
async def test_a_timestamp_300_seconds_away_is_accepted(
    daybook: Daybook, sender: Sender, seconds: int
) -> None:
    answer = await daybook.post(sender, sender.event("1", 100), at=NOW + timedelta(seconds=seconds))

    assert answer.status_code == 200


# 503


@each
async def test_without_a_secret_it_is_503_and_of_an_unknown_biller_404_and_nothing_is_kept(
    data_dir: Path, sender: Sender
) -> None:
    none = {"stripe_webhook_secrets": "", "mxmerchant_webhook_secrets": "", "mxmerchant_url_tokens": ""}
    async with running(data_dir, **none, standard_webhook_secrets="other=" + STANDARD.secret) as daybook:
        answer = await daybook.post(sender, sender.event("1", 100))

        refused(answer, 404 if sender is STANDARD else 503)
        assert ("retry-after" in answer.headers) == (sender is not STANDARD)
        assert await nothing_kept(daybook)


# Several secrets, several billers


@each_signing
async def test_while_a_secret_is_rolled_both_sign_and_the_ledger_says_which(
    data_dir: Path, sender: Sender
) -> None:
    old, new = secret("the old one"), secret("the new one")
    setting = {
        STRIPE.name: {"stripe_webhook_secrets": f"{old}, {new}"},
        MX.name: {"mxmerchant_webhook_secrets": f"{old},{new}"},
        STANDARD.name: {"standard_webhook_secrets": f"acme={old},acme={new}"},
    }
    async with running(data_dir, **setting[sender.name]) as daybook:
        for number, signing in enumerate((old, new), start=1):
            answer = await daybook.post(sender, sender.event(str(number), 100), secret=signing)
            position = answer.json()["position"]
            event = await daybook.get(f"/api/v1/ledger/events/{position}")
            assert event["verification"]["secret"] == number
        refused(await daybook.post(sender, sender.event("3", 100), secret=secret("neither")), 400)


async def test_one_header_may_carry_the_signatures_of_both_secrets(daybook: Daybook) -> None:
    other = secret("the next one")
    at = NOW

    for sender, sign, name, join in (
        (STANDARD, sign_standard, "webhook-signature", " "),
        (STRIPE, sign_stripe, "Stripe-Signature", ","),
    ):
        body = json.dumps(sender.event("1", 100)).encode()
        next_one = sign(body, at, "msg_a", other)[name]
        ours = sign(body, at, "msg_a", sender.secret)[name].rpartition("v1")[2]
        answer = await daybook.post(
            sender, body, message_id="msg_a", headers={name: f"{next_one}{join}v1{ours}"}
        )
        assert answer.status_code == 200, answer.text


async def test_each_biller_signs_with_its_own_secret_only(data_dir: Path) -> None:
    secrets = f"acme={STANDARD.secret},zeta={secret('the secret of zeta')}"
    async with running(data_dir, standard_webhook_secrets=secrets) as daybook:
        body = json.dumps(recorded("subscription.recorded", subscription("1", 100))).encode()

        as_acme = sign_standard(body, NOW, "msg_a", STANDARD.secret)
        stolen = await daybook.http.post("/webhooks/standard/zeta", content=body, headers=as_acme)
        as_zeta = sign_standard(body, NOW, "msg_a", secret("the secret of zeta"))
        own = await daybook.http.post("/webhooks/standard/zeta", content=body, headers=as_zeta)
        both = await daybook.post(STANDARD, body, message_id="msg_a")

        refused(stolen, 400)
        assert own.json() == {"received": True, "position": 1, "duplicate": False}
        assert both.json() == {"received": True, "position": 2, "duplicate": False}


# MX Merchant's contract records

CONTRACT = {
    "id": 7,
    "merchantId": 1000000001,
    "customerName": "Avery Stone",
    "every": "4 Weeks",
    "amount": "249",
    "status": "Active",
    "startDate": "2025-11-01T00:00:00Z",
    "nextBillDate": "2025-11-20T00:00:00Z",
}
IN_PART = {"records": [CONTRACT, {**CONTRACT, "id": 8, "every": "Sometimes"}]}
API = {
    "mxmerchant_api_url": "http://127.0.0.1:9",
    "mxmerchant_consumer_key": "key",
    "mxmerchant_consumer_secret": "secret",
    "mxmerchant_merchant_id": "1000000001",
}
each_mx = pytest.mark.parametrize("sender", [MX, MX_TOKEN], ids=lambda sender: sender.name)


@each_mx
async def test_a_record_that_cannot_be_read_does_not_keep_out_the_others(
    daybook: Daybook, sender: Sender
) -> None:
    answer = await daybook.post(sender, IN_PART, message_id="msg_a")

    assert answer.status_code == 200
    assert answer.json() == {"received": True, "position": 2, "duplicate": False, "quarantined": True}
    assert await daybook.quarantine() == {("mxmerchant", "unreadable"): 1}
    await daybook.catch_up()
    assert [row["contract_id"] for row in (await daybook.get("/api/v1/contracts"))["contracts"]] == ["7"]


@each_mx
async def test_a_list_read_in_part_that_comes_again_is_kept_once(daybook: Daybook, sender: Sender) -> None:
    await daybook.post(sender, IN_PART, message_id="msg_a")

    again = await daybook.post(sender, IN_PART, message_id="msg_a")

    assert again.json() == {"received": True, "position": 2, "duplicate": True, "quarantined": True}
    assert await daybook.head() == 2
    assert await daybook.quarantine() == {("mxmerchant", "unreadable"): 1}


async def test_other_content_read_in_part_under_one_id_is_a_conflict_too(daybook: Daybook) -> None:
    await daybook.post(MX, CONTRACT, message_id="msg_a")

    answer = await daybook.post(MX, IN_PART, message_id="msg_a")

    assert answer.json() == {
        "received": True,
        "position": 2,
        "duplicate": False,
        "conflict": True,
        "quarantined": True,
    }
    assert await daybook.quarantine() == {("mxmerchant", "unreadable"): 1, ("mxmerchant", "conflict"): 1}


@each_mx
async def test_a_contract_stated_in_two_ways_is_quarantined_whole(daybook: Daybook, sender: Sender) -> None:
    records = [CONTRACT, {**CONTRACT, "id": 8}, {**CONTRACT, "amount": "1"}]

    answer = await daybook.post(sender, {"records": records})

    assert answer.json() == {"received": True, "position": None, "duplicate": False, "quarantined": True}
    assert await daybook.head() == 0


async def test_what_came_by_token_says_that_it_is_unsigned_wherever_it_is_shown(daybook: Daybook) -> None:
    await daybook.post(MX_TOKEN, CONTRACT)
    await daybook.catch_up()

    assert (await daybook.get("/api/v1/contracts"))["contracts"][0]["trust"] == "unsigned"
    assert (await daybook.get("/api/v1/upcoming"))["payments"][0]["trust"] == "unsigned"
    assert (await daybook.get("/api/v1/ledger/events/1"))["trust"] == "unsigned"


async def test_contracts_by_token_have_no_effect_where_a_poll_will_tell_them(data_dir: Path) -> None:
    async with running(data_dir, **API) as daybook:
        answer = await daybook.post(MX_TOKEN, CONTRACT)

        assert answer.json() == {"received": True, "position": 1, "duplicate": False}
        await daybook.catch_up()
        assert (await daybook.get("/api/v1/ledger/events/1"))["type"] == "unused"
        assert (await daybook.get("/api/v1/contracts"))["contracts"] == []


async def test_contracts_by_a_relay_count_though_a_poll_will_tell_them_too(data_dir: Path) -> None:
    async with running(data_dir, **API) as daybook:
        await daybook.post(MX, CONTRACT)
        await daybook.catch_up()

        assert (await daybook.get("/api/v1/contracts"))["contracts"][0]["trust"] == "signed"


@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Pacific/Auckland"])
async def test_a_contract_counts_from_the_date_of_its_start_in_every_zone(data_dir: Path, zone: str) -> None:
    async with running(data_dir, reporting_tz=zone) as daybook:
        await daybook.post(MX, CONTRACT)
        await daybook.catch_up()

        days = await daybook.get("/api/v1/mrr/movements", from_="2025-10", to="2025-11", by="day")
        new = [period["period"] for period in days["periods"] if period["new_cents"]]
        assert new == ["2025-11-01"]


# The framework's own refusals


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/v1/nothing", "/webhooks", "/webhooks/other"])
async def test_an_unknown_path_is_a_404_problem(daybook: Daybook, path: str) -> None:
    refused(await daybook.http.get(path), 404)
    refused(await daybook.http.post(path), 404)


@each
async def test_a_webhook_path_takes_post_only(daybook: Daybook, sender: Sender) -> None:
    answer = await daybook.http.get(sender.path)

    refused(answer, 405)
    assert answer.headers["allow"] == "POST"


async def test_a_read_takes_get_only(daybook: Daybook) -> None:
    answer = await daybook.http.post("/api/v1/mrr")

    refused(answer, 405)
    assert "GET" in answer.headers["allow"]


async def test_the_token_of_a_callback_url_is_in_no_answer_line_or_metric(
    daybook: Daybook, logged: list[Any]
) -> None:
    path, token = MX_TOKEN.path, MX_TOKEN.secret
    answers = [
        await daybook.post(MX_TOKEN, MX_TOKEN.event("1", 100)),
        await daybook.post(MX_TOKEN, MX_TOKEN.unreadable),
        await daybook.post(MX_TOKEN, b"no JSON"),
        await daybook.http.post(f"{path}x", content=b"{}"),
        await daybook.http.post(f"{path}/", content=b"{}"),
        await daybook.http.get(path),
        await daybook.ask("/metrics"),
        await daybook.ask("/api/v1/ledger/events/1"),
        await daybook.ask("/api/v1/quarantine/1"),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 400, 400, 404, 405, 200, 200, 200]
    assert token not in f"{[(answer.text, answer.headers) for answer in answers]} {logged}"
