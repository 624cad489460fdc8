"""MRR by the rules of contract section 3, each posted to /webhooks/standard/acme and read back."""

from typing import Any

import pytest

from tests.support.running import Daybook
from tests.support.senders import MX, subscription
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

AT = "2025-11-13T10:00:00Z"
RECORDED = "subscription.recorded"


async def mrr_cents(daybook: Daybook, **query: Any) -> int:
    await daybook.catch_up()
    answer = await daybook.get("/api/v1/mrr", **query)
    cents: int = answer["mrr_cents"]
    return cents


def item(cents: int | str | None, interval: str = "month", every: int = 1, **more: Any) -> dict[str, Any]:
    price = {} if cents is None else {"unit_amount": str(cents)}
    return {"interval": interval, "every": every, **price, **more}


@pytest.mark.parametrize(
    ("cents", "interval", "every", "expected"),
    [
        # the reference figures
        (24900, "week", 4, 26954),
        (53500, "week", 1, 231655),
        (16200, "week", 10, 7015),
        (239100, "month", 3, 79700),
        (24900, "week", 1, 107817),
        # every factor
        (10000, "month", 1, 10000),
        (120000, "year", 1, 10000),
        (120000, "year", 2, 5000),
        (100, "day", 1, 3042),
        (100, "day", 30, 101),
        # half away from zero
        (6, "year", 1, 1),
        (5, "year", 1, 0),
        (1, "month", 2, 1),
        ("0.5", "month", 1, 1),
        ("12.345", "month", 1, 12),
        (999, "once", 1, 0),
    ],
)
async def test_an_amount_every_so_often_is_this_much_a_month(
    daybook: Daybook, cents: int | str, interval: str, every: int, expected: int
) -> None:
    await daybook.record(RECORDED, AT, **subscription("1", cents, interval, every))

    assert await mrr_cents(daybook) == expected


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        ("active", True),
        ("past_due", True),
        ("trialing", False),
        ("incomplete", False),
        ("incomplete_expired", False),
        ("unpaid", False),
        ("canceled", False),
        ("paused", False),
    ],
)
async def test_only_active_and_past_due_count(daybook: Daybook, status: str, counts: bool) -> None:
    await daybook.record(RECORDED, AT, **{**subscription("1", 5000), "status": status})

    assert await mrr_cents(daybook) == (5000 if counts else 0)


async def test_collection_paused_counts_nothing(daybook: Daybook) -> None:
    await daybook.record(RECORDED, AT, **subscription("1", 5000, collection_paused=True))

    assert await mrr_cents(daybook) == 0


async def test_a_declined_payment_takes_nothing_away(daybook: Daybook) -> None:
    await daybook.record(RECORDED, AT, **subscription("1", 5000, declined=True))

    assert await mrr_cents(daybook) == 5000


async def test_cancel_at_period_end_counts_until_it_has_ended_and_then_is_churn(daybook: Daybook) -> None:
    ends = "2025-12-05T00:00:00Z"
    await daybook.record(RECORDED, AT, **subscription("1", 5000, cancel_at=ends, next_bill_at=ends))
    assert await mrr_cents(daybook, today="2025-11-30") == 5000

    await daybook.record(
        RECORDED, "2025-12-05T00:00:01Z", **{**subscription("1", 5000, ended_at=ends), "status": "canceled"}
    )

    assert await mrr_cents(daybook, today="2025-12-04") == 5000
    assert await mrr_cents(daybook, today="2025-12-05") == 0
    movements = await daybook.get("/api/v1/mrr/movements", from_="2025-11", to="2025-12")
    assert [(p["new_cents"], p["churn_cents"], p["closing_cents"]) for p in movements["periods"]] == [
        (5000, 0, 5000),
        (0, -5000, 0),
    ]


@pytest.mark.parametrize(
    ("discount", "before", "after"),
    [
        ({"percent_off": "25", "duration": "forever"}, 7500, 7500),
        ({"amount_off": 1500, "duration": "forever"}, 8500, 8500),
        ({"percent_off": "25", "duration": "repeating", "ends_at": "2026-01-10T00:00:00Z"}, 7500, 10000),
        ({"percent_off": "25", "duration": "once"}, 10000, 10000),
        ({"amount_off": 99999, "duration": "forever"}, 0, 0),
    ],
)
async def test_recurring_discounts_are_deducted_until_their_end(
    daybook: Daybook, discount: dict[str, Any], before: int, after: int
) -> None:
    await daybook.record(RECORDED, AT, **subscription("1", 10000, discounts=[discount]))

    assert await mrr_cents(daybook, today="2026-01-09") == before
    assert await mrr_cents(daybook, today="2026-01-10") == after


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([item(1000), item(12000, "year")], 2000),
        ([item(1000, quantity=7)], 7000),
        ([item(1000), item(500, metered=True)], 1000),
        ([item(1000), item(500, "once")], 1000),
        ([item(100, quantity=25, divide_by=10, divide_round="up")], 300),
        ([item(100, quantity=25, divide_by=10, divide_round="down")], 200),
        (
            [
                item(
                    None,
                    quantity=12,
                    tiers=[{"up_to": 10, "unit_amount": "500"}, {"unit_amount": "450"}],
                    tiers_mode="graduated",
                )
            ],
            5900,
        ),
        (
            [
                item(
                    None,
                    quantity=12,
                    tiers=[{"up_to": 10, "unit_amount": "500"}, {"unit_amount": "450", "flat_amount": "100"}],
                    tiers_mode="volume",
                )
            ],
            5500,
        ),
        # rounded once: 0.4 + 0.4 is 0.8 of a cent, not twice nothing
        ([item("0.4"), item("0.4")], 1),
    ],
    ids="two-intervals quantity metered one-off pack-up pack-down graduated volume rounded-once".split(),
)
async def test_the_items_of_a_subscription_add_up(
    daybook: Daybook, items: list[dict[str, Any]], expected: int
) -> None:
    await daybook.record(RECORDED, AT, **{**subscription("1", 0), "items": items})

    assert await mrr_cents(daybook) == expected


async def test_an_item_without_a_readable_price_counts_nothing_and_is_reported(daybook: Daybook) -> None:
    await daybook.record(RECORDED, AT, **{**subscription("1", 0), "items": [item(1000), item(None)]})
    await daybook.catch_up()

    answer = await daybook.get("/api/v1/mrr")
    contracts = await daybook.get("/api/v1/contracts")

    assert answer["mrr_cents"] == 1000
    assert answer["meta"]["unpriced_contracts"] == 1
    assert contracts["contracts"][0]["unpriced"] is True


async def test_refunds_disputes_and_failed_payments_do_not_touch_mrr(daybook: Daybook) -> None:
    await daybook.record(RECORDED, AT, **subscription("1", 5000))
    money = {"currency": "usd", "amount": 5000, "customer_id": "cust-1", "payment_id": "pay-1"}
    await daybook.record("payment.recorded", AT, status="failed", **money)
    await daybook.record("refund.recorded", AT, status="succeeded", refund_id="r-1", created_at=AT, **money)
    await daybook.record("dispute.recorded", AT, status="lost", dispute_id="d-1", **money)

    assert await mrr_cents(daybook) == 5000


@pytest.mark.parametrize(
    ("every", "status", "declined", "expected"),
    [
        ("Once", "Active", False, 0),
        ("1 Month", "Active", True, 24900),
        ("4 Weeks", "Active", False, 26954),
        ("1 Month", "Completed", False, 0),
        ("1 Month", "Inactive", False, 0),
        ("1 Month", "Cancelled", False, 0),
        ("1 Month", "Deleted", False, 0),
    ],
)
async def test_mx_merchants_contracts_count_by_their_status(
    daybook: Daybook, every: str, status: str, declined: bool, expected: int
) -> None:
    contract = {
        "id": 7,
        "merchantId": 1000000001,
        "customerName": "Avery Stone",
        "every": every,
        "amount": "249",
        "status": status,
        "startDate": "2025-11-01T12:00:00Z",
        "nextBillDate": "2025-11-20T00:00:00Z",
        "hasDeclinedPayment": declined,
        "grandTotalAmount": "309223.66",
    }
    await daybook.post(MX, contract)

    assert await mrr_cents(daybook) == expected


async def test_the_mrr_document_shows_its_parts(daybook: Daybook) -> None:
    for key, cents, interval, every in (
        ("1", 24900, "week", 4),
        ("2", 24900, "week", 4),
        ("3", 24900, "week", 1),
        ("4", 16200, "week", 10),
        ("5", 10000, "month", 1),
    ):
        await daybook.record(RECORDED, AT, **subscription(key, cents, interval, every))
    await daybook.record(RECORDED, AT, **{**subscription("6", 100, "year"), "customer_id": "cust-5"})
    await daybook.record(RECORDED, AT, **{**subscription("7", 5000), "currency": "jpy"})
    await daybook.catch_up()

    answer = await daybook.get("/api/v1/mrr")

    assert {name: value for name, value in answer.items() if name != "meta"} == {
        "currency": "usd",
        "policy": "default",
        "weeks_per_month": "4.33",
        "date": "2025-11-13",
        "mrr_cents": 178748,
        "arr_cents": 178748 * 12,
        "active_contracts": 6,
        "customers": 5,
        "arpa_cents": 35750,  # 178748 / 5 = 35749.6
        "by_schedule": [
            {
                "interval": "week",
                "every": 1,
                "schedule": "Weekly - 1 Week",
                "contracts": 1,
                "mrr_cents": 107817,
            },
            {
                "interval": "week",
                "every": 4,
                "schedule": "Weekly - 4 Weeks",
                "contracts": 2,
                "mrr_cents": 53908,
            },
            {
                "interval": "week",
                "every": 10,
                "schedule": "Weekly - 10 Weeks",
                "contracts": 1,
                "mrr_cents": 7015,
            },
            {
                "interval": "month",
                "every": 1,
                "schedule": "Monthly - 1 Month",
                "contracts": 1,
                "mrr_cents": 10000,
            },
            {"interval": "year", "every": 1, "schedule": "Yearly - 1 Year", "contracts": 1, "mrr_cents": 8},
        ],
        "weekly_count": 1,
        "four_week_count": 2,
        "ten_week_count": 1,
        "other_currencies": [{"currency": "jpy", "mrr_cents": 5000, "active_contracts": 1}],
    }


async def test_movements_say_what_moved_and_close_where_mrr_stands(daybook: Daybook) -> None:
    # given one customer's year: new, up, down, gone, back; and another who stays
    for day, cents, status in (
        ("2025-01-10", 1000, "active"),
        ("2025-02-10", 1500, "active"),
        ("2025-03-10", 1200, "active"),
        ("2025-04-10", 1200, "unpaid"),
        ("2025-06-10", 900, "active"),
    ):
        await daybook.record(RECORDED, f"{day}T12:00:00Z", **{**subscription("1", cents), "status": status})
    await daybook.record(RECORDED, "2025-01-20T12:00:00Z", **subscription("2", 300))
    await daybook.catch_up()

    # when
    answer = await daybook.get("/api/v1/mrr/movements", from_="2025-01", to="2025-06", detail="customers")

    # then
    names = "opening new reactivation expansion contraction churn closing".split()
    assert [tuple(p[f"{name}_cents"] for name in names) for p in answer["periods"]] == [
        (0, 1300, 0, 0, 0, 0, 1300),
        (1300, 0, 0, 500, 0, 0, 1800),
        (1800, 0, 0, 0, -300, 0, 1500),
        (1500, 0, 0, 0, 0, -1200, 300),
        (300, 0, 0, 0, 0, 0, 300),
        (300, 0, 900, 0, 0, 0, 1200),
    ]
    assert [p["period"] for p in answer["periods"]] == [f"2025-{month:02d}" for month in range(1, 7)]
    counts = "new reactivated expanded contracted churned".split()
    totals = {name: sum(p[f"{name}_customers"] for p in answer["periods"]) for name in counts}
    assert totals == {"new": 2, "reactivated": 1, "expanded": 1, "contracted": 1, "churned": 1}
    assert [(m["date"], m["customer_id"], m["kind"], m["amount_cents"]) for m in answer["movements"]] == [
        ("2025-01-10", "cust-1", "new", 1000),
        ("2025-01-20", "cust-2", "new", 300),
        ("2025-02-10", "cust-1", "expansion", 500),
        ("2025-03-10", "cust-1", "contraction", -300),
        ("2025-04-10", "cust-1", "churn", -1200),
        ("2025-06-10", "cust-1", "reactivation", 900),
    ]
    assert all(isinstance(m["causes"], list) and m["causes"] for m in answer["movements"])
    for period in answer["periods"]:
        last = f"{period['period']}-28"
        assert (await daybook.get("/api/v1/mrr", today=last))["mrr_cents"] == period["closing_cents"]


async def test_movements_by_day_name_every_day_of_the_range(daybook: Daybook) -> None:
    await daybook.record(RECORDED, "2025-02-27T12:00:00Z", **subscription("1", 1000))
    await daybook.catch_up()

    answer = await daybook.get("/api/v1/mrr/movements", from_="2025-02-26", to="2025-03-01", by="day")

    assert [(p["period"], p["new_cents"], p["closing_cents"]) for p in answer["periods"]] == [
        ("2025-02-26", 0, 0),
        ("2025-02-27", 1000, 1000),
        ("2025-02-28", 0, 1000),
        ("2025-03-01", 0, 1000),
    ]


async def test_ups_and_downs_of_one_day_are_one_movement(daybook: Daybook) -> None:
    for hour, cents in ((8, 1000), (9, 3000), (10, 2000)):
        await daybook.record(RECORDED, f"2025-11-13T{hour:02d}:00:00Z", **subscription("1", cents))
    await daybook.catch_up()

    answer = await daybook.get("/api/v1/mrr/movements", from_="2025-11", to="2025-11", detail="customers")

    assert [(m["kind"], m["amount_cents"]) for m in answer["movements"]] == [("new", 2000)]
