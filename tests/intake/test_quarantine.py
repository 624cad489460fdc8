"""Quarantine: looked at, read again after an upgrade, or dismissed; over HTTP and by command."""

import json
from pathlib import Path
from typing import Any

import pytest

from handlers.mxmerchant import contracts
from handlers.stripe import payloads, translations
from handlers.stripe.translations import SUBSCRIPTION, ObjectTranslation
from service.core.errors import Unreadable
from tests.support.cli import Run, document
from tests.support.openapi import is_described
from tests.support.running import Daybook, running
from tests.support.senders import MX, STRIPE, stripe_event, stripe_subscription
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

PATH = "/api/v1/quarantine"
HISTORY = "subscription|stripe||sub_1"
NOT_KNOWN = "Expected `int`, got `str` - at `$.data.object.days_until_due`"


def unknown(*_told: Any) -> Any:
    raise Unreadable(NOT_KNOWN)


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Daybook that can't read subscriptions yet; `undo` is the upgrade."""
    monkeypatch.setitem(
        translations.TRANSLATIONS_BY_PREFIX,
        "customer.subscription.",
        ObjectTranslation(payloads.Subscription, unknown),
    )
    return monkeypatch


def subscription(event_id: str = "evt_1", cents: int = 24900) -> dict[str, Any]:
    return stripe_event("customer.subscription.created", stripe_subscription("1", cents), event_id=event_id)


def upgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(translations.TRANSLATIONS_BY_PREFIX, "customer.subscription.", SUBSCRIPTION)


async def mrr(daybook: Daybook) -> int:
    await daybook.catch_up()
    answer: int = (await daybook.get("/api/v1/mrr"))["mrr_cents"]
    return answer


async def test_after_an_upgrade_what_waited_is_recorded_once(
    daybook: Daybook, command: Run, older: pytest.MonkeyPatch
) -> None:
    # given
    await daybook.post(STRIPE, subscription())
    assert document(await command("quarantine", "retry", "--all", "--json"), 1)["retried"] == [
        {"id": 1, "outcome": "unreadable", "detail": NOT_KNOWN, "position": None}
    ]

    # when
    upgraded(older)
    first = document(await command("quarantine", "retry", 1, "--json"))
    second = document(await command("quarantine", "retry", 1, "--json"))

    # then
    assert [each["outcome"] for each in (*first["retried"], *second["retried"])] == ["recorded", "settled"]
    assert await daybook.head() == 1
    assert await daybook.quarantine() == {}
    assert await mrr(daybook) == 24900
    (row,) = (await daybook.get(PATH, status="all"))["quarantine"]
    assert (row["status"], row["reason"]) == ("retried", "unreadable")
    again = await daybook.post(STRIPE, subscription())
    assert again.json()["duplicate"]


async def test_a_delivery_that_came_again_meanwhile_is_settled_without_an_event(
    daybook: Daybook, command: Run, older: pytest.MonkeyPatch
) -> None:
    await daybook.post(STRIPE, subscription())
    upgraded(older)
    await daybook.post(STRIPE, subscription())

    result = document(await command("quarantine", "retry", "--all", "--json"))

    assert [each["outcome"] for each in result["retried"]] == ["duplicate"]
    assert (await daybook.head(), await daybook.quarantine()) == (1, {})


async def test_a_conflict_is_not_retried_but_shown_beside_what_it_contradicts(
    daybook: Daybook, command: Run
) -> None:
    # given
    await daybook.post(STRIPE, subscription(cents=24900))
    await daybook.post(STRIPE, subscription(cents=99900))

    # when
    result = document(await command("quarantine", "retry", 1, "--json"), 1)
    shown = document(await command("quarantine", "show", 1, "--json"))
    page = await daybook.get(f"{PATH}/1")

    # then
    assert [(each["outcome"], each["position"]) for each in result["retried"]] == [("conflict", 1)]
    assert "dismiss" in result["retried"][0]["detail"]
    field = "data.object.items.data[0].price.unit_amount_decimal"
    assert shown["differences"] == [{"field": field, "before": "24900", "after": "99900"}]
    assert json.loads(shown["raw_body"]) == subscription(cents=99900)
    assert shown["verification"]["method"] == "stripe-signature"
    assert shown["headers"]["stripe-signature"].startswith("t=")
    assert {name: page[name] for name in shown} == shown
    assert is_described(page, "QuarantinedDelivery")
    assert is_described(await daybook.get(PATH), "Quarantine")
    assert document(await command("quarantine", "retry", "--all", "--json")) == {"retried": [], "lifted": []}


async def test_a_history_that_is_set_aside_is_listed_and_read_to_its_end_again(
    daybook: Daybook, command: Run
) -> None:
    for cents in (24900, 99900):
        await daybook.post(STRIPE, subscription(f"evt_{cents}", cents))
    (name,) = await daybook.state.ledger.set_aside({HISTORY: 2}, "mrr", "KeyError", daybook.clock.now)

    listed = document(await command("quarantine", "list", "--json"))["set_aside"]
    shown = await daybook.get(PATH)

    assert name == HISTORY
    assert (
        listed
        == shown["set_aside"]
        == [
            {
                "history": HISTORY,
                "set_aside_at": "2025-11-13T10:30:00Z",
                "book": "mrr",
                "error": "KeyError",
                "up_to": 1,
                "position": 3,
            }
        ]
    )
    assert HISTORY in (await command("quarantine", "list")).stdout.replace("\n", "")
    assert document(await command("status", "--json"))["set_aside_histories"] == 1
    assert (await command("quarantine", "retry", "invoice|stripe||in_1")).exit_code == 2
    assert document(await command("quarantine", "retry", HISTORY, "--json")) == {
        "retried": [],
        "lifted": [HISTORY],
    }
    assert (await daybook.get(PATH))["set_aside"] == []


async def test_a_dismissed_one_is_kept_with_the_reason(daybook: Daybook, command: Run) -> None:
    await daybook.post(STRIPE, b"no JSON")
    await daybook.post(MX, MX.unreadable)

    gone = document(await command("quarantine", "dismiss", 1, 2, "--because", "a [sic] test", "--json"))
    again = document(await command("quarantine", "dismiss", 1, "--because", "later", "--json"))

    assert (gone["dismissed"], again["dismissed"]) == ([1, 2], [])
    assert await daybook.quarantine() == {}
    assert document(await command("quarantine", "list", "--json")) == {"quarantine": [], "set_aside": []}
    rows = document(await command("quarantine", "list", "--all", "--json"))["quarantine"]
    assert [(row["reason"], row["status"], row["settled_because"]) for row in rows] == [
        ("malformed", "dismissed", "a [sic] test"),
        ("unreadable", "dismissed", "a [sic] test"),
    ]
    assert "a [sic] test" in (await command("quarantine", "list", "--all")).stdout
    result = document(await command("quarantine", "retry", 2, "--json"))
    assert [each["outcome"] for each in result["retried"]] == ["settled"]


async def test_wrong_arguments_and_unreadable_bodies_have_their_exit_codes(
    daybook: Daybook, command: Run
) -> None:
    await daybook.post(STRIPE, b"no JSON")
    for words, code in (
        (("retry", 7), 2),
        (("retry",), 2),
        (("retry", 1, "--all"), 2),
        (("show", 7), 2),
        (("dismiss", 7, "--because", "x"), 2),
        (("dismiss", 1, "--because", " "), 2),
        (("dismiss", 1), 2),
        (("retry", 1), 1),
    ):
        assert (await command("quarantine", *words)).exit_code == code, words
    for words in (("list",), ("show", 1)):
        result = await command("quarantine", *words)
        assert (result.exit_code, "malformed" in result.output) == (0, True)
    assert (await daybook.quarantine()) == {("stripe", "malformed"): 1}


async def test_a_retry_killed_before_its_commit_neither_records_nor_settles(
    daybook: Daybook, command: Run, older: pytest.MonkeyPatch
) -> None:
    await daybook.post(STRIPE, subscription())
    upgraded(older)
    with older.context() as killed:
        killed.setattr("service.ledger.store._settle", unknown)
        assert (await command("quarantine", "retry", 1)).exit_code != 0
    assert (await daybook.head(), len(await daybook.quarantine())) == (0, 1)

    assert (await command("quarantine", "retry", 1)).exit_code == 0

    assert (await daybook.head(), await daybook.quarantine()) == (1, {})


async def test_quarantine_is_read_with_a_key_only(data_dir: Path) -> None:
    async with running(data_dir, api_keys="a-key-of-this-test") as daybook:
        await daybook.post(STRIPE, b"no JSON")
        for path in (PATH, f"{PATH}/1"):
            with_key = await daybook.http.get(path, headers={"X-API-Key": "a-key-of-this-test"})
            assert ((await daybook.ask(path)).status_code, with_key.status_code) == (401, 200)


async def test_of_a_list_only_what_was_missing_is_appended(
    daybook: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a Daybook that does not know contracts by the fortnight
    record = {"merchantId": 7, "customerName": "Ada Example", "status": "Active", "every": "1 Month"}
    records = [{**record, "id": n, "amount": "10.00"} for n in (1, 2, 3)]
    cadence = contracts._cadence

    def limited(contract: Any) -> Any:
        if contract.id == 2:
            raise Unreadable("`$.every` is no interval that is known")
        return cadence(contract)

    monkeypatch.setattr(contracts, "_cadence", limited)
    await daybook.post(MX, {"records": records}, message_id="msg_list")
    before = await daybook.head()

    # when
    partial = document(await command("quarantine", "retry", 1, "--json"), 1)
    still = (await daybook.head(), await daybook.quarantine())
    monkeypatch.setattr(contracts, "_cadence", cadence)
    whole = document(await command("quarantine", "retry", 1, "--json"))

    # then
    assert [each["outcome"] for each in partial["retried"]] == ["partial"]
    assert still == (before, {("mxmerchant", "unreadable"): 1})
    assert [each["outcome"] for each in whole["retried"]] == ["recorded"]
    events = (await daybook.get("/api/v1/ledger/events", after=before))["events"]
    assert [event["event_id"] for event in events] == ["msg_list:2", "msg_list:2:customer"]
    assert await mrr(daybook) == 3000
    assert (await daybook.quarantine()) == {}


async def test_the_list_is_paged_and_holds_no_bodies(daybook: Daybook) -> None:
    for n in range(5):
        await daybook.post(STRIPE, f"no JSON {n}".encode())
    await daybook.post(MX, MX.unreadable)

    pages, cursor = [], {}
    while cursor is not None:
        page = await daybook.get(PATH, limit=2, **cursor)
        pages.append([row["id"] for row in page["quarantine"]])
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None

    assert pages == [[1, 2], [3, 4], [5, 6]]
    assert not any("body" in name for row in page["quarantine"] for name in row)
    whole = (await daybook.ask(PATH, format="csv")).text.splitlines()
    assert whole[0].startswith("id,received_at,processor,reason,detail,")
    assert [line.partition(",")[0] for line in whole[1:]] == ["1", "2", "3", "4", "5", "6"]
    of_mx = await daybook.get(PATH, processor="mxmerchant", reason="unreadable")
    assert [row["id"] for row in of_mx["quarantine"]] == [6]
    assert (await daybook.get(f"{PATH}/1"))["raw_body"] == "no JSON 0"
    for path, query, status in (
        (f"{PATH}/9", {}, 404),
        (f"{PATH}/x", {}, 400),
        (PATH, {"status": "new"}, 400),
    ):
        assert (await daybook.ask(path, **query)).status_code == status


async def test_an_id_named_like_a_revision_is_refused(daybook: Daybook) -> None:
    forged = await daybook.post(STRIPE, subscription("evt_1·2"))

    assert forged.json()["quarantined"]
