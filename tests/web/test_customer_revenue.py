"""One customer's revenue: the documented example, from signed Stripe webhooks to what the read answers."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.posted_books import filled
from tests.support.running import Clock, Daybook, running
from tests.support.senders import STRIPE, stripe_charge, stripe_event, stripe_invoice, stripe_refund
from tests.support.stores import EACH_STORE, NewDataDir

STORES = EACH_STORE

NOW = datetime(2023, 12, 15, 10, 30, tzinfo=UTC)
PATH = "/api/payment/analytics/customers/user_123/revenue"
PLAN = "premium_plan"
FIELDS = (
    "success customer_id period revenue_summary monthly_breakdown product_breakdown predictions "
    "customer_segment activity_status lifecycle_stage meta"
).split()
SUMMARY = {
    "total_revenue_cents": 125000,
    "total_orders": 10,
    "avg_order_value_cents": 12500,
    "first_purchase_date": "2023-01-15",
    "last_purchase_date": "2023-12-10",
    "customer_lifespan_days": 329,
    "purchase_frequency_days": 33,
    "avg_days_between_purchases": 36.56,
    "total_refunds_cents": 2500,
    "net_revenue_cents": 122500,
}
ORDERS = {
    "2023-01-15": 10000,
    "2023-01-20": 5000,
    "2023-03-02": 10000,
    "2023-04-11": 15000,
    "2023-06-14": 10000,
    "2023-06-15": 20000,
    "2023-07-30": 10000,
    "2023-09-09": 10000,
    "2023-11-01": 25000,
    "2023-12-10": 10000,
}


def at(day: str) -> datetime:
    return datetime.fromisoformat(f"{day}T12:00:00Z")


def basil_line(cents: int, product: Any = PLAN) -> dict[str, Any]:
    """A line as it is from 2025-03-31.basil on; the product's id, or the product in full."""
    details = {"price": "price_premium", "product": product}
    return {"amount": cents, "pricing": {"type": "price_details", "price_details": details}}


def acacia_line(cents: int) -> dict[str, Any]:
    """A line as it was until 2025-02."""
    return {"amount": cents, "price": {"id": "price_premium", "product": PLAN, "nickname": "monthly"}}


def webhooks() -> list[dict[str, Any]]:
    """A year of user_123, in several shapes; what one fact is told by twice counts once."""
    events: list[tuple[str, str, dict[str, Any]]] = []

    def tell(kind: str, day: str, thing: dict[str, Any]) -> None:
        events.append((kind, day, thing))

    def invoice(day: str, line: dict[str, Any], **more: Any) -> None:
        key, cents = day.replace("-", ""), ORDERS[day]
        thing = stripe_invoice(key, cents, at(day), [line], customer="user_123", **more)
        tell("invoice.paid", day, thing)

    def charge(key: str, day: str, cents: int, **more: Any) -> dict[str, Any]:
        return stripe_charge(key, cents, at(day), customer="user_123", **more)

    tell("product.created", "2023-01-01", {"id": PLAN, "object": "product", "name": "Premium"})
    tell("product.updated", "2023-02-01", {"id": PLAN, "object": "product", "name": "Premium Monthly"})
    # the plan's six invoices: both families, a product in full, and paid twice over in words
    invoice("2023-01-15", basil_line(10000))
    invoice("2023-03-02", acacia_line(10000), charge="ch_march", subscription="sub_1")
    tell("invoice.payment_succeeded", "2023-03-02", events[-1][2])
    tell("charge.succeeded", "2023-03-02", charge("march", "2023-03-02", 10000, invoice="in_20230302"))
    invoice("2023-06-14", basil_line(10000, {"id": PLAN, "object": "product", "name": "Premium (old)"}))
    tell(
        "invoice_payment.paid",
        "2023-06-14",
        {"id": "inpay_1", "invoice": "in_20230614", "payment": {"payment_intent": "pi_june"}},
    )
    tell("charge.succeeded", "2023-06-14", charge("june", "2023-06-14", 10000, payment_intent="pi_june"))
    # seven tenths and three tenths of what is billed, less a discount
    invoice("2023-07-30", {**basil_line(7000)})
    events[-1][2]["lines"]["data"].append(basil_line(5000))
    invoice("2023-09-09", basil_line(10000))
    invoice("2023-12-10", basil_line(10000))
    # an invoice of another product, whose name only the line's price tells
    invoice(
        "2023-06-15", {"amount": 20000, "price": {"id": "price_2", "product": "hours", "nickname": "Hours"}}
    )
    # payments that belong to no invoice
    tell("charge.succeeded", "2023-01-20", charge("january", "2023-01-20", 5000, invoice=None))
    intent = {"id": "pi_april", "object": "payment_intent", "customer": "user_123", "currency": "usd"}
    tell("payment_intent.succeeded", "2023-04-11", {**intent, "amount": 15000, "amount_received": 15000})
    tell("charge.succeeded", "2023-04-11", charge("april", "2023-04-11", 15000, payment_intent="pi_april"))
    tell("charge.succeeded", "2023-11-01", charge("november", "2023-11-01", 25000))
    # and money back, told by the refund and by its charge
    tell(
        "refund.created", "2023-05-05", stripe_refund("1", 2500, at("2023-05-05"), payment_intent="pi_april")
    )
    after = charge("april", "2023-04-11", 15000, payment_intent="pi_april", amount_refunded=2500)
    tell("charge.refunded", "2023-05-05", after)
    return [
        stripe_event(kind, thing, event_id=f"evt_{number}", created=int(at(day).timestamp()))
        for number, (kind, day, thing) in enumerate(events)
    ]


async def post_all(daybook: Daybook) -> None:
    for webhook in webhooks():
        assert (await daybook.post(STRIPE, webhook)).json()["duplicate"] is False


@pytest.fixture(scope="module")
def year(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A year of user_123 in the books."""
    return filled(new_data_dir(tmp_path_factory.mktemp("year") / "data"), post_all, NOW)


async def asked(data_dir: Path, **query: Any) -> dict[str, Any]:
    async with running(data_dir, Clock(NOW)) as daybook:
        return await daybook.get(PATH, **query)


async def test_the_documented_example_comes_out_to_the_cent(year: Path) -> None:
    answer = await asked(year, breakdown="monthly,by_product")

    assert [name for name in answer if name in FIELDS] == FIELDS
    summary = answer["revenue_summary"]
    assert {name: summary[name] for name in summary if name in SUMMARY} == SUMMARY
    assert [name for name in summary if name in SUMMARY] == list(SUMMARY)
    assert {name: answer[name] for name in ("success", "customer_id", "period")} == {
        "success": True,
        "customer_id": "user_123",
        "period": "all_time",
    }
    standing = ("customer_segment", "activity_status", "lifecycle_stage")
    assert tuple(answer[name] for name in standing) == ("high_value", "highly_active", "active")
    assert answer["meta"]["calculation_date"] == "2023-12-15T10:30:00Z"
    assert answer["meta"]["data_freshness"] == "real_time"
    assert list(answer["predictions"])[:5] == [
        "estimated_ltv_cents",
        "next_purchase_probability",
        "next_purchase_predicted_date",
        "churn_risk_score",
        "recommended_actions",
    ]


async def test_a_month_without_an_order_is_listed_with_zeros(year: Path) -> None:
    months = (await asked(year))["monthly_breakdown"]

    assert [row["month"] for row in months] == [f"2023-{month:02d}" for month in range(1, 13)]
    assert months[0] == {
        "month": "2023-01",
        "revenue_cents": 15000,
        "orders": 2,
        "avg_order_value_cents": 7500,
    }
    assert list(months[0]) == ["month", "revenue_cents", "orders", "avg_order_value_cents"]
    assert [row["revenue_cents"] for row in months] == [
        sum(cents for day, cents in ORDERS.items() if day.startswith(row["month"])) for row in months
    ]
    assert months[1] == {"month": "2023-02", "revenue_cents": 0, "orders": 0, "avg_order_value_cents": 0}


async def test_products_share_what_was_paid(year: Path) -> None:
    products = (await asked(year))["product_breakdown"]

    assert [tuple(row.values()) for row in products] == [
        ("premium_plan", "Premium Monthly", 60000, 6, 48.0),
        (None, None, 45000, 3, 36.0),
        ("hours", "Hours", 20000, 1, 16.0),
    ]
    assert list(products[0]) == [
        "product_id",
        "product_name",
        "revenue_cents",
        "orders",
        "percentage_of_total",
    ]


@pytest.mark.parametrize(
    ("breakdown", "shown"),
    [
        ("monthly", {"monthly_breakdown"}),
        ("quarterly", {"quarterly_breakdown"}),
        ("by_product", {"product_breakdown"}),
        ("by_product,quarterly", {"quarterly_breakdown", "product_breakdown"}),
        (
            "quarterly,by_product,monthly",
            {"monthly_breakdown", "quarterly_breakdown", "product_breakdown"},
        ),
    ],
)
async def test_breakdowns_are_those_that_are_asked_for(year: Path, breakdown: str, shown: set[str]) -> None:
    answer = await asked(year, breakdown=breakdown)

    assert {name for name in answer if name.endswith("_breakdown")} == shown
    for name in shown:
        assert sum(row["revenue_cents"] for row in answer[name]) == 125000


async def test_quarters_are_every_one_from_the_first_order_to_today(year: Path) -> None:
    answer = await asked(year, breakdown="quarterly", today="2024-02-01")

    assert [tuple(row.values()) for row in answer["quarterly_breakdown"]] == [
        ("2023-Q1", 25000, 3, 8333),
        ("2023-Q2", 45000, 3, 15000),
        ("2023-Q3", 20000, 2, 10000),
        ("2023-Q4", 35000, 2, 17500),
        ("2024-Q1", 0, 0, 0),
    ]


@pytest.mark.parametrize(
    ("period", "today", "first"),
    [
        ("all_time", "2023-12-15", "2023-01-15"),
        # twelve months up to and with today: the order of that day a year before is not among them
        ("last_12_months", "2024-01-14", "2023-01-15"),
        ("last_12_months", "2024-01-15", "2023-01-20"),
        ("last_6_months", "2023-12-13", "2023-06-14"),
        ("last_6_months", "2023-12-14", "2023-06-15"),
        ("last_6_months", "2023-12-15", "2023-07-30"),
        ("ytd", "2023-12-31", "2023-01-15"),
        ("ytd", "2024-01-01", None),
    ],
)
async def test_a_period_ends_with_today(year: Path, period: str, today: str, first: str | None) -> None:
    answer = await asked(year, period=period, today=today, detail="orders")

    days = [day for day in sorted(ORDERS) if first and day >= first]
    summary = answer["revenue_summary"]
    assert answer["period"] == period
    assert summary["first_purchase_date"] == first
    assert (summary["total_orders"], summary["total_revenue_cents"]) == (
        len(days),
        sum(ORDERS[day] for day in days),
    )
    assert [order["date"] for order in answer["orders"]] == days
    assert sum(row["revenue_cents"] for row in answer["monthly_breakdown"]) == summary["total_revenue_cents"]
    # what they are altogether is of all time
    assert answer["customer_segment"] == "high_value"


async def test_a_period_holds_the_refunds_of_its_days(year: Path) -> None:
    for period, today, cents in (
        ("last_6_months", "2023-11-04", 2500),
        ("last_6_months", "2023-11-05", 0),
        ("all_time", "2023-05-04", 0),
        ("all_time", "2023-05-05", 2500),
        ("ytd", "2024-01-01", 0),
    ):
        answer = await asked(year, period=period, today=today)
        assert answer["revenue_summary"]["total_refunds_cents"] == cents, (period, today)


async def test_an_order_counts_from_its_own_day_on(year: Path) -> None:
    for period in ("all_time", "last_12_months", "last_6_months", "ytd"):
        before = await asked(year, period=period, today="2023-12-09")
        then = await asked(year, period=period, today="2023-12-10")
        assert before["revenue_summary"]["last_purchase_date"] == "2023-11-01"
        assert then["revenue_summary"]["last_purchase_date"] == "2023-12-10"


async def test_months_of_a_period_begin_with_it(year: Path) -> None:
    answer = await asked(year, period="last_6_months", today="2023-12-15")

    months = answer["monthly_breakdown"]
    assert [row["month"] for row in months] == [f"2023-{month:02d}" for month in range(6, 13)]
    assert months[0]["orders"] == 0  # those of June are of the 14th and the 15th, the period of the 16th on


async def test_predictions_may_be_left_out(year: Path) -> None:
    assert (await asked(year, include_predictions="false"))["predictions"] is None
    assert (await asked(year, include_predictions="true"))["predictions"] is not None


async def test_every_order_and_reversal_names_causes_that_the_ledger_resolves(year: Path) -> None:
    async with running(year, Clock(NOW)) as daybook:
        answer = await daybook.get(PATH, detail="orders")
        listed = [*answer["orders"], *answer["reversals"]]
        assert {row["date"]: row["amount_cents"] for row in answer["orders"]} == ORDERS
        assert [(row["kind"], row["date"], row["amount_cents"]) for row in answer["reversals"]] == [
            ("refunded", "2023-05-05", 2500)
        ]
        for order in answer["orders"]:
            assert sum(part["amount_cents"] for part in order["products"]) == order["amount_cents"]
        for cause in {cause for row in listed for cause in row["causes"]}:
            shown = await daybook.get(f"/api/v1/ledger/causes/{cause}")
            assert "evt_" in str(shown), cause
        assert all(row["causes"] for row in listed)
        assert {row["trust"] for row in listed} == {"signed"}


# Where a customer stands


FIRST, LAST = date(2023, 1, 15), date(2023, 12, 10)


@pytest.mark.parametrize(
    ("today", "activity", "lifecycle"),
    [
        (LAST + timedelta(days=30), "highly_active", "active"),
        (LAST + timedelta(days=31), "active", "active"),
        (LAST + timedelta(days=59), "active", "active"),
        (LAST + timedelta(days=60), "active", "at_risk"),
        (LAST + timedelta(days=61), "declining", "at_risk"),
        (LAST + timedelta(days=90), "declining", "at_risk"),
        (LAST + timedelta(days=91), "at_risk", "at_risk"),
        (LAST + timedelta(days=120), "at_risk", "at_risk"),
        (LAST + timedelta(days=121), "at_risk", "churned"),
        (FIRST + timedelta(days=29), "highly_active", "new"),
        (FIRST + timedelta(days=30), "highly_active", "active"),
        (FIRST - timedelta(days=1), None, None),
    ],
)
async def test_activity_and_lifecycle_go_by_the_days_until_today(
    year: Path, today: date, activity: str | None, lifecycle: str | None
) -> None:
    answer = await asked(year, today=today.isoformat())

    assert (answer["activity_status"], answer["lifecycle_stage"]) == (activity, lifecycle)


@pytest.mark.parametrize(
    ("limits", "segment"),
    [
        ("1250.00,1000,100", "whale"),
        ("1250.01,1250,100", "high_value"),
        ("5000,1250.01,1250", "medium_value"),
        ("5000,4000,1250.01", "low_value"),
    ],
)
async def test_the_limits_of_segments_are_settings(year: Path, limits: str, segment: str) -> None:
    async with running(year, Clock(NOW), segment_limits=limits) as daybook:
        answer = await daybook.get(PATH)
        shares = (await daybook.get("/api/payment/analytics/distribution"))["segments"]

    assert answer["customer_segment"] == segment
    assert [row["segment"] for row in shares if row["customers"]] == [segment]


# What all reads have in common


async def test_a_later_second_of_the_same_day_says_nothing_new(year: Path) -> None:
    clock = Clock(NOW)
    async with running(year, clock) as daybook:
        first = await daybook.ask(PATH)
        clock.now = NOW + timedelta(seconds=1)
        kept = await daybook.ask(PATH)
        again = await daybook.ask(PATH, timeout_ms=2_001)  # computed anew
        tag = first.headers["etag"]
        held = await daybook.http.get(PATH, headers={"If-None-Match": tag})
        clock.now = NOW + timedelta(days=1)
        tomorrow = await daybook.http.get(PATH, headers={"If-None-Match": tag})

    assert tag.startswith("W/")
    assert again.headers["etag"] == tag
    assert again.json()["meta"]["calculation_date"] == "2023-12-15T10:30:01Z"
    assert first.json()["meta"]["calculation_date"] == "2023-12-15T10:30:00Z"
    assert kept.content == first.content
    assert (held.status_code, held.content) == (304, b"")
    assert tomorrow.status_code == 200


async def test_of_another_day_the_calculation_is_of_its_beginning(year: Path) -> None:
    answer = await asked(year, today="2023-06-30")

    assert answer["meta"]["calculation_date"] == "2023-06-30T00:00:00Z"


async def test_a_read_waits_for_a_position(year: Path) -> None:
    async with running(year, Clock(NOW)) as daybook:
        head = await daybook.head()
        reached = await daybook.ask(PATH, at_least=head)
        beyond = await daybook.ask(PATH, at_least=head + 1, timeout_ms=10)

    assert reached.json()["meta"]["position"] == head
    assert beyond.status_code == 504


@pytest.mark.parametrize("shape", ["csv", "json"])
async def test_a_read_of_one_customer_is_no_list(year: Path, shape: str) -> None:
    async with running(year, Clock(NOW)) as daybook:
        answer = await daybook.ask(PATH, format=shape)
        accepted = await daybook.http.get(PATH, headers={"Accept": "text/csv"})

    assert answer.status_code == (400 if shape == "csv" else 200)
    assert accepted.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "query",
    [
        {"period": "forever"},
        {"breakdown": "weekly"},
        {"breakdown": ""},
        {"breakdown": "monthly,"},
        {"include_predictions": "yes"},
        {"detail": "all"},
        {"currency": "dollars"},
        {"today": "2023-02-30"},
        {"limit": "1"},
    ],
)
async def test_an_invalid_parameter_is_400_and_named(year: Path, query: dict[str, str]) -> None:
    async with running(year, Clock(NOW)) as daybook:
        answer = await daybook.ask(PATH, **query)

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(next(iter(query)))
