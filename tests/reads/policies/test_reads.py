"""What each policy counts, read back over HTTP."""

from pathlib import Path

import pytest

from tests.reads.policies.scenario import BOARD, EXPECTED, tell
from tests.support.running import Daybook, running
from tests.support.senders import subscription
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

RECORDED = "subscription.recorded"
KINDS = ("new", "reactivation", "expansion", "contraction", "churn")


@pytest.mark.parametrize("policy", EXPECTED)
async def test_every_policy_counts_as_by_hand(daybook: Daybook, policy: str) -> None:
    await tell(daybook)
    counted = [cents for cents in EXPECTED[policy].values() if cents]

    answer = await daybook.get("/api/v1/mrr", policy=policy)
    moved = await daybook.get(
        "/api/v1/mrr/movements", policy=policy, from_="2025-11", to="2025-11", detail="customers"
    )

    assert answer["policy"] == moved["policy"] == policy
    assert answer["mrr_cents"] == moved["periods"][0]["closing_cents"] == sum(counted)
    assert answer["customers"] == answer["active_contracts"] == len(counted)
    assert {row["customer_id"].removeprefix("cust-"): row["amount_cents"] for row in moved["movements"]} == {
        name: cents for name, cents in EXPECTED[policy].items() if cents
    }


async def test_the_totals_of_the_scenario_by_hand(daybook: Daybook) -> None:
    await tell(daybook)

    totals = {name: (await daybook.get("/api/v1/mrr", policy=name))["mrr_cents"] for name in EXPECTED}

    assert totals == {"default": 341_817, "stripe": 281_900, "chartmogul": 346_900}


async def test_an_answer_says_by_how_many_weeks_it_counts_and_meta_what_the_setting_is(
    daybook: Daybook,
) -> None:
    for policy, weeks in (("default", "4.33"), ("stripe", "13/3")):
        answer = await daybook.get("/api/v1/mrr", policy=policy)

        assert (answer["weeks_per_month"], answer["meta"]["weeks_per_month"]) == (weeks, "4.33")


async def test_without_a_policy_it_is_the_default(daybook: Daybook) -> None:
    await tell(daybook)

    for path in ("/api/v1/mrr", "/api/v1/mrr/movements", "/api/v1/metrics"):
        assert await daybook.get(path) == await daybook.get(path, policy="default")


@pytest.mark.parametrize("path", ["/api/v1/mrr", "/api/v1/mrr/movements", "/api/v1/metrics"])
async def test_an_unknown_policy_is_400_and_names_those_there_are(daybook: Daybook, path: str) -> None:
    answer = await daybook.ask(path, policy="recurly")

    assert answer.status_code == 400
    assert answer.json()["detail"] == "policy: of chartmogul, default, stripe"


async def test_no_policy_touches_another_read(daybook: Daybook) -> None:
    await tell(daybook)

    month = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)

    assert month["summary"]["book_mrr_cents"] == sum(EXPECTED["default"].values())
    assert (await daybook.ask("/api/v1/contracts", policy="stripe")).status_code == 400


async def test_an_operators_own_policy_counts_beside_the_presets(data_dir: Path, rulebook: Path) -> None:
    async with running(data_dir, rulebook=rulebook) as daybook:
        await tell(daybook)
        answer = await daybook.get("/api/v1/mrr", policy="board")
        preset = await daybook.get("/api/v1/mrr", policy="stripe")
        unknown = await daybook.ask("/api/v1/mrr", policy="recurly")

    assert (answer["mrr_cents"], answer["weeks_per_month"]) == (sum(BOARD.values()), "4")
    assert preset["mrr_cents"] == 281_900
    assert unknown.json()["detail"] == "policy: of board, chartmogul, default, stripe"


@pytest.mark.parametrize("policy", EXPECTED)
async def test_movements_add_up_under_every_policy(daybook: Daybook, policy: str) -> None:
    await tell(daybook)
    await daybook.record(RECORDED, "2025-12-03T10:00:00Z", **subscription("trial", 12_000))
    await daybook.record(RECORDED, "2025-12-09T10:00:00Z", **subscription("paused", 30_000))
    await daybook.record(RECORDED, "2026-01-15T10:00:00Z", **subscription("ending", 65_000))
    gone = subscription("plain", 10_000) | {"status": "canceled"}
    await daybook.record(RECORDED, "2026-01-20T10:00:00Z", **gone)
    await daybook.catch_up()

    asked = {"policy": policy, "from_": "2025-10", "to": "2026-03"}
    periods = (await daybook.get("/api/v1/mrr/movements", **asked))["periods"]
    metrics = (await daybook.get("/api/v1/metrics", **asked))["periods"]

    level = 0
    for period, measured in zip(periods, metrics, strict=True):
        assert period["opening_cents"] == level
        level += sum(period[f"{kind}_cents"] for kind in KINDS)
        assert period["closing_cents"] == level
        assert {name: measured[name] for name in period if name in measured} == {
            name: period[name] for name in period if name in measured
        }
        at_end = await daybook.get("/api/v1/mrr", policy=policy, today=f"{period['period']}-28")
        assert (at_end["mrr_cents"], at_end["customers"]) == (level, measured["closing_customers"])
        assert (at_end["arr_cents"], at_end["arpa_cents"]) == (
            measured["arr_cents"],
            measured["arpa_cents"],
        )
