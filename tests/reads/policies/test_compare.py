"""Why two policies differ: over HTTP, by hand."""

import csv
import io
from typing import Any

import pytest

from service.web.openapi import description
from tests.reads.policies.scenario import CONTRACTS, ENDS, EXPECTED, off, tell
from tests.support.openapi import is_described, parameters_of
from tests.support.running import Daybook, running
from tests.support.senders import subscription
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

PATH = "/api/v1/mrr/compare"


def differing(answer: dict[str, Any]) -> dict[str, tuple[int, list[tuple[str, int]]]]:
    """The difference and the reasons of each customer's one contract, in the order listed."""
    found = {}
    for customer in answer["customers"]:
        (contract,) = customer["contracts"]
        assert contract["difference_cents"] == customer["difference_cents"]
        reasons = [(reason["rule"], reason["amount_cents"]) for reason in contract["reasons"]]
        found[customer["customer_id"].removeprefix("cust-")] = (customer["difference_cents"], reasons)
    return found


async def test_the_default_and_stripe_by_hand(daybook: Daybook) -> None:
    await tell(daybook)

    answer = await daybook.get(PATH)

    assert answer["policies"] == [
        {
            "policy": policy,
            "weeks_per_month": weeks,
            "mrr_cents": sum(EXPECTED[policy].values()),
            "active_contracts": count,
            "customers": count,
        }
        for policy, weeks, count in (("default", "4.33", 7), ("stripe", "13/3", 6))
    ]
    assert answer["difference_cents"] == -59_917
    assert differing(answer) == {
        "ending": (-70_000, [("churn", -70_000)]),
        "repeating": (10_000, [("discounts", 10_000)]),
        "weekly": (83, [("weeks_per_month", 83)]),
    }


async def test_the_default_and_chartmogul_by_hand_and_the_other_way_round(daybook: Daybook) -> None:
    await tell(daybook)

    there = await daybook.get(PATH, policies="default,chartmogul")
    back = await daybook.get(PATH, policies="chartmogul,default")

    assert differing(there) == {
        "paused": (30_000, [("paused", 30_000)]),
        "once": (-25_000, [("discounts", -25_000)]),
        "weekly": (83, [("weeks_per_month", 83)]),
    }
    assert differing(back) == {
        name: (-cents, [(rule, -amount) for rule, amount in reasons])
        for name, (cents, reasons) in differing(there).items()
    }


async def test_a_reason_says_what_each_policy_does(data_dir: Any, rulebook: Any) -> None:
    async with running(data_dir, rulebook=rulebook) as daybook:
        await tell(daybook)
        listed = [
            reason["text"]
            for policies in ("default,stripe", "default,chartmogul", "default,board")
            for customer in (await daybook.get(PATH, policies=policies))["customers"]
            for reason in customer["contracts"][0]["reasons"]
        ]

    assert listed == [
        "default counts until the end, set for 2025-12-05; stripe stops counting once an end is set",
        "default deducts repeating discounts; stripe deducts no discounts",
        "default takes 4.33 weeks a month; stripe takes 13/3 weeks a month",
        "default leaves out what has its collection paused; chartmogul counts what has its collection paused",
        "default deducts no discounts; chartmogul deducts once discounts",
        "default takes 4.33 weeks a month; chartmogul takes 13/3 weeks a month",
        "default deducts repeating discounts; board deducts no discounts",
        "default leaves out trialing; board counts trialing",
        "default takes 4.33 weeks a month; board takes 4 weeks a month",
        "default deducts forever discounts; board deducts no discounts",
    ]


async def test_a_contract_of_several_reasons_adds_up(daybook: Daybook) -> None:
    both = off(50, "repeating", ends_at="2026-02-10T00:00:00Z")
    plan = subscription("1", 10_000, "week", cancel_at=ENDS, next_bill_at=ENDS, **both)
    await daybook.record("subscription.recorded", "2025-11-10T10:00:00Z", **plan)
    await daybook.catch_up()

    answer = await daybook.get(PATH)

    # 10000 × 4.33 × ½, then without the discount, then not at all: no week is left to differ
    assert differing(answer) == {"1": (-21_650, [("discounts", 21_650), ("churn", -43_300)])}


async def test_only_contracts_that_differ_are_listed_and_the_customers_whole_mrr(daybook: Daybook) -> None:
    weekly = subscription("weekly", 24_900, "week")
    same = subscription("same", 10_000) | {"customer_id": "cust-weekly"}
    for data in (weekly, same):
        await daybook.record("subscription.recorded", "2025-11-10T10:00:00Z", **data)
    await daybook.catch_up()

    (customer,) = (await daybook.get(PATH))["customers"]

    assert [contract["contract_id"] for contract in customer["contracts"]] == ["sub-weekly"]
    assert (customer["first_mrr_cents"], customer["second_mrr_cents"]) == (117_817, 117_900)


async def test_customers_whose_contracts_cancel_out_come_last(daybook: Daybook) -> None:
    await tell(daybook)
    ends = off(50, "repeating", ends_at="2026-02-10T00:00:00Z")
    for data in (subscription("up", 2_000, **ends), subscription("down", 1_000, cancel_at=ENDS)):
        told = data | {"customer_id": "cust-even"}
        await daybook.record("subscription.recorded", "2025-11-10T10:00:00Z", **told)
    await daybook.catch_up()

    last = (await daybook.get(PATH))["customers"][-1]

    assert (last["customer_id"], last["difference_cents"]) == ("cust-even", 0)
    assert [contract["difference_cents"] for contract in last["contracts"]] == [-1_000, 1_000]


async def test_causes_are_the_events_that_made_each_side_what_it_is(daybook: Daybook) -> None:
    started = await daybook.record("subscription.recorded", "2025-11-01T10:00:00Z", **subscription("1", 500))
    ending = await daybook.record(
        "subscription.recorded", "2025-11-05T10:00:00Z", **subscription("1", 500, cancel_at=ENDS)
    )
    await daybook.record("customer.recorded", "2025-11-05T10:00:00Z", customer_id="cust-1", name="Avery")
    await daybook.catch_up()

    answer = await daybook.get(PATH)
    before = await daybook.get(PATH, today="2025-11-04")

    (customer,) = answer["customers"]
    assert customer["causes"] == customer["contracts"][0]["causes"] == sorted([started, ending])
    assert (customer["customer_name"], customer["processor"]) == ("Avery", "standard.acme")
    assert before["customers"] == []


async def test_pages_lead_through_every_customer(daybook: Daybook) -> None:
    await tell(daybook)
    whole = (await daybook.get(PATH))["customers"]

    pages, cursor = [], None
    while True:
        page = await daybook.get(PATH, limit=1, **({"cursor": cursor} if cursor else {}))
        pages += page["customers"]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert pages == whole
    assert len(pages) == 3


async def test_a_comparison_as_csv_holds_every_customer(daybook: Daybook) -> None:
    await tell(daybook)
    rows = (await daybook.get(PATH))["customers"]

    whole = await daybook.ask(PATH, format="csv")
    part = await daybook.ask(PATH, format="csv", limit=2)

    listed = list(csv.DictReader(io.StringIO(whole.text, newline="")))
    assert [row["customer_id"] for row in listed] == [row["customer_id"] for row in rows]
    assert [int(row["difference_cents"]) for row in listed] == [row["difference_cents"] for row in rows]
    assert "contracts" not in listed[0]
    assert (len(part.text.splitlines()), "next" in part.links) == (3, True)


async def test_a_comparison_answers_as_it_is_described(daybook: Daybook) -> None:
    empty = await daybook.get(PATH)
    await tell(daybook)

    for answer in (empty, await daybook.get(PATH), await daybook.get(PATH, limit=1)):
        assert is_described(answer, "Comparison")
    stated = parameters_of(description()["paths"][PATH]["get"])
    assert [parameter["name"] for parameter in stated][:3] == ["policies", "limit", "cursor"]
    assert stated[0]["schema"]["default"] == "default,stripe"


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"policies": "default"}, "policies"),
        ({"policies": "default,default"}, "policies"),
        ({"policies": "default,stripe,chartmogul"}, "policies"),
        ({"policies": "default,recurly"}, "policies"),
        ({"policies": "default,\x00"}, "policies"),
        ({"cursor": "bm90aGluZw=="}, "cursor"),
        ({"cursor": "!"}, "cursor"),
        ({"limit": 0}, "limit"),
        ({"policy": "stripe"}, "policy"),
    ],
)
async def test_an_invalid_comparison_is_400(daybook: Daybook, query: dict[str, Any], named: str) -> None:
    answer = await daybook.ask(PATH, **query)

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{named}:")


async def test_a_comparison_needs_a_key_and_waits_as_every_read(data_dir: Any) -> None:
    async with running(data_dir, api_keys="the-only-read-key") as daybook:
        assert (await daybook.ask(PATH)).status_code == 401
        key = {"X-API-Key": "the-only-read-key"}
        answer = await daybook.http.get(f"{PATH}?at_least=9&timeout_ms=0", headers=key)
        assert answer.status_code == 504


async def test_books_that_do_not_hold_the_same_events_are_not_compared(data_dir: Any, rulebook: Any) -> None:
    async with running(data_dir) as daybook:
        await tell(daybook)
    async with running(data_dir, rulebook=rulebook) as daybook:
        filling = await daybook.ask(PATH, policies="default,board")
        kept = await daybook.ask(PATH)
        await daybook.catch_up()
        filled = await daybook.ask(PATH, policies="default,board")

    # on PostgreSQL another rulebook has books of its own, which then hold nothing yet
    assert filling.status_code == 503 or filling.json()["customers"] == []
    assert (kept.status_code, filled.status_code) == (200, 200)
    assert set(CONTRACTS) >= set(differing(filled.json()))
