"""The reference figures, from signed bytes to what a read answers."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.demo.posts import stripe_posts
from tests.support.paths import FIXTURES
from tests.support.posted_books import DEMO
from tests.support.running import Clock, running
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

EXPECTED = FIXTURES / "books"


def expected(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((EXPECTED / f"{name}.expected.json").read_bytes())
    return document


def like(rows: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with only those fields that are stated."""
    return [{name: row[name] for name in wanted[0]} for row in rows]


async def test_november_2025_comes_out_to_the_cent(november: Path) -> None:
    wanted = expected("november_2025")

    async with running(november) as daybook:
        detail = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)

    summary = detail["summary"]
    assert {name: summary[name] for name in wanted if name in summary} == {
        name: wanted[name] for name in ("customers", "payments", "total_cents", "later_cents", "mrr_cents")
    }
    assert detail["weeks"] == wanted["weeks"]
    assert like(detail["days"], wanted["days"]) == wanted["days"]
    assert like(detail["top"], wanted["top"]) == wanted["top"]
    assert sum(row["amount_cents"] for row in detail["top"]) == wanted["top_total_cents"]
    assert detail["top_share"] == round(wanted["top_total_cents"] / wanted["total_cents"], 4)
    assert summary["schedule_total_cents"] == wanted["total_cents"] + wanted["later_cents"]
    assert summary["upcoming_cents"] == wanted["total_cents"]
    assert summary["collected_cents"] == summary["open_cents"] == summary["billed_cents"] == 0
    assert summary["book_customers"] == wanted["customers"]
    assert summary["book_mrr_cents"] == wanted["mrr_cents"]


async def test_novembers_parts_add_up_to_what_is_shown(november: Path) -> None:
    async with running(november) as daybook:
        detail = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
        mrr = await daybook.get("/api/v1/mrr", today="2025-11-30")

    total = detail["summary"]["total_cents"]
    for parts, amount in (("payments", "amount_cents"), ("days", "total_cents"), ("weeks", "total_cents")):
        assert sum(row[amount] for row in detail[parts]) == total
    assert sum(row["mrr_cents"] for row in detail["payments"]) == detail["summary"]["mrr_cents"]
    assert sum(row["mrr_cents"] for row in mrr["by_schedule"]) == mrr["mrr_cents"] == 6551595
    assert [row["date"] for row in detail["payments"]] == sorted(row["date"] for row in detail["payments"])
    assert all(len(row["causes"]) == 1 for row in detail["payments"])


async def test_with_52_twelfths_of_a_week_a_month_mrr_is_another_and_all_else_the_same(
    november: Path, tmp_path: Path
) -> None:
    wanted = expected("november_2025")
    data_dir = Path(shutil.copytree(november, tmp_path / "data"))

    async with running(data_dir, weeks_per_month="52/12") as daybook:
        await daybook.catch_up()
        detail = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)

    assert detail["summary"]["mrr_cents"] == wanted["mrr_cents_at_52_12"]
    assert detail["summary"]["total_cents"] == wanted["total_cents"]
    assert detail["weeks"] == wanted["weeks"]
    assert detail["meta"]["weeks_per_month"] == "13/3"


async def test_mx_merchants_contracts_come_out_to_the_cent(mx_contracts: Path) -> None:
    wanted = expected("mx_contracts")

    async with running(mx_contracts) as daybook:
        mrr = await daybook.get("/api/v1/mrr", today="2025-12-31")
        upcoming = await daybook.get("/api/v1/upcoming", from_="2025-11-13", to="2025-12-13")

    assert mrr["mrr_cents"] == wanted["mrr_cents"]
    assert mrr["active_contracts"] == wanted["active_recurring_contracts"]
    schedules = {row["schedule"].removeprefix("Weekly - "): row["contracts"] for row in mrr["by_schedule"]}
    assert schedules == wanted["schedules"]
    counts = mrr["weekly_count"], mrr["four_week_count"], mrr["ten_week_count"]
    assert counts == tuple(wanted["schedules"][f"{weeks}"] for weeks in ("1 Week", "4 Weeks", "10 Weeks"))
    coming = wanted["upcoming_2025-11-13_to_2025-12-13"]
    assert (upcoming["payments_count"], upcoming["total_cents"]) == (
        coming["payments"],
        coming["total_cents"],
    )


async def test_the_same_posts_once_more_change_no_figure(november: Path, tmp_path: Path) -> None:
    data_dir = Path(shutil.copytree(november, tmp_path / "data"))
    async with running(data_dir, Clock(datetime.now(UTC)), **DEMO) as daybook:
        before = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)

        for post in reversed(list(stripe_posts())):
            answer = await daybook.http.post(post.path, content=post.body, headers=post.headers)
            assert answer.json()["duplicate"] is True
        await daybook.catch_up()

        assert await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11) == before
