"""Contracts rolled on from their next bill by their interval; every figure worked out by hand."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import Daybook, running
from tests.support.senders import subscription
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

AT = "2025-11-13T09:00:00Z"


async def given(
    daybook: Daybook, key: str, cents: int, interval: str, every: int, next_bill: str, **more: Any
) -> None:
    data = subscription(key, cents, interval, every, next_bill_at=f"{next_bill}T12:00:00Z", **more)
    await daybook.record("subscription.recorded", AT, **data)


async def months_of(daybook: Daybook, year: int) -> dict[str, int]:
    """What is coming by month of a year, the empty ones left out."""
    await daybook.catch_up()
    answer = await daybook.get("/api/v1/revenue/annual-forecast", year=year)
    assert [row["month"] for row in answer["months"]] == [f"{year}-{n:02d}" for n in range(1, 13)]
    assert answer["upcoming_cents"] == sum(row["upcoming_cents"] for row in answer["months"])
    assert answer["bills"] == sum(row["bills"] for row in answer["months"])
    return {row["month"]: row["upcoming_cents"] for row in answer["months"] if row["upcoming_cents"]}


async def test_a_monthly_contract_bills_each_month(daybook: Daybook) -> None:
    await given(daybook, "1", 1000, "month", 1, "2025-11-20")

    assert await months_of(daybook, 2026) == {f"2026-{n:02d}": 1000 for n in range(1, 13)}


async def test_quarterly_and_yearly_contracts_bill_in_their_months(daybook: Daybook) -> None:
    await given(daybook, "1", 3000, "month", 3, "2025-12-15")
    await given(daybook, "2", 12000, "year", 1, "2026-02-01")

    assert await months_of(daybook, 2026) == {
        "2026-02": 12000,
        "2026-03": 3000,
        "2026-06": 3000,
        "2026-09": 3000,
        "2026-12": 3000,
    }


async def test_the_31st_falls_on_the_last_day_and_comes_back_to_the_31st(daybook: Daybook) -> None:
    # given a contract anchored on the 31st
    anchor = {"anchor_at": "2025-10-31T12:00:00Z"}
    await given(daybook, "1", 1000, "month", 1, "2026-01-31", **anchor)
    await daybook.catch_up()
    row = (await daybook.get("/api/v1/revenue/month-detail", year=2026, month=1))["payments"][0]
    assert (row["date"], row["next_bill_date"]) == ("2026-01-31", "2026-02-28")

    # when the processor states 28 February
    data = subscription("1", 1000, next_bill_at="2026-02-28T12:00:00Z", **anchor)
    await daybook.record("subscription.recorded", "2026-01-31T13:00:00Z", **data)
    await daybook.catch_up()

    # then the one after it is the 31st of March
    row = (await daybook.get("/api/v1/revenue/month-detail", year=2026, month=2))["payments"][0]
    assert (row["date"], row["next_bill_date"]) == ("2026-02-28", "2026-03-31")
    assert await months_of(daybook, 2026) == {f"2026-{n:02d}": 1000 for n in range(2, 13)}


async def test_a_yearly_29_february_bills_on_the_28th_and_every_leap_year_on_the_29th(
    daybook: Daybook,
) -> None:
    await given(daybook, "1", 1000, "year", 1, "2028-02-29", anchor_at="2024-02-29T12:00:00Z")
    await daybook.catch_up()

    row = (await daybook.get("/api/v1/revenue/month-detail", year=2028, month=2))["payments"][0]

    assert (row["date"], row["next_bill_date"]) == ("2028-02-29", "2029-02-28")


async def test_a_weekly_contract_bills_in_every_week(daybook: Daybook) -> None:
    # given Thursdays from 27 November: 27 Nov; 4, 11, 18, 25 Dec; 1, 8, 15, 22, 29 Jan
    await given(daybook, "1", 500, "week", 1, "2025-11-27")
    await daybook.catch_up()

    quarterly = await daybook.get("/api/v1/revenue/quarterly-forecast", quarters=2)

    first, second = quarterly["quarters"]
    assert (first["quarter"], first["from"], first["to"]) == ("2025-Q4", "2025-10-01", "2025-12-31")
    assert [(row["month"], row["upcoming_cents"], row["bills"]) for row in first["months"]] == [
        ("2025-10", 0, 0),
        ("2025-11", 500, 1),
        ("2025-12", 2000, 4),
    ]
    assert second["months"][0]["upcoming_cents"] == 2500
    assert first["customers"] == second["customers"] == 1


async def test_later_weeks_of_the_month_stand_beside_the_stated_bill(daybook: Daybook) -> None:
    # given Tuesdays from 11 November: 11, 18, 25 November
    await given(daybook, "1", 500, "week", 1, "2025-11-11")
    await daybook.catch_up()

    summary = (await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11))["summary"]

    assert (summary["total_cents"], summary["later_cents"], summary["schedule_total_cents"]) == (
        500,
        1000,
        1500,
    )


async def test_a_contract_rolls_on_until_it_ends_and_not_on_that_day(daybook: Daybook) -> None:
    await given(daybook, "1", 1000, "month", 1, "2026-01-15", cancel_at="2026-04-15T00:00:00Z")

    assert await months_of(daybook, 2026) == {"2026-01": 1000, "2026-02": 1000, "2026-03": 1000}


async def test_one_that_ends_on_its_next_bill_date_has_none(daybook: Daybook) -> None:
    await given(daybook, "1", 1000, "month", 1, "2026-01-15", cancel_at="2026-01-15T00:00:00Z")
    await daybook.catch_up()

    assert await months_of(daybook, 2026) == {}
    assert (await daybook.get("/api/v1/contracts"))["contracts"][0]["next_bill_date"] is None


async def test_a_one_off_contract_bills_once(daybook: Daybook) -> None:
    await given(daybook, "1", 1000, "once", 1, "2026-01-15")

    assert await months_of(daybook, 2026) == {"2026-01": 1000}


async def test_a_trial_bills_first_at_its_end(daybook: Daybook) -> None:
    data = subscription("1", 1000, trial_end_at="2026-03-10T00:00:00Z", next_bill_at="2026-02-10T00:00:00Z")
    await daybook.record("subscription.recorded", AT, **{**data, "status": "trialing"})

    assert await months_of(daybook, 2026) == {f"2026-{n:02d}": 1000 for n in range(3, 13)}


async def test_issued_bills_and_coming_ones_stand_side_by_side(daybook: Daybook) -> None:
    # given a contract billed on 1 November, its next bill on 1 December
    await given(daybook, "1", 1000, "month", 1, "2025-12-01")
    await daybook.record(
        "invoice.recorded",
        "2025-11-01T12:00:00Z",
        invoice_id="inv-1",
        subscription_id="sub-1",
        customer_id="cust-1",
        status="open",
        currency="usd",
        amount_due=1080,
        created_at="2025-11-01T12:00:00Z",
    )
    await daybook.catch_up()

    (quarter,) = (await daybook.get("/api/v1/revenue/quarterly-forecast", quarters=1))["quarters"]

    assert [
        (row["billed_cents"], row["upcoming_cents"], row["total_cents"]) for row in quarter["months"]
    ] == [
        (0, 0, 0),
        (1080, 0, 1080),
        (0, 1000, 1000),
    ]
    figures = {
        name: quarter[name]
        for name in ("billed_cents", "upcoming_cents", "total_cents", "bills", "customers")
    }
    assert figures == {
        "billed_cents": 1080,
        "upcoming_cents": 1000,
        "total_cents": 2080,
        "bills": 2,
        "customers": 1,
    }


async def test_a_draft_is_counted_once_though_its_contract_rolls_on(daybook: Daybook) -> None:
    await given(daybook, "1", 1000, "month", 1, "2025-12-01")
    await daybook.record(
        "invoice.recorded",
        "2025-12-01T12:00:00Z",
        invoice_id="inv-1",
        subscription_id="sub-1",
        customer_id="cust-1",
        status="draft",
        currency="usd",
        amount_due=1080,
        created_at="2025-12-01T12:00:00Z",
    )
    await daybook.catch_up()

    (quarter,) = (await daybook.get("/api/v1/revenue/quarterly-forecast", quarters=1))["quarters"]

    assert [row["upcoming_cents"] for row in quarter["months"]] == [0, 0, 1080]
    assert await months_of(daybook, 2026) == {f"2026-{n:02d}": 1000 for n in range(1, 13)}


async def test_a_year_is_at_most_ten_years_ahead(daybook: Daybook) -> None:
    await given(daybook, "1", 1000, "month", 1, "2025-11-20")

    assert len(await months_of(daybook, 2035)) == 12
    for query in ({"year": 2036}, {"year": 2037, "today": "2026-11-13"}):
        answer = await daybook.ask("/api/v1/revenue/annual-forecast", **query)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith("year: at most 10 years")
    assert (await daybook.ask("/api/v1/revenue/annual-forecast", year=2036, today="2026-01-01")).is_success


async def test_a_year_of_another_age_costs_no_more_than_this_one(daybook: Daybook) -> None:
    # given contracts of 28 anchors that bill every day
    for day in range(1, 29):
        await given(daybook, str(day), 100, "day", 1, f"2025-11-{day:02d}")
    await daybook.catch_up()

    # when
    tracemalloc.start()
    answer = await daybook.get("/api/v1/revenue/annual-forecast", year=2999, today="2999-01-01")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # then
    assert answer["bills"] == 28 * 365
    assert peak_bytes < 5_000_000


async def test_bills_after_a_discounts_end_are_forecast_in_full(daybook: Daybook) -> None:
    # given $4 off until 1 March, and another contract free until 15 April
    off = {"duration": "repeating", "amount_off": 400, "ends_at": "2026-03-01T00:00:00Z"}
    free = {"duration": "repeating", "percent_off": "100", "ends_at": "2026-04-15T00:00:00Z"}
    await given(daybook, "1", 1000, "month", 1, "2025-12-20", discounts=[off])
    await given(daybook, "2", 7000, "month", 1, "2025-12-10", discounts=[free])

    months = await months_of(daybook, 2026)

    assert [months[f"2026-{n:02d}"] for n in range(1, 7)] == [600, 600, 1000, 1000, 8000, 8000]
    rows = (await daybook.get("/api/v1/contracts"))["contracts"]
    assert [row["amount_cents"] for row in rows] == [600, 0]


async def test_a_yearly_item_beside_a_monthly_one_is_billed_once_a_year(daybook: Daybook) -> None:
    data = subscription("1", 1000, next_bill_at="2025-12-20T12:00:00Z")
    yearly = {"interval": "year", "unit_amount": "12000"}
    data["items"] = [*data["items"], yearly]
    await daybook.record("subscription.recorded", AT, **data)

    months = {f"2026-{n:02d}": 1000 for n in range(1, 13)} | {"2026-12": 13_000}
    assert await months_of(daybook, 2026) == months
    assert (await daybook.get("/api/v1/mrr"))["mrr_cents"] == 2000


async def test_a_year_is_its_four_quarters(demo: Path) -> None:
    async with running(demo) as daybook:
        year = await daybook.get("/api/v1/revenue/annual-forecast", year=2026)
        asked = {"quarters": 4, "today": "2026-01-01"}
        quarters = (await daybook.get("/api/v1/revenue/quarterly-forecast", **asked))["quarters"]

    assert [quarter["quarter"] for quarter in quarters] == ["2026-Q1", "2026-Q2", "2026-Q3", "2026-Q4"]
    assert [month for quarter in quarters for month in quarter["months"]] == year["months"]
    for name in ("billed_cents", "upcoming_cents", "total_cents", "bills"):
        assert sum(quarter[name] for quarter in quarters) == year[name]
        for quarter in quarters:
            assert sum(month[name] for month in quarter["months"]) == quarter[name]


# A month's detail, and the same months of a forecast


async def test_a_month_to_come_lists_what_is_rolled_on(daybook: Daybook) -> None:
    await given(daybook, "1", 1000, "month", 1, "2025-11-20")
    await given(daybook, "2", 300, "week", 1, "2025-11-18")
    await daybook.catch_up()

    january = await daybook.get("/api/v1/revenue/month-detail", year=2026, month=1)

    rows = [(row["date"], row["amount_cents"], row["status"]) for row in january["payments"]]
    assert rows == [("2026-01-06", 300, "forecast"), ("2026-01-20", 1000, "forecast")]
    summary = january["summary"]
    assert (summary["total_cents"], summary["later_cents"], summary["upcoming_cents"]) == (1300, 900, 1300)
    assert (summary["customers"], summary["payments"], summary["overdue_cents"]) == (2, 2, 0)


async def test_a_stated_bill_that_was_not_issued_by_its_day_is_overdue(daybook: Daybook) -> None:
    await given(daybook, "1", 1000, "month", 1, "2025-11-10")
    await given(daybook, "2", 300, "week", 1, "2025-11-04")
    await daybook.catch_up()

    november = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
    year = await daybook.get("/api/v1/revenue/annual-forecast", year=2025)

    assert [(row["date"], row["status"]) for row in november["payments"]] == [
        ("2025-11-04", "overdue"),
        ("2025-11-10", "overdue"),
    ]
    summary = november["summary"]
    assert (summary["overdue_cents"], summary["upcoming_cents"], summary["total_cents"]) == (1300, 0, 1300)
    assert summary["later_cents"] == 600  # the 18th and 25th; the 11th lies before today
    assert (year["months"][10]["overdue_cents"], year["months"][10]["upcoming_cents"]) == (1300, 600)


async def test_upcoming_says_what_rolling_on_adds_and_lists_it_on_request(daybook: Daybook) -> None:
    await given(daybook, "1", 300, "week", 1, "2025-11-18")
    await daybook.catch_up()
    range_ = {"from_": "2025-11-13", "to": "2025-12-02"}

    stated = await daybook.get("/api/v1/upcoming", **range_)
    whole = await daybook.get("/api/v1/upcoming", **range_, forecast="true")

    assert (stated["total_cents"], stated["forecast_cents"], stated["forecast_count"]) == (300, 600, 2)
    assert len(stated["payments"]) == 1
    assert [(row["next_bill_date"], row["status"]) for row in whole["payments"]] == [
        ("2025-11-18", "upcoming"),
        ("2025-11-25", "forecast"),
        ("2025-12-02", "forecast"),
    ]


async def test_every_month_of_a_forecast_is_that_months_detail(daybook: Daybook) -> None:
    for key, cents, interval, every, next_bill in (
        ("1", 1000, "month", 1, "2025-11-30"),
        ("2", 300, "week", 1, "2025-11-04"),
        ("3", 9000, "month", 3, "2025-12-31"),
        ("4", 50, "day", 3, "2025-11-14"),
        ("5", 70000, "year", 1, "2025-10-01"),
    ):
        await given(daybook, key, cents, interval, every, next_bill)
    await daybook.catch_up()

    for year in (2025, 2026):
        for row in (await daybook.get("/api/v1/revenue/annual-forecast", year=year))["months"]:
            number = int(row["month"][5:])
            detail = await daybook.get("/api/v1/revenue/month-detail", year=year, month=number)
            summary = detail["summary"]
            assert row["total_cents"] == summary["schedule_total_cents"]
            assert row["upcoming_cents"] == summary["upcoming_cents"] + summary["later_cents"]
            assert row["overdue_cents"] == summary["overdue_cents"]
            assert row["customers"] == summary["customers"]
            assert sum(each["amount_cents"] for each in detail["payments"]) == summary["total_cents"]


async def test_a_bill_of_a_contract_that_has_ended_since_is_not_overdue(daybook: Daybook) -> None:
    await given(daybook, "1", 1000, "month", 1, "2025-11-04", cancel_at="2025-11-10T00:00:00Z")
    await daybook.catch_up()

    november = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)

    assert (november["payments"], november["days"], november["summary"]["total_cents"]) == ([], [], 0)


@pytest.mark.parametrize(("declined", "overdue"), [(False, 0), (True, 1000)])
async def test_a_one_off_bill_of_the_past_is_overdue_only_where_it_was_declined(
    daybook: Daybook, declined: bool, overdue: int
) -> None:
    await given(daybook, "1", 1000, "once", 1, "2025-11-04", declined=declined)
    await daybook.catch_up()

    november = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)

    assert november["summary"]["overdue_cents"] == november["summary"]["total_cents"] == overdue


async def test_no_month_is_told_beyond_ten_years(daybook: Daybook) -> None:
    for path in ("month-detail", "annual-forecast"):
        near = await daybook.ask(f"/api/v1/revenue/{path}", year=2035)
        far = await daybook.ask(f"/api/v1/revenue/{path}", year=2036)
        assert (near.status_code, far.status_code) == (200, 400)


async def test_a_status_that_no_rule_knows_is_counted_in_every_answer(daybook: Daybook) -> None:
    paid = {"currency": "usd", "amount": 500, "customer_id": "cust-1"}
    for number, word in enumerate(("settled", "SUCCEEDED")):
        data = {**paid, "payment_id": f"pay-{number}", "status": word}
        await daybook.record("payment.recorded", AT, **data)
    await given(daybook, "1", 1000, "month", 1, "2025-12-04", status="dormant")
    await daybook.catch_up()

    totals = await daybook.get("/api/v1/revenue/monthly-totals", from_="2025-11", to="2025-11")

    assert totals["meta"]["unknown_statuses"] == 2
    assert totals["months"][0]["collected_cents"] == 500
