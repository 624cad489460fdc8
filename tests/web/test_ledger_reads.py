"""The ledger's own reads: what is recorded, as it came, and what caused a row."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from service.ledger.reader import LedgerReader
from service.web import ledger, quarantine
from tests.support.paths import FIXTURES
from tests.support.running import NOW, Daybook, running
from tests.support.senders import (
    MX,
    MX_TOKEN,
    SENDERS,
    STANDARD,
    STRIPE,
    Sender,
    stripe_event,
    stripe_subscription,
    subscription,
)
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

LEDGER = ("head", "events", "events/1", "causes/standard.acme:msg_1")
each = pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.name)


def refused(answer: Any, status: int) -> bool:
    return answer.status_code == status and answer.headers["content-type"] == "application/problem+json"


async def test_an_empty_ledger_is_at_position_0_with_a_digest_of_noughts(daybook: Daybook) -> None:
    head = await daybook.get("/api/v1/ledger/head")
    events = await daybook.get("/api/v1/ledger/events")

    assert (head["position"], head["digest"]) == (0, "0" * 64)
    assert (events["events"], events["next_after"], events["head"]) == ([], None, 0)
    assert head["meta"]["lag_events"] == 0


async def test_the_head_is_the_last_event(demo: Path) -> None:
    async with running(demo) as daybook:
        head = await daybook.get("/api/v1/ledger/head")
        last = await daybook.get(f"/api/v1/ledger/events/{head['position']}")

    assert head["digest"] == last["digest"]


@pytest.mark.parametrize("limit", [1, 10, 1000])
async def test_pages_hold_every_event_once_in_order(mx_contracts: Path, limit: int) -> None:
    async with running(mx_contracts) as daybook:
        head = (await daybook.get("/api/v1/ledger/head"))["position"]
        positions, after = [], 0
        while after is not None:
            page = await daybook.get("/api/v1/ledger/events", after=after, limit=limit)
            assert len(page["events"]) <= limit
            assert page["head"] == head
            positions += [event["position"] for event in page["events"]]
            after = page["next_after"]

    assert positions == list(range(1, head + 1))


@each
async def test_a_cause_shows_the_event_the_bytes_and_what_was_proved(
    daybook: Daybook, sender: Sender
) -> None:
    # given bytes that no serializer would write so
    body = json.dumps(sender.event("1", 24900), indent=3).encode() + b"\n\t "
    await daybook.post(sender, body, message_id="msg_a")
    await daybook.catch_up()
    event = (await daybook.get("/api/v1/ledger/events"))["events"][0]

    # when
    shown = await daybook.get(f"/api/v1/ledger/causes/{event['cause']}")

    # then
    assert base64.b64decode(shown["raw_body_base64"]) == body
    assert shown["raw_body"].encode() == body
    assert {name: shown[name] for name in event} == event
    proved = shown["verification"]
    assert proved["processor"] == sender.processor
    assert proved["received_at"] == "2025-11-13T10:30:00Z"
    assert proved["secret"] == 1
    if sender is MX_TOKEN:
        assert (proved["method"], proved["trust"], proved["signed_at"]) == ("url-token", "unsigned", None)
    else:
        assert (proved["trust"], proved["signed_at"]) == ("signed", "2025-11-13T10:30:00Z")
        signed = {
            name.lower(): value
            for name, value in sender.sign(body, daybook.clock.now, "msg_a", sender.secret).items()
        }
        assert signed.items() <= shown["headers"].items()
    assert sender.secret not in json.dumps(shown)


@pytest.mark.parametrize("sender", [MX, STANDARD], ids=lambda sender: sender.name)
async def test_headers_by_the_other_names_are_kept_to_prove_the_delivery_again(
    daybook: Daybook, sender: Sender
) -> None:
    body = json.dumps(sender.event("1", 12_500)).encode()
    signed = sender.sign(body, daybook.clock.now, "msg_a", sender.secret)
    renamed = {name.replace("webhook-", "svix-"): value for name, value in signed.items()}
    assert (await daybook.http.post(sender.path, content=body, headers=renamed)).status_code == 200

    shown = await daybook.get("/api/v1/ledger/events/1")

    assert renamed.items() <= shown["headers"].items()
    proof = await daybook.get(f"/api/v1/ledger/causes/{quote(shown['cause'])}")
    assert proof["verification"]["message_id"] == "msg_a"


async def test_every_row_of_every_list_names_causes_that_the_ledger_shows(demo: Path) -> None:
    async with running(demo) as daybook:
        detail = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
        upcoming = await daybook.get("/api/v1/upcoming", from_="2025-11-01", to="2025-12-31")
        contracts = await daybook.get("/api/v1/contracts", limit=1000)
        movements = await daybook.get(
            "/api/v1/mrr/movements", from_="2025-01", to="2026-12", detail="customers"
        )
        lists = (
            detail["payments"],
            detail["top"],
            upcoming["payments"],
            contracts["contracts"],
            movements["movements"],
        )
        assert all(row["causes"] for rows in lists for row in rows)
        causes = sorted({cause for rows in lists for row in rows for cause in row["causes"]})
        for cause in causes:
            shown = await daybook.get(f"/api/v1/ledger/causes/{cause}")
            assert shown["cause"] == cause
            assert shown["raw_body"]

    assert len(causes) == 69


@pytest.mark.parametrize("path", LEDGER)
async def test_an_unknown_parameter_is_refused_by_name(daybook: Daybook, path: str) -> None:
    await daybook.post(STANDARD, STANDARD.event("1", 100), message_id="msg_1")

    answer = await daybook.ask(f"/api/v1/ledger/{path}", acount="a")

    assert refused(answer, 400)
    assert answer.json()["detail"].startswith("acount")


@pytest.mark.parametrize("path", LEDGER)
async def test_at_least_is_waited_for_and_gives_504_where_the_books_stay_behind(
    daybook: Daybook, path: str
) -> None:
    await daybook.post(STANDARD, STANDARD.event("1", 100), message_id="msg_1")
    behind = await daybook.ask(f"/api/v1/ledger/{path}", at_least=1, timeout_ms=0)

    waiting = asyncio.create_task(daybook.get(f"/api/v1/ledger/{path}", at_least=1, timeout_ms=20_000))
    await daybook.catch_up()

    assert refused(behind, 504)
    assert (await waiting)["meta"]["position"] == 1


@pytest.mark.parametrize("path", LEDGER)
async def test_the_common_parameters_are_taken(daybook: Daybook, path: str) -> None:
    await daybook.post(STANDARD, STANDARD.event("1", 100), message_id="msg_1")

    shown = await daybook.get(f"/api/v1/ledger/{path}", currency="EUR", today="2025-12-01")

    assert shown["meta"]["calculation_date"] == "2025-12-01"
    assert refused(await daybook.ask(f"/api/v1/ledger/{path}", currency="euros"), 400)


async def two_accounts(daybook: Daybook) -> None:
    """Three events of account a and two of b; the last of a and the first of b have one id."""
    thing = {"type": "subscription.recorded", "occurred_at": "2025-11-13T10:00:00Z"}
    for account, names in (("a", "123"), ("b", "34")):
        for name in names:
            data = subscription(f"{account}{name}", 100)
            body = {**thing, "account": account, "data": data}
            await daybook.post(STANDARD, body, message_id=f"msg_{name}")
    await daybook.catch_up()


async def test_the_log_of_one_account_holds_its_events_alone_on_every_page(daybook: Daybook) -> None:
    await two_accounts(daybook)

    positions, after, pages = [], 0, 0
    while after is not None:
        page = await daybook.get("/api/v1/ledger/events", account="b", after=after, limit=1)
        positions += [event["position"] for event in page["events"]]
        after, pages = page["next_after"], pages + 1

    assert (positions, pages) == ([4, 5], 2)
    assert len((await daybook.get("/api/v1/ledger/events", account="a"))["events"]) == 3
    assert (await daybook.get("/api/v1/ledger/events", account="c"))["events"] == []
    assert refused(await daybook.ask("/api/v1/ledger/events/4", account="a"), 404)


async def test_the_account_chooses_among_events_of_one_id(daybook: Daybook) -> None:
    await two_accounts(daybook)
    path = "/api/v1/ledger/causes/standard.acme:msg_3"

    found = [
        await daybook.get(path),
        await daybook.get(path, account="a"),
        await daybook.get(path, account="b"),
    ]

    assert [(shown["position"], shown["account"]) for shown in found] == [(3, "a"), (3, "a"), (4, "b")]
    assert refused(await daybook.ask("/api/v1/ledger/causes/standard.acme:msg_4", account="a"), 404)


async def test_a_cause_may_hold_any_printable_sign(daybook: Daybook) -> None:
    message_id = "a/b:c?d=e&f#g%20h;i@j"
    await daybook.post(STANDARD, STANDARD.event("1", 100), message_id=message_id)

    shown = await daybook.get(f"/api/v1/ledger/causes/{quote(f'standard.acme:{message_id}')}")

    assert shown["event_id"] == message_id


async def test_one_delivery_of_many_records_is_shown_with_each(daybook: Daybook) -> None:
    body = (FIXTURES / "mxmerchant/contracts.json").read_bytes()
    answer = await daybook.post(MX, body)
    last = answer.json()["position"]

    first_shown = await daybook.get("/api/v1/ledger/events/1")
    last_shown = await daybook.get(f"/api/v1/ledger/events/{last}")

    assert first_shown["delivery"] == last_shown["delivery"] == 1
    assert base64.b64decode(last_shown["raw_body_base64"]) == body


async def test_what_was_so_before_is_shown(daybook: Daybook) -> None:
    thing = stripe_subscription("1", 5000, status="past_due")
    changed = stripe_event("customer.subscription.updated", thing)
    changed["data"]["previous_attributes"] = {"status": "active"}
    await daybook.post(STRIPE, changed)

    event = (await daybook.get("/api/v1/ledger/events"))["events"][0]

    assert (event["before"]["status"], event["data"]["status"]) == ("active", "past_due")


@pytest.mark.parametrize(
    "path",
    [
        "events/1",
        "events/0",
        "events/9999999999999999999",
        "causes/stripe:evt_none",
        "causes/nobody:evt_1",
        "causes/evt_1",
        "causes/:",
        "causes/stripe:evt%00x",
        "causes/stri%00pe:evt_1",
        "causes/stripe:%ed%a0%80",
    ],
)
async def test_what_is_not_there_is_404(daybook: Daybook, path: str) -> None:
    assert refused(await daybook.ask(f"/api/v1/ledger/{path}"), 404)


@pytest.mark.parametrize(
    "path",
    [
        "events/one",
        "events/-1",
        "events/1.0",
        "events/²",
        f"events/{'9' * 5000}",
        "events?limit=0",
        "events?limit=1001",
        "events?after=-1",
        "events?after=x",
        "events?format=xml",
        "events?befor=3",
        "events?account=%00",
        "events/1?account=a%00",
        "head?account=%ff%00",
    ],
)
async def test_what_cannot_be_asked_is_400(daybook: Daybook, path: str) -> None:
    assert refused(await daybook.http.get(f"/api/v1/ledger/{path}"), 400)


async def test_an_event_that_the_caller_has_already_is_304(mx_contracts: Path) -> None:
    async with running(mx_contracts) as daybook:
        for path in ("head", "events", "events/1"):
            first = await daybook.ask(f"/api/v1/ledger/{path}")
            held = {"If-None-Match": first.headers["etag"]}
            assert (await daybook.http.get(f"/api/v1/ledger/{path}", headers=held)).status_code == 304


async def record_long_ones(daybook: Daybook, count: int) -> None:
    """Contracts with data of some 40 KB each."""
    for number in range(count):
        items = [
            {"interval": "month", "unit_amount": str(item), "item_id": f"{item:060}"} for item in range(400)
        ]
        contract = {**subscription(f"s{number}", 100), "items": items}
        await daybook.record("subscription.recorded", "2025-11-01T00:00:00Z", **contract)


async def test_a_page_of_the_log_ends_before_its_data_are_over_a_mebibyte(daybook: Daybook) -> None:
    await record_long_ones(daybook, 40)
    positions, after, sizes = list[int](), 0, list[int]()
    while after is not None:
        answer = await daybook.ask("/api/v1/ledger/events", after=after, limit=1000)
        page = answer.json()
        positions += [event["position"] for event in page["events"]]
        sizes.append(len(answer.content))
        after = page["next_after"]
        assert ("link" in answer.headers) == (after is not None)

    assert positions == list(range(1, 41))
    assert len(sizes) > 1
    assert max(sizes) < 1.1 * (1 << 20)


async def test_an_event_that_is_longer_is_a_page_of_its_own(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_PAGE_BYTES", 100)
    await record_long_ones(daybook, 2)

    page = await daybook.get("/api/v1/ledger/events")
    last = await daybook.get("/api/v1/ledger/events", after=page["next_after"])

    assert [event["position"] for event in (*page["events"], *last["events"])] == [1, 2]
    assert last["next_after"] is None


async def test_a_long_page_is_read_piece_by_piece(daybook: Daybook, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, rows = [], LedgerReader.rows

    async def counted(reader: LedgerReader, after: int, limit: int, account: str | None = None) -> Any:
        counts.append(limit)
        return await rows(reader, after, limit, account)

    monkeypatch.setattr(ledger, "_EVENTS_AT_ONCE", 2)
    monkeypatch.setattr(LedgerReader, "rows", counted)
    await record_long_ones(daybook, 5)

    page = await daybook.get("/api/v1/ledger/events")

    assert counts == [2, 2, 1]
    assert [event["position"] for event in page["events"]] == [1, 2, 3, 4, 5]


async def test_a_file_that_would_be_too_long_is_400(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record_long_ones(daybook, 3)
    whole = await daybook.ask("/api/v1/ledger/events", format="csv")
    monkeypatch.setattr(ledger, "_FILE_BYTES", 100_000)
    monkeypatch.setattr(LedgerReader, "rows", None)  # none is read
    refused_file = await daybook.ask("/api/v1/ledger/events", format="csv", timeout_ms=0)  # none is kept

    assert whole.text.count("\r\n") == 4
    assert refused(refused_file, 400)
    assert "daybook export ledger" in refused_file.json()["detail"]


async def test_so_is_one_of_quarantine(daybook: Daybook, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("1", "2"):
        await daybook.post(STANDARD, {**STANDARD.unreadable, "key": key})
    whole = await daybook.ask("/api/v1/quarantine", format="csv")
    monkeypatch.setattr(quarantine, "_FILE_DELIVERIES", 1)

    assert whole.text.count("\r\n") == 3
    assert refused(await daybook.ask("/api/v1/quarantine", format="csv", timeout_ms=0), 400)  # none is kept
    assert len((await daybook.get("/api/v1/quarantine", limit=1))["quarantine"]) == 1


async def test_the_histories_that_are_set_aside_are_listed_page_by_page(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "_SET_ASIDE", 2)
    await daybook.post(STRIPE, STRIPE.event("1", 100))
    names = [f"subscription|stripe||sub_{number}" for number in range(5)]
    await daybook.state.ledger.set_aside(dict.fromkeys(names, 1), "mrr", "ValueError", NOW)

    pages = [await daybook.get("/api/v1/quarantine")]
    while after := pages[-1]["next_set_aside_after"]:
        pages.append(await daybook.get("/api/v1/quarantine", set_aside_after=after))

    assert [[row["history"] for row in page["set_aside"]] for page in pages] == [
        names[:2],
        names[2:4],
        names[4:],
    ]
