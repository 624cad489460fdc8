"""Customers together: lists, shares, cohorts, and the dashboard that holds them all."""

import base64
import csv
import io
from collections import Counter
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.maintenance.erasure import erase, make_erasure_event
from service.reads.snapshots import precompute
from tests.support.posted_books import filled, pays, refunds
from tests.support.running import NOW, Clock, Daybook, running
from tests.support.stores import EACH_STORE, NewDataDir

STORES = EACH_STORE

ANALYTICS = "/api/payment/analytics"
TODAY = NOW.date()
PAST = date(2025, 9, 14)
LISTS = {
    "customers/top": "customers",
    "customers/at-risk": "customers",
    "cohorts": "cohorts",
    "distribution": "segments",
    "purchase-frequency": "frequencies",
    "dashboard": "monthly_trend",
}


def ago(days: int) -> str:
    return (TODAY - timedelta(days=days)).isoformat()


# Customer: days of the orders, and cents of each. Today is 2025-11-13.
ORDERS: dict[str, dict[str, int]] = {
    "whale": {"2025-01-10": 600_000, "2025-05-10": 500_000, "2025-11-01": 100_000},
    "high-60": {"2025-07-17": 60_000, ago(60): 60_000},
    "high-89": {ago(89): 100_000},
    "medium-59": {ago(59): 50_000},
    "medium-120": {ago(120): 50_000},
    "medium-121": {ago(121): 50_000},
    "Medium-121": {ago(121): 50_000},
    "low-new": {"2025-11-01": 500},
    "every-30": {"2025-06-01": 100, "2025-06-11": 100, "2025-07-31": 100},
    "every-30-and-a-half": {"2025-06-01": 100, "2025-06-11": 100, "2025-08-01": 100},
    "every-90": {"2025-02-01": 100, "2025-05-02": 100},
    "every-91": {"2025-02-01": 100, "2025-05-03": 100},
    "every-180": {"2024-11-20": 100, "2025-05-19": 100},
    "every-181": {"2024-11-20": 100, "2025-05-20": 100},
    "twice-a-day": {"2025-10-01": 9_000, "2025-10-02": 1_000},
}
# what a list of those at risk says besides
RISK = (
    *("mrr_cents", "ends_date", "churn_risk_score"),
    *("reason", "feedback", "comment", "reason_causes"),
)
REFUNDS = {"every-90": {"2025-08-02": 30, "2025-10-05": 7}}
SEGMENTS = {"whale": 1_000_000, "high_value": 100_000, "medium_value": 10_000, "low_value": 0}


async def post_orders(daybook: Daybook, until: date = TODAY) -> None:
    for who, orders in ORDERS.items():
        for day, cents in orders.items():
            if day <= until.isoformat():
                await pays(daybook, who, day, cents)
    for day, cents in REFUNDS["every-90"].items():
        if day <= until.isoformat():
            await refunds(daybook, day, cents, payment_id="pay-every-90-2025-02-01", customer_id="every-90")
    await pays(daybook, "elsewhere", "2025-03-01", 5000, currency="eur")
    await pays(daybook, None, "2025-03-01", 5000)


@pytest.fixture(scope="module")
def shop(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """These orders in the books."""
    return filled(new_data_dir(tmp_path_factory.mktemp("shop") / "data"), post_orders, NOW)


@pytest.fixture(scope="module")
def until_then(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those until the end of PAST, and no other."""

    async def fill(daybook: Daybook) -> None:
        await post_orders(daybook, PAST)

    return filled(new_data_dir(tmp_path_factory.mktemp("then") / "data"), fill, NOW)


async def listed(data_dir: Path, name: str, **query: Any) -> dict[str, Any]:
    async with running(data_dir) as daybook:
        return await daybook.get(f"{ANALYTICS}/{name}", **query)


def ids(answer: dict[str, Any]) -> list[str]:
    return [row["customer_id"] for row in answer["customers"]]


def known(today: date = TODAY) -> dict[str, dict[str, int]]:
    """The orders until the end of a day."""
    until = {
        who: {day: cents for day, cents in orders.items() if day <= today.isoformat()}
        for who, orders in ORDERS.items()
    }
    return {who: orders for who, orders in until.items() if orders}


# The largest, and other orders of all


def by(measure: str, who: str, today: date) -> Any:
    orders = known(today)[who]
    back = sum(cents for day, cents in REFUNDS.get(who, {}).items() if day <= today.isoformat())
    return {
        "revenue": sum(orders.values()),
        "net_revenue": sum(orders.values()) - back,
        "orders": len(orders),
        "first_purchase": min(orders),
        "last_purchase": max(orders),
    }[measure]


@pytest.mark.parametrize("today", [TODAY, PAST], ids=str)
@pytest.mark.parametrize("measure", ["revenue", "net_revenue", "orders", "first_purchase", "last_purchase"])
async def test_the_top_is_by_its_measure_then_last_purchase_then_id(
    shop: Path, measure: str, today: date
) -> None:
    everybody = sorted(known(today), key=lambda who: (by("last_purchase", who, today), who))
    for order in ("desc", "asc"):
        answer = await listed(shop, "customers/top", sort=measure, order=order, limit=1000, today=today)
        wanted = sorted(everybody, key=lambda w: by(measure, w, today), reverse=order == "desc")
        assert ids(answer) == wanted


async def test_the_top_is_by_revenue_unless_told_otherwise(shop: Path) -> None:
    answer = await listed(shop, "customers/top")

    assert ids(answer) == [
        "whale",
        "high-60",
        "high-89",
        "Medium-121",  # in the order of bytes
        "medium-121",
        "medium-120",
        "medium-59",
        "twice-a-day",
        "low-new",
        "every-30",
    ]
    assert answer["next_cursor"]
    first = answer["customers"][0]
    del first["causes"]
    assert first == {
        "customer_id": "whale",
        "customer_name": None,
        "customer_email": None,
        "total_revenue_cents": 1_200_000,
        "total_orders": 3,
        "avg_order_value_cents": 400_000,
        "total_refunds_cents": 0,
        "total_disputes_cents": 0,
        "net_revenue_cents": 1_200_000,
        "first_purchase_date": "2025-01-10",
        "last_purchase_date": "2025-11-01",
        "customer_lifespan_days": 295,
        "avg_days_between_purchases": 147.5,
        "days_since_last_purchase": 12,
        "customer_segment": "whale",
        "activity_status": "highly_active",
        "lifecycle_stage": "active",
        "processor": "standard.acme",
        "account": "",
    }


@pytest.mark.parametrize("today", [TODAY, PAST], ids=str)
@pytest.mark.parametrize("order", ["desc", "asc"])
@pytest.mark.parametrize("measure", ["revenue", "net_revenue", "orders", "first_purchase", "last_purchase"])
async def test_pages_hold_each_customer_once(shop: Path, measure: str, order: str, today: date) -> None:
    path, asked = f"{ANALYTICS}/customers/top", {"sort": measure, "order": order, "today": str(today)}
    async with running(shop) as daybook:
        whole = await daybook.get(path, limit=1000, **asked)
        found: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await daybook.ask(path, limit=4, **asked, **cursor)
            page = answer.json()
            found += page["customers"]
            assert ("link" in answer.headers) == bool(page["next_cursor"])
            if not page["next_cursor"]:
                break
            assert len(page["customers"]) == 4
            cursor = {"cursor": page["next_cursor"]}
            following = answer.links["next"]["url"]
        last = (await daybook.http.get(following)).json()
        file = await daybook.ask(path, format="csv", **asked)

    assert found == whole["customers"]
    assert last["customers"] == page["customers"]
    rows = list(csv.DictReader(io.StringIO(file.text, newline="")))
    assert [row["customer_id"] for row in rows] == ids(whole)
    assert [row["total_revenue_cents"] for row in rows] == [
        str(row["total_revenue_cents"]) for row in whole["customers"]
    ]


def as_cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize("name", ["customers/top", "customers/at-risk"])
@pytest.mark.parametrize(
    "text",
    [
        "whale",
        "[]",
        "{}",
        "null",
        "[5]",
        '[5,"2025-01-01","a","b"]',
        '["5","2025-01-01","a","b","c"]',
        '[null,"2025-01-01","a","b","c"]',
        '[5,5,"a","b","c"]',
        '[5,"2025-01-01","a\\u0000","b","c"]',
        '[5,"2025-01-01","\\ud800","b","c"]',
        '[true,"2025-01-01","a","b","c"]',
        '[1e400,"2025-01-01","a","b","c"]',
        f'[{10**30},"2025-01-01","a","b","c"]',
    ],
)
async def test_an_invalid_cursor_is_400(shop: Path, name: str, text: str) -> None:
    async with running(shop) as daybook:
        answer = await daybook.ask(f"{ANALYTICS}/{name}", cursor=as_cursor(text))

    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"].startswith("cursor")


async def test_a_cursor_of_another_order_is_400(shop: Path) -> None:
    path = f"{ANALYTICS}/customers/top"
    async with running(shop) as daybook:
        cursors = {
            sort: (await daybook.get(path, sort=sort, limit=1))["next_cursor"]
            for sort in ("revenue", "last_purchase")
        }
        for sort, other in (("revenue", "last_purchase"), ("last_purchase", "revenue")):
            answer = await daybook.ask(path, sort=sort, cursor=cursors[other])
            assert answer.status_code == 400, answer.text


# About to go


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        # of equal revenue, whose last purchase is longest ago comes first
        ({}, ["high-60", "high-89", "medium-120", "every-30", "every-30-and-a-half"]),
        ({"segments": "high_value"}, ["high-60", "high-89"]),
        ({"segments": "medium_value,high_value"}, ["high-60", "high-89", "medium-120"]),
        ({"segments": "whale"}, []),
        (
            {"stage": "churned"},
            ["Medium-121", "medium-121", "every-90", "every-91", "every-180", "every-181"],
        ),
        ({"stage": "churned", "segments": "medium_value"}, ["Medium-121", "medium-121"]),
        ({"stage": "churned", "segments": "whale,high_value"}, []),
        ({"today": ago(1), "segments": "high_value"}, ["high-89"]),
        ({"today": ago(-31), "segments": "high_value"}, ["high-60", "high-89"]),
        ({"today": ago(-32), "segments": "high_value"}, ["high-60"]),
        ({"limit": "1"}, ["high-60"]),
    ],
)
async def test_at_risk_are_those_whose_last_purchase_is_60_to_120_days_ago(
    shop: Path, query: dict[str, str], wanted: list[str]
) -> None:
    answer = await listed(shop, "customers/at-risk", **query)

    assert ids(answer) == wanted
    assert {row["lifecycle_stage"] for row in answer["customers"]} <= {query.get("stage", "at_risk")}
    assert (answer["by"], answer["stage"]) == ("lifecycle", query.get("stage", "at_risk"))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, ["Medium-121", "medium-121", "medium-120", "every-30", "every-30-and-a-half"]),
        ({"segments": "high_value"}, []),  # 89 days
        ({"segments": "high_value", "today": ago(-1)}, []),  # 90 days
        ({"segments": "high_value", "today": ago(-2)}, ["high-89"]),  # 91 days
    ],
)
async def test_by_activity_those_are_at_risk_whose_last_purchase_is_over_90_days_ago(
    shop: Path, query: dict[str, str], wanted: list[str]
) -> None:
    answer = await listed(shop, "customers/at-risk", by="activity", **query)

    assert ids(answer)[: len(wanted) or None] == wanted
    assert {row["activity_status"] for row in answer["customers"]} <= {"at_risk"}
    assert (answer["by"], answer["stage"]) == ("activity", "at_risk")


async def test_by_activity_nobody_has_churned(shop: Path) -> None:
    async with running(shop) as daybook:
        answer = await daybook.ask(f"{ANALYTICS}/customers/at-risk", by="activity", stage="churned")

    assert answer.status_code == 400
    assert answer.json()["detail"] == "stage: churned is a lifecycle stage; there is none such by activity"


async def test_a_list_says_how_long_and_how_often_a_customer_buys(shop: Path) -> None:
    rows = (await listed(shop, "customers/top", limit=1000))["customers"]
    at_risk = (await listed(shop, "customers/at-risk"))["customers"]

    for row in rows:
        days = sorted(map(date.fromisoformat, ORDERS[row["customer_id"]]))
        lifespan, gaps = (days[-1] - days[0]).days, len(days) - 1
        assert row["customer_lifespan_days"] == lifespan
        assert row["avg_days_between_purchases"] == (round(lifespan / gaps, 2) if gaps else None)
    assert at_risk[0].items() >= next(row for row in rows if row["customer_id"] == "high-60").items()


async def test_an_address_is_told_wherever_a_name_is_until_it_is_erased(daybook: Daybook) -> None:
    await pays(daybook, "cus", "2025-08-20", 5000)
    at = "2025-08-20T00:00:00Z"
    await daybook.record("customer.recorded", at, customer_id="cus", name="Avery", email="a@example.com")
    await daybook.record("customer.recorded", "2025-08-21T00:00:00Z", customer_id="cus", name="Avery")
    await daybook.catch_up()

    async def told() -> list[tuple[str | None, str | None]]:
        reads = ("customers/top", "customers/at-risk", "customers/cus/revenue", "customers/cus/forecast")
        answers = [await daybook.get(f"{ANALYTICS}/{read}") for read in reads]
        rows = [*(answer["customers"][0] for answer in answers[:2]), *answers[2:]]
        return [(row["customer_name"], row["customer_email"]) for row in rows]

    assert await told() == [("Avery", "a@example.com")] * 4
    state = daybook.state
    event = await make_erasure_event(state.ledger, "cus", None, None, daybook.clock())
    await erase(state.settings, state.ledger, event, daybook.clock)
    await daybook.catch_up()
    assert await told() == [(None, None)] * 4


async def test_a_page_of_those_at_risk_leads_to_the_next(shop: Path) -> None:
    first = await listed(shop, "customers/at-risk", limit=2)
    second = await listed(shop, "customers/at-risk", limit=2, cursor=first["next_cursor"])
    third = await listed(shop, "customers/at-risk", limit=2, cursor=second["next_cursor"])

    assert [*ids(first), *ids(second), *ids(third)] == ids(await listed(shop, "customers/at-risk"))
    assert third["next_cursor"] is None


# Shares


@pytest.mark.parametrize("today", [TODAY, PAST], ids=str)
async def test_the_distribution_is_of_all_customers(shop: Path, today: date) -> None:
    answer = await listed(shop, "distribution", today=today)

    worth = {who: sum(orders.values()) for who, orders in known(today).items()}
    above = [2**62, *SEGMENTS.values()]
    assert [(row["segment"], row["customers"], row["revenue_cents"]) for row in answer["segments"]] == [
        (name, len(of), sum(of))
        for (name, least), most in zip(SEGMENTS.items(), above, strict=False)
        for of in [[cents for cents in worth.values() if least <= cents < most]]
    ]
    assert answer["customers"] == len(worth)
    assert answer["revenue_cents"] == sum(worth.values())
    for row in answer["segments"]:
        assert row["customer_share"] == round(row["customers"] / len(worth), 4)
        assert row["revenue_share"] == round(row["revenue_cents"] / sum(worth.values()), 4)
        assert row["percentage_of_total"] == round(100 * row["revenue_cents"] / sum(worth.values()), 2)
        average = round(row["revenue_cents"] / row["customers"]) if row["customers"] else None
        assert row["avg_revenue_per_customer_cents"] == average


async def test_of_nobody_there_is_no_average_and_no_percentage(shop: Path) -> None:
    answer = await listed(shop, "distribution", account="nobody")
    frequencies = (await listed(shop, "purchase-frequency", account="nobody"))["frequencies"]

    assert {row["avg_revenue_per_customer_cents"] for row in answer["segments"]} == {None}
    assert {row["percentage_of_total"] for row in answer["segments"]} == {None}
    assert {row["avg_customer_value_cents"] for row in frequencies} == {None}


async def test_a_fourth_limit_makes_a_fifth_segment(shop: Path) -> None:
    limits = tuple(map(Decimal, ("10000", "1000", "100", "2")))
    async with running(shop, Clock(NOW), segment_limits=limits) as daybook:
        distribution = await daybook.get(f"{ANALYTICS}/distribution")
        everybody = (await daybook.get(f"{ANALYTICS}/customers/top", limit=1000))["customers"]
        quiet = await daybook.get(f"{ANALYTICS}/customers/at-risk", stage="churned", segments="minimal_value")

    worth = {who: sum(orders.values()) for who, orders in ORDERS.items()}
    tiny = {who for who, cents in worth.items() if cents < 200}
    assert tiny == set()
    assert [row["segment"] for row in distribution["segments"]] == [*SEGMENTS, "minimal_value"]
    assert distribution["customers"] == len(everybody)
    assert distribution["segments"][-1]["customers"] == 0
    assert quiet["customers"] == []


@pytest.mark.parametrize(("least", "segment"), [("2", "low_value"), ("2.01", "minimal_value")])
async def test_the_fifth_segment_begins_below_its_limit(shop: Path, least: str, segment: str) -> None:
    limits = tuple(map(Decimal, ("10000", "1000", "100", least)))
    async with running(shop, Clock(NOW), segment_limits=limits) as daybook:
        found = await daybook.get(f"{ANALYTICS}/customers/every-90/revenue", include_predictions="false")
        listed_ = await daybook.get(f"{ANALYTICS}/customers/top", limit=1000)
        churned = await daybook.get(f"{ANALYTICS}/customers/at-risk", stage="churned", segments=segment)

    assert found["customer_segment"] == segment
    assert "every-90" in ids(churned)
    rows = {row["customer_id"]: row["customer_segment"] for row in listed_["customers"]}
    assert rows["every-90"] == segment


async def test_without_a_fourth_limit_the_fifth_segment_is_empty(shop: Path) -> None:
    answer = await listed(shop, "customers/at-risk", segments="minimal_value")

    assert answer["customers"] == []


async def test_frequency_goes_by_the_average_days_between_purchases(shop: Path) -> None:
    answer = await listed(shop, "purchase-frequency")

    assert [(row["frequency"], row["customers"], row["revenue_cents"]) for row in answer["frequencies"]] == [
        ("Monthly", 3, 10_600),  # 1, 30 and 30.5 days
        ("Quarterly", 3, 120_400),  # 59, 90 and 91 days
        ("Bi-Annual", 3, 1_200_400),  # 147.5, 180 and 181 days
        ("Annual+", 0, 0),
    ]
    assert answer["customers"] == 9
    assert answer["single_purchase_customers"] == len(ORDERS) - 9
    assert sum(row["customer_share"] for row in answer["frequencies"]) == pytest.approx(1, abs=0.001)
    averages = [row["avg_customer_value_cents"] for row in answer["frequencies"]]
    assert averages == [3_533, 40_133, 400_133, None]


@pytest.mark.parametrize(
    ("limits", "today", "wanted"),
    [
        ((31, 92, 184), TODAY, {31: "Monthly", 32: "Quarterly", 92: "Quarterly", 93: "Bi-Annual"}),
        ((31, 92, 184), TODAY - timedelta(1), {184: "Bi-Annual", 185: "Annual+"}),
        ((30, 90, 180), TODAY, {30: "Monthly", 31: "Quarterly", 90: "Quarterly", 92: "Bi-Annual"}),
        ((30, 90, 180), TODAY - timedelta(1), {180: "Bi-Annual", 184: "Annual+"}),
    ],
)
async def test_a_frequency_ends_with_its_limit(
    data_dir: Path, limits: tuple[int, ...], today: date, wanted: dict[int, str]
) -> None:
    async with running(data_dir, Clock(NOW), frequency_limits=limits) as daybook:
        for days in wanted:
            for day in (0, days):
                await pays(daybook, f"every-{days}", str(date(2025, 1, 1) + timedelta(day)), 100)
        await pays(daybook, "later", TODAY.isoformat(), 100)  # so that an earlier list is counted anew
        await daybook.catch_up()
        answer = await daybook.get(f"{ANALYTICS}/purchase-frequency", today=today)

    counted = {row["frequency"]: row["customers"] for row in answer["frequencies"] if row["customers"]}
    assert counted == Counter(wanted.values())


# Cohorts


async def test_cohorts_say_who_came_back(shop: Path) -> None:
    answer = await listed(shop, "cohorts", from_="2025-01", to="2025-12")

    cohorts = {row["cohort"]: row for row in answer["cohorts"]}
    assert list(cohorts) == [f"2025-{month:02d}" for month in range(1, 13)]
    february = cohorts["2025-02"]
    assert (february["customers"], february["orders"], february["revenue_cents"]) == (2, 4, 400)
    assert february["avg_revenue_cents"] == 200
    assert [(row["months_since"], row["customers"], row["rate"]) for row in february["retention"]] == [
        (0, 2, 1.0),
        (1, 0, 0.0),
        (2, 0, 0.0),
        (3, 2, 1.0),
        *((month, 0, 0.0) for month in range(4, 10)),
    ]
    june = cohorts["2025-06"]
    assert (june["customers"], june["orders"]) == (2, 6)
    assert [(row["month"], row["customers"], row["rate"]) for row in june["retention"]] == [
        ("2025-06", 2, 1.0),
        ("2025-07", 1, 0.5),
        ("2025-08", 1, 0.5),
        ("2025-09", 0, 0.0),
        ("2025-10", 0, 0.0),
        ("2025-11", 0, 0.0),
    ]
    assert cohorts["2025-12"] == {
        "cohort": "2025-12",
        "customers": 0,
        "orders": 0,
        "revenue_cents": 0,
        "avg_revenue_cents": None,
        "retention_rates": [],
        "retention": [],
    }


@pytest.mark.parametrize("today", [TODAY, PAST], ids=str)
async def test_cohorts_are_a_recount_of_the_orders(shop: Path, today: date) -> None:
    answer = await listed(shop, "cohorts", from_="2024-01", to="2025-12", today=today)

    for row in answer["cohorts"]:
        of = [orders for orders in known(today).values() if min(orders)[:7] == row["cohort"]]
        assert row["customers"] == len(of)
        assert row["orders"] == sum(map(len, of))
        assert row["revenue_cents"] == sum(sum(orders.values()) for orders in of)
        assert row["retention"] == [
            {"month": m["month"], "months_since": i, "customers": n, "rate": round(n / len(of), 4)}
            for i, m in enumerate(row["retention"])
            for n in [sum(any(day[:7] == m["month"] for day in orders) for orders in of)]
        ]
        assert row["retention_rates"] == [m["rate"] for m in row["retention"]]
        if of:
            assert row["retention"][-1]["month"] == today.isoformat()[:7]
    assert sum(row["customers"] for row in answer["cohorts"]) == len(known(today))


async def test_a_far_today_lists_ten_years_of_a_cohort_at_most(shop: Path) -> None:
    answer = await listed(shop, "cohorts", from_="2025-01", to="2025-12", today="2999-12-31")

    assert {len(row["retention"]) for row in answer["cohorts"]} == {0, 120}


async def test_who_only_got_something_back_is_in_no_list(daybook: Daybook) -> None:
    await refunds(daybook, "2025-10-01", 30, payment_id="pay-unknown", customer_id="only-back")
    await daybook.catch_up()

    frequencies = await daybook.get(f"{ANALYTICS}/purchase-frequency")
    assert (frequencies["customers"], frequencies["single_purchase_customers"]) == (0, 0)
    assert (await daybook.get(f"{ANALYTICS}/distribution"))["customers"] == 0
    assert (await daybook.get(f"{ANALYTICS}/customers/top"))["customers"] == []


# The dashboard


@pytest.mark.parametrize("today", [TODAY, PAST], ids=str)
async def test_the_dashboard_adds_up(shop: Path, today: date) -> None:
    async with running(shop) as daybook:

        async def get(name: str, **query: Any) -> dict[str, Any]:
            return await daybook.get(f"{ANALYTICS}/{name}", today=today, **query)

        dashboard = await get("dashboard")
        distribution = await get("distribution")
        top = await get("customers/top", limit=5)
        at_risk = await get("customers/at-risk", limit=1000)

    orders = known(today)
    worth = [sum(of.values()) for of in orders.values()]
    assert dashboard["customers"] == len(worth)
    assert dashboard["total_customer_value_cents"] == sum(worth) == distribution["revenue_cents"]
    assert dashboard["average_customer_value_cents"] == round(sum(worth) / len(worth))
    assert dashboard["top_customer_value_cents"] == max(worth)
    assert dashboard["top_customers"] == top["customers"]
    assert dashboard["distribution"] == distribution["segments"]
    assert sum(row["revenue_cents"] for row in dashboard["distribution"]) == sum(worth)
    assert dashboard["at_risk"] == {
        "customers": len(at_risk["customers"]),
        "revenue_cents": sum(row["total_revenue_cents"] for row in at_risk["customers"]),
        "top_customers": [
            {name: value for name, value in row.items() if name not in RISK}
            for row in at_risk["customers"][:5]
        ],
    }
    trend = {row["month"]: row for row in dashboard["monthly_trend"]}
    assert len(trend) == 12
    assert max(trend) == today.isoformat()[:7]
    assert all(a < b for a, b in pairwise(trend))
    for month, row in trend.items():
        days = [
            (who, day, cents) for who, of in orders.items() for day, cents in of.items() if day[:7] == month
        ]
        assert row == {
            "month": month,
            "revenue_cents": sum(cents for _, _, cents in days),
            "orders": len(days),
            "customers": len({who for who, _, _ in days}),
            "new_customers": sum(min(of)[:7] == month for of in orders.values()),
        }


async def test_growth_is_of_the_last_whole_month(shop: Path) -> None:
    dashboard = await listed(shop, "dashboard")
    before = await listed(shop, "dashboard", today="2025-01-31")

    assert dashboard["growth_month"] == "2025-10"
    assert dashboard["growth_rate"] == round((10_000 - 110_000) / 110_000, 4)
    assert (before["growth_month"], before["growth_rate"]) == ("2024-12", -1.0)
    assert (await listed(shop, "dashboard", today="2024-12-31"))["growth_rate"] is None


@pytest.mark.parametrize(
    ("today", "customers", "revenue"),
    [
        ("2025-11-13", 2 / 1 - 1, 100_500 / 10_000 - 1),  # 1 to 13 November, and 1 to 13 October
        ("2025-11-01", 1.0, 100_500 / 9_000 - 1),  # that day, and 1 October
        ("2025-10-31", 1 / 2 - 1, 10_000 / 110_000 - 1),  # October, and all of September, which is shorter
        ("2025-06-10", 2 / 3 - 1, 200 / 500_200 - 1),  # one of them on 10 May
        ("2025-06-09", 2 / 2 - 1, 200 / 200 - 1),
        ("2025-04-10", None, None),  # in March, nobody but who has no id
    ],
)
async def test_growth_to_date_is_against_the_same_days_of_the_month_before(
    shop: Path, today: str, customers: float | None, revenue: float | None
) -> None:
    dashboard = await listed(shop, "dashboard", today=today)

    for name, rate in (("customer_growth_rate", customers), ("revenue_growth_rate", revenue)):
        assert dashboard[name] == (None if rate is None else round(rate, 4))


async def test_one_customer_before_and_ten_now_are_a_growth_of_nine(daybook: Daybook) -> None:
    for day, number in [("2025-10-05", 0), *(("2025-11-05", number) for number in range(10))]:
        await pays(daybook, f"cus-{number}", day, 5000)
    await pays(daybook, "cus-0", "2025-11-06", 5000)  # a customer who bought twice is one
    await pays(daybook, "cus-0", "2025-10-14", 5000)  # later than the 13th
    await pays(daybook, None, "2025-11-06", 5000)
    await daybook.catch_up()

    dashboard = await daybook.get(f"{ANALYTICS}/dashboard")

    assert dashboard["customer_growth_rate"] == 9.0
    assert dashboard["revenue_growth_rate"] == 10.0


# Of the past


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_of_the_past_is_what_it_was_then(shop: Path, until_then: Path, name: str) -> None:
    asked = {"today": PAST.isoformat()} | ({"limit": 1000} if name.startswith("customers/") else {})
    now, then = await listed(shop, name, **asked), await listed(until_then, name, **asked)

    assert without_messages(now) == without_messages(then)


def without_messages(value: Any) -> Any:
    """An answer without what only says which messages it came from."""
    if isinstance(value, list):
        return [without_messages(part) for part in value]
    if isinstance(value, dict):
        assert value.get("causes") != []
        return {key: without_messages(part) for key, part in value.items() if key not in ("causes", "meta")}
    return value


@pytest.mark.parametrize("name", LISTS)
async def test_before_anything_a_list_is_empty(shop: Path, name: str) -> None:
    answer = await listed(shop, name, today="2020-01-31")

    if name.startswith("customers/"):
        assert answer["customers"] == []
    elif name == "cohorts":
        assert {row["customers"] for row in answer["cohorts"]} == {0}
    else:
        assert answer["customers"] == 0
        assert {row.get("customers") for row in answer[LISTS[name]]} == {0}


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_left_ready_is_the_one_that_would_be_made(shop: Path, name: str) -> None:
    async with running(shop) as daybook:
        made = await daybook.get(f"{ANALYTICS}/{name}")
        await precompute(daybook.state.store, TODAY, daybook.state.options)
        assert await daybook.get(f"{ANALYTICS}/{name}") == made


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_is_of_one_currency_and_account(shop: Path, name: str) -> None:
    euros = await listed(shop, name, currency="EUR")
    nobody = await listed(shop, name, account="nobody")

    assert euros["currency"] == "eur"
    if name == "customers/top":
        assert ids(euros) == ["elsewhere"]
        assert nobody["customers"] == []
    if name == "distribution":
        assert (euros["customers"], euros["revenue_cents"]) == (1, 5000)
        assert (nobody["customers"], nobody["revenue_cents"]) == (0, 0)
