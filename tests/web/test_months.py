"""Bills, cash and what is coming, by month: invoices, refunds and disputes posted, months read."""

from pathlib import Path
from typing import Any

from tests.support.running import Daybook, running
from tests.support.senders import STRIPE, stripe_event, stripe_subscription, subscription
from tests.support.stores import EACH_STORE

STORES = EACH_STORE


def invoice(key: str, cents: int, **more: Any) -> dict[str, Any]:
    """The data of `invoice.recorded`: issued on 3 November, open."""
    return {
        "invoice_id": f"inv-{key}",
        "customer_id": "cust-1",
        "status": "open",
        "currency": "usd",
        "amount_due": cents,
        "amount_remaining": cents,
        "created_at": "2025-11-03T09:00:00Z",
        "finalized_at": "2025-11-03T10:00:00Z",
        **more,
    }


def paid(key: str, cents: int, at: str, **more: Any) -> dict[str, Any]:
    return invoice(key, cents, status="paid", amount_paid=cents, amount_remaining=0, paid_at=at, **more)


async def totals(daybook: Daybook, first: str, last: str, **query: Any) -> list[dict[str, Any]]:
    await daybook.catch_up()
    answer = await daybook.get("/api/v1/revenue/monthly-totals", from_=first, to=last, **query)
    months: list[dict[str, Any]] = answer["months"]
    return months


def stated(month: dict[str, Any], **figures: int) -> bool:
    """Whether these are a month's figures, and all others are 0."""
    return {name: value for name, value in month.items() if name != "month" and value} == figures


async def test_a_bill_counts_by_its_date_and_its_money_by_the_day_it_was_paid(daybook: Daybook) -> None:
    await daybook.record(
        "invoice.recorded", "2025-12-02T08:00:00Z", **paid("1", 5000, "2025-12-02T08:00:00Z")
    )

    november, december = await totals(daybook, "2025-11", "2025-12")

    assert stated(november, billed_cents=5000, bills=1, customers=1)
    assert stated(december, collected_cents=5000, net_cents=5000)


async def test_what_is_still_to_be_paid_is_open_in_the_month_of_the_bill(daybook: Daybook) -> None:
    await daybook.record("invoice.recorded", "2025-11-03T10:00:00Z", **invoice("1", 5000))
    await daybook.record(
        "invoice.recorded",
        "2025-11-03T10:00:00Z",
        **invoice("2", 3000, amount_paid=1000, amount_remaining=2000, customer_id="cust-2"),
    )

    (november,) = await totals(daybook, "2025-11", "2025-11")

    assert november["billed_cents"] == 8000
    assert november["open_cents"] == 7000
    assert november["customers"] == 2


async def test_refunds_and_lost_disputes_count_on_their_own_day(daybook: Daybook) -> None:
    await daybook.record(
        "invoice.recorded",
        "2025-11-04T08:00:00Z",
        **paid("1", 5000, "2025-11-04T08:00:00Z", payment_ids=["pay-1"]),
    )
    of = {"payment_id": "pay-1", "currency": "usd", "customer_id": "cust-1"}
    at = "2025-12-10T08:00:00Z"
    for key, status in (("1", "succeeded"), ("2", "pending"), ("3", "failed")):
        await daybook.record(
            "refund.recorded", at, **of, refund_id=f"ref-{key}", status=status, amount=1200, created_at=at
        )
    for key, status in (("1", "lost"), ("2", "won"), ("3", "needs_response")):
        await daybook.record(
            "dispute.recorded", "2026-01-15T00:00:00Z", **of, dispute_id=f"d-{key}", status=status, amount=800
        )

    november, december, january = await totals(daybook, "2025-11", "2026-01")

    assert stated(november, billed_cents=5000, collected_cents=5000, net_cents=5000, bills=1, customers=1)
    assert stated(december, refunded_cents=1200, net_cents=-1200)
    assert stated(january, disputed_cents=800, net_cents=-800)


async def test_the_cash_behind_the_months_is_listed_with_its_causes(daybook: Daybook) -> None:
    # given a paid invoice, its refund and its lost dispute, and a payment of no invoice
    await daybook.record(
        "customer.recorded", "2025-11-01T00:00:00Z", customer_id="cust-1", name="Avery Stone"
    )
    at = "2025-11-04T08:00:00Z"
    bill = await daybook.record("invoice.recorded", at, **paid("1", 5000, at, payment_ids=["pay-1"]))
    of = {"currency": "usd", "customer_id": "cust-1"}
    on = {**of, "payment_id": "pay-1", "amount": 1200}
    at = "2025-12-10T08:00:00Z"
    back = await daybook.record(
        "refund.recorded", at, **on, refund_id="ref-1", status="succeeded", created_at=at
    )
    lost = await daybook.record("dispute.recorded", at, **on, dispute_id="d-1", status="lost")
    other = {**of, "customer_id": "cust-2", "payment_id": "pay-2", "amount": 700, "status": "succeeded"}
    alone = await daybook.record("payment.recorded", at, **other)

    # when
    await daybook.catch_up()
    asked = {"from_": "2025-11", "to": "2025-12", "detail": "cash"}
    answer = await daybook.get("/api/v1/revenue/monthly-totals", **asked)

    # then
    names = ("date", "kind", "amount_cents", "customer_name", "source_id", "trust", "causes")
    assert [tuple(row[name] for name in names) for row in answer["cash"]] == [
        ("2025-11-04", "collected", 5000, "Avery Stone", "inv-1", "signed", [bill]),
        ("2025-12-10", "disputed", 1200, "Avery Stone", "d-1", "signed", [lost]),
        ("2025-12-10", "refunded", 1200, "Avery Stone", "ref-1", "signed", [back]),
        ("2025-12-10", "collected", 700, None, "pay-2", "signed", [alone]),
    ]
    for kind in ("collected", "refunded", "disputed"):
        listed = sum(row["amount_cents"] for row in answer["cash"] if row["kind"] == kind)
        assert listed == sum(month[f"{kind}_cents"] for month in answer["months"])
    nobodys = await daybook.get("/api/v1/revenue/monthly-totals", **asked, account="nobody")
    assert nobodys["cash"] == []
    assert "cash" not in await daybook.get("/api/v1/revenue/monthly-totals")


async def test_the_largest_bills_say_how_far_they_are_trusted(daybook: Daybook) -> None:
    await daybook.record("invoice.recorded", "2025-11-03T10:00:00Z", **invoice("1", 5000))
    await daybook.catch_up()

    (top,) = (await daybook.get("/api/v1/revenue/current-month"))["top"]

    assert (top["trust"], top["amount_cents"]) == ("signed", 5000)


async def test_void_deleted_and_empty_bills_are_left_out_and_uncollectible_ones_only_listed(
    daybook: Daybook,
) -> None:
    for key, status, cents in (
        ("1", "void", 5000),
        ("2", "deleted", 5000),
        ("3", "open", 0),
        ("4", "uncollectible", 700),
        ("5", "open", 100),
    ):
        await daybook.record("invoice.recorded", "2025-11-03T10:00:00Z", **invoice(key, cents, status=status))

    (november,) = await totals(daybook, "2025-11", "2025-11")
    detail = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)

    assert stated(november, billed_cents=100, open_cents=100, uncollectible_cents=700, bills=1, customers=1)
    assert [(row["invoice_id"], row["status"]) for row in detail["payments"]] == [
        ("inv-4", "uncollectible"),
        ("inv-5", "open"),
    ]
    assert detail["summary"]["payments"] == 1
    assert detail["summary"]["total_cents"] == detail["days"][0]["total_cents"] == 100


async def test_a_draft_is_still_coming(daybook: Daybook) -> None:
    draft = invoice("1", 5000, status="draft", finalized_at=None, created_at="2025-11-20T09:00:00Z")
    await daybook.record("invoice.recorded", "2025-11-20T09:00:00Z", **draft)

    (november,) = await totals(daybook, "2025-11", "2025-11")
    detail = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
    coming = await daybook.get("/api/v1/upcoming", from_="2025-11-01", to="2025-11-30")

    assert stated(november)
    assert detail["payments"][0]["status"] == coming["payments"][0]["status"] == "draft"
    assert coming["total_cents"] == detail["summary"]["upcoming_cents"] == 5000


async def test_a_failed_payment_leaves_the_bill_open_and_declined(daybook: Daybook) -> None:
    await daybook.record(
        "invoice.recorded", "2025-11-03T10:00:00Z", **invoice("1", 5000, payment_failed=True)
    )
    await daybook.catch_up()

    (row,) = (await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11))["payments"]

    assert (row["status"], row["declined"], row["open_cents"]) == ("failed", True, 5000)


async def test_an_invoice_takes_the_place_of_the_next_bill_that_it_bills(daybook: Daybook) -> None:
    # given a contract that bills on the 20th
    at = "2025-11-01T00:00:00Z"
    monthly = subscription("1", 5000, next_bill_at="2025-11-20T09:00:00Z", anchor_at="2025-10-20T09:00:00Z")
    await daybook.record("subscription.recorded", at, **monthly)
    (before,) = await totals(daybook, "2025-11", "2025-11")

    # when the bill is issued and paid, and the processor states the next one
    await daybook.record(
        "invoice.recorded",
        "2025-11-20T09:00:05Z",
        **paid(
            "1",
            5400,  # with tax
            "2025-11-20T09:00:05Z",
            subscription_id="sub-1",
            created_at="2025-11-20T09:00:00Z",
            finalized_at="2025-11-20T09:00:00Z",
        ),
    )
    await daybook.record(
        "subscription.recorded", "2025-11-20T09:00:06Z", **{**monthly, "next_bill_at": "2025-12-20T09:00:00Z"}
    )
    november, december = await totals(daybook, "2025-11", "2025-12")

    # then
    assert stated(before)
    assert stated(november, billed_cents=5400, collected_cents=5400, net_cents=5400, bills=1, customers=1)
    assert stated(december)
    (row,) = (await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11))["payments"]
    assert (row["contract_id"], row["invoice_id"], row["mrr_cents"]) == ("sub-1", "inv-1", 5000)
    assert row["next_bill_date"] == "2025-12-20"
    assert row["causes"]


async def test_weeks_hold_days_1_to_7_and_so_on_and_a_customer_counts_once(daybook: Daybook) -> None:
    for key, day, customer in (
        ("1", 1, "a"),
        ("2", 7, "a"),
        ("3", 8, "a"),
        ("4", 14, "b"),
        ("5", 28, "b"),
        ("6", 29, "c"),
        ("7", 31, "c"),
    ):
        at = f"2025-12-{day:02d}T09:00:00Z"
        await daybook.record(
            "invoice.recorded", at, **invoice(key, 100, created_at=at, finalized_at=at, customer_id=customer)
        )
    await daybook.catch_up()

    detail = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=12)

    assert [
        (w["week"], w["from"][-2:], w["to"][-2:], w["customers"], w["payments"]) for w in detail["weeks"]
    ] == [
        (1, "01", "07", 1, 2),
        (2, "08", "14", 2, 2),
        (3, "15", "21", 0, 0),
        (4, "22", "28", 1, 1),
        (5, "29", "31", 1, 2),
    ]
    assert detail["summary"]["customers"] == 3


async def test_a_february_of_28_days_has_four_weeks(daybook: Daybook) -> None:
    await daybook.catch_up()

    february = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=2)
    leap = await daybook.get("/api/v1/revenue/month-detail", year=2024, month=2)

    assert [week["to"] for week in february["weeks"]][-1] == "2025-02-28"
    assert len(february["weeks"]) == 4
    assert (leap["weeks"][-1]["from"], leap["weeks"][-1]["to"]) == ("2024-02-29", "2024-02-29")


async def test_the_top_list_is_by_amount_then_date_then_customer_and_ten_long(daybook: Daybook) -> None:
    for number in range(12):
        at = f"2025-11-{20 - number % 3:02d}T09:00:00Z"
        of = {"customer_id": f"cust-{number:02d}", "created_at": at, "finalized_at": at}
        await daybook.record("invoice.recorded", at, **invoice(str(number), 500 if number else 900, **of))
    await daybook.catch_up()

    detail = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)

    ordered = [(row["amount_cents"], row["date"], row["customer_id"]) for row in detail["top"]]
    assert [row["rank"] for row in detail["top"]] == list(range(1, 11))
    assert ordered == sorted(ordered, key=lambda row: (-row[0], row[1], row[2]))
    assert ordered[0] == (900, "2025-11-20", "cust-00")
    assert detail["top_share"] == round((900 + 9 * 500) / (900 + 11 * 500), 4)


async def test_the_current_month_is_the_month_of_today_without_its_payments(daybook: Daybook) -> None:
    await daybook.record("invoice.recorded", "2025-11-03T10:00:00Z", **invoice("1", 5000))
    await daybook.catch_up()

    current = await daybook.get("/api/v1/revenue/current-month")
    other = await daybook.get("/api/v1/revenue/current-month", today="2025-12-24")
    detail = await daybook.get("/api/v1/revenue/month-detail")

    assert detail.pop("payments")
    assert current == detail
    assert (current["year"], current["month"], current["summary"]["billed_cents"]) == (2025, 11, 5000)
    assert (other["year"], other["month"], other["summary"]["billed_cents"]) == (2025, 12, 0)


async def test_a_stripe_invoice_told_by_two_events_is_paid_once(daybook: Daybook) -> None:
    thing = {
        "id": "in_1",
        "object": "invoice",
        "customer": "cus_1",
        "status": "paid",
        "currency": "usd",
        "amount_due": 5000,
        "amount_paid": 5000,
        "amount_remaining": 0,
        "created": 1763028000,
        "status_transitions": {"finalized_at": 1763028000, "paid_at": 1763028100},
        "lines": {"object": "list", "data": []},
    }
    await daybook.post(STRIPE, stripe_event("customer.subscription.created", stripe_subscription("1", 5000)))
    for number, kind in enumerate(("invoice.paid", "invoice.payment_succeeded"), start=2):
        await daybook.post(STRIPE, stripe_event(kind, thing, event_id=f"evt_{number}"))

    (november,) = await totals(daybook, "2025-11", "2025-11")

    assert november["collected_cents"] == november["billed_cents"] == 5000


async def test_a_month_begins_at_midnight_in_the_reporting_zone(data_dir: Path) -> None:
    async with running(data_dir, reporting_tz="America/New_York") as daybook:
        at = "2025-12-01T04:59:59Z"  # 23:59:59 on 30 November in New York
        await daybook.record("invoice.recorded", at, **paid("1", 500, at, created_at=at, finalized_at=at))
        november, december = await totals(daybook, "2025-11", "2025-12")

    assert november["billed_cents"] == november["collected_cents"] == 500
    assert stated(december)
