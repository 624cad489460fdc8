"""Why customers go: the reason and the feedback in movements and at-risk lists, the comment for few."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from handlers.stripe import subscriptions
from service.core.progress import no_advance
from service.intake.retranslate import Retranslator
from service.maintenance.erasure import erase, make_erasure_event
from service.verify import verify_all
from tests.support.running import Daybook, running
from tests.support.senders import STRIPE, stripe_charge, stripe_event, stripe_subscription

COMMENT = 'Too dear for "us", sorry'
FIGURES, ALL = {"X-API-Key": "the-key-of-figures"}, {"X-API-Key": "the-key-of-people"}
KEYS = "the-key-of-figures:figures,the-key-of-people"
DETAILS = {"reason": "cancellation_requested", "feedback": "too_expensive", "comment": COMMENT}
GONE = {"kind": "churn", "reason": "cancellation_requested", "feedback": "too_expensive"}


def at(day: int, hour: int = 12) -> int:
    return int(datetime(2025, 11, day, hour, tzinfo=UTC).timestamp())


def all_files(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def starts(daybook: Daybook, key: str, cents: int = 1000, **more: Any) -> None:
    await says(daybook, "created", key, 1, cents, **more)


async def says(daybook: Daybook, what: str, key: str, day: int, cents: int = 1000, **more: Any) -> str:
    """An event of a contract; its cause."""
    event_id = f"evt_{key}_{what}_{day}"
    thing = stripe_subscription(key, cents, **more)
    event = stripe_event(f"customer.subscription.{what}", thing, event_id=event_id, created=at(day))
    assert (await daybook.post(STRIPE, event)).json()["received"]
    await daybook.catch_up()
    return f"stripe:{event_id}"


async def ends(daybook: Daybook, key: str, day: int, details: Any = DETAILS, **more: Any) -> str:
    ended = {"status": "canceled", "ended_at": at(day), "cancellation_details": details}
    return await says(daybook, "deleted", key, day, **ended, **more)


async def movements(daybook: Daybook, **query: str) -> list[dict[str, Any]]:
    answer = await daybook.get("/api/v1/mrr/movements", detail="customers", **query)
    listed: list[dict[str, Any]] = answer["movements"]
    return listed


async def test_a_churn_says_who_went_when_with_which_contract_and_why(daybook: Daybook) -> None:
    await starts(daybook, "1")
    cause = await ends(daybook, "1", 10)

    new, churn = await movements(daybook)

    assert {name: churn[name] for name in GONE} == GONE
    assert (churn["date"], churn["amount_cents"], churn["customer_id"]) == ("2025-11-10", -1000, "cus_1")
    assert (churn["contracts"], churn["comment"], churn["reason_causes"]) == (["sub_1"], COMMENT, [cause])
    assert (new["kind"], new["contracts"]) == ("new", ["sub_1"])
    assert (new["reason"], new["feedback"], new["comment"], new["reason_causes"]) == (None, None, None, [])


async def test_the_kinds_that_are_asked_for_are_listed_and_the_periods_stay(daybook: Daybook) -> None:
    for key, cents in (("1", 1000), ("2", 2000)):
        await starts(daybook, key, cents)
    await ends(daybook, "1", 10)
    whole = await daybook.get("/api/v1/mrr/movements", detail="customers")

    of_kinds = {"churn": ["1"], "new": ["1", "2"], "new,churn": ["1", "2", "1"], "expansion": []}
    for kinds, keys in of_kinds.items():
        answer = await daybook.get("/api/v1/mrr/movements", detail="customers", kind=kinds)
        assert [row["customer_id"] for row in answer["movements"]] == [f"cus_{key}" for key in keys]
        assert answer["periods"] == whole["periods"]
    detail = {"detail": "customers"}
    for query in ({"kind": "churn"}, {"kind": "lost", **detail}, {"kind": "", **detail}):
        refused = await daybook.ask("/api/v1/mrr/movements", **query)
        assert (refused.status_code, refused.json()["detail"].partition(":")[0]) == (400, "kind")


async def test_a_file_lists_the_movements_with_their_reasons(daybook: Daybook) -> None:
    await starts(daybook, "1")
    await ends(daybook, "1", 10)

    answer = await daybook.ask("/api/v1/mrr/movements", detail="customers", kind="churn", format="csv")

    header, row = answer.text.splitlines()
    assert header.endswith("contracts,reason,feedback,comment,reason_causes")
    assert f'sub_1,cancellation_requested,too_expensive,"{COMMENT.replace(chr(34), chr(34) * 2)}"' in row


async def test_a_contract_that_goes_while_another_stays_says_why_too(daybook: Daybook) -> None:
    await starts(daybook, "1")
    await starts(daybook, "2", 500, customer="cus_1")
    await ends(daybook, "1", 10)

    (row,) = await movements(daybook, kind="contraction")

    assert (row["amount_cents"], row["contracts"], row["feedback"]) == (-1000, ["sub_1"], "too_expensive")


async def test_two_contracts_that_go_on_one_day_say_both_reasons(daybook: Daybook) -> None:
    await starts(daybook, "1")
    await starts(daybook, "2", customer="cus_1")
    causes = [
        await ends(daybook, "1", 10, DETAILS | {"comment": "first"}),
        await ends(daybook, "2", 10, {"reason": "payment_failed", "comment": "second"}, customer="cus_1"),
    ]

    (row,) = await movements(daybook, kind="churn")

    assert (row["reason"], row["feedback"]) == ("cancellation_requested; payment_failed", "too_expensive")
    assert (row["contracts"], row["reason_causes"]) == (["sub_1", "sub_2"], causes)
    assert row["comment"] == "first; second"


async def test_feedback_that_comes_after_the_end_counts(daybook: Daybook) -> None:
    await starts(daybook, "1")
    deleted = await ends(daybook, "1", 10, {"reason": "cancellation_requested"})
    ended = {"status": "canceled", "ended_at": at(10)}
    updated = await says(daybook, "updated", "1", 12, **ended, cancellation_details=DETAILS)

    (row,) = await movements(daybook, kind="churn")

    assert {name: row[name] for name in GONE} == GONE
    assert (row["date"], row["comment"], row["reason_causes"]) == ("2025-11-10", COMMENT, [deleted, updated])


@pytest.mark.parametrize("details", [None, {}, "sold", {"reason": 7}, {"reason": None, "feedback": None}])
async def test_details_that_say_nothing_hinder_nothing(daybook: Daybook, details: Any) -> None:
    await starts(daybook, "1")
    await ends(daybook, "1", 10, details)

    (row,) = await movements(daybook, kind="churn")

    assert (row["reason"], row["feedback"], row["comment"], row["reason_causes"]) == (None, None, None, [])
    assert await daybook.quarantine() == {}


async def test_at_risk_lists_say_why_contracts_end(daybook: Daybook) -> None:
    september = datetime(2025, 9, 1, tzinfo=UTC)
    charge = stripe_charge("1", 900, september, customer="cus_1")
    paid = stripe_event("charge.succeeded", charge, event_id="evt_1", created=int(september.timestamp()))
    await daybook.post(STRIPE, paid)
    await starts(daybook, "1")
    path = "/api/payment/analytics/customers/at-risk"
    assert (await daybook.get(path))["customers"][0]["reason"] is None

    cause = await says(daybook, "updated", "1", 10, cancel_at_period_end=True, cancellation_details=DETAILS)

    (row,) = (await daybook.get(path))["customers"]
    assert (row["ends_date"], row["reason"], row["feedback"]) == ("2025-11-22", *list(DETAILS.values())[:2])
    assert (row["comment"], row["reason_causes"]) == (COMMENT, [cause])


async def test_the_comment_is_for_people_and_in_no_store_in_the_clear(data_dir: Path) -> None:
    async with running(data_dir, api_keys=KEYS) as daybook:
        await starts(daybook, "1")
        await ends(daybook, "1", 10)
        path = "/api/v1/mrr/movements?detail=customers&kind=churn"

        (shown,) = (await daybook.http.get(path, headers=ALL)).json()["movements"]
        (hidden,) = (await daybook.http.get(path, headers=FIGURES)).json()["movements"]
        log = await daybook.http.get("/api/v1/ledger/events", headers=FIGURES)

    assert shown == {**hidden, "comment": COMMENT}
    assert (hidden["comment"], hidden["feedback"]) == (None, "too_expensive")
    assert log.json()["events"][-1]["data"]["cancellation_comment"] is None
    assert log.json()["events"][-1]["data"]["cancellation_feedback"] == "too_expensive"
    written = all_files(data_dir)
    assert b"too_expensive" in written
    assert b"Too dear" not in written


async def test_after_an_erasure_the_comment_is_gone_and_the_reason_stays(daybook: Daybook) -> None:
    await starts(daybook, "1")
    await ends(daybook, "1", 10)
    before = await movements(daybook)
    state = daybook.state
    event = await make_erasure_event(state.ledger, "cus_1", None, None, daybook.clock())
    await erase(state.settings, state.ledger, event, daybook.clock)

    assert await movements(daybook) == [row | {"comment": None} for row in before]
    await verify_all(state.settings)  # raises at the first fault


async def test_an_older_ledger_says_why_once_it_is_retranslated(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(subscriptions, "_cancellation", lambda _payload: {})
        await starts(daybook, "1")
        await ends(daybook, "1", 10)
    assert [row["reason"] for row in await movements(daybook, kind="churn")] == [None]

    for changed in (1, 0):  # the second time nothing is left to do
        newer = Retranslator(daybook.state.ledger, daybook.clock, daybook.state.settings, apply=True)
        report = await newer.run(0, no_advance)
        assert report.changed == changed
    await daybook.catch_up()

    (row,) = await movements(daybook, kind="churn")
    assert {name: row[name] for name in GONE} | {"comment": row["comment"]} == GONE | {"comment": COMMENT}
