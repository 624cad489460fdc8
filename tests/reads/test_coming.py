"""Bills that are rolled on are counted as if each were looked at; what would be too many is refused."""

from datetime import date, timedelta
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from projections.schedules import BillingSchedule
from service.reads import forecast, lists
from service.reads.coming import BillCounts
from tests.projections.test_schedules import schedules
from tests.support.running import Daybook

days = st.dates(date(2025, 1, 1), date(2029, 12, 31))
amounts = st.lists(st.tuples(days.map(date.isoformat), st.integers(0, 3)), min_size=1, max_size=4)
MANY = 50


@given(schedule=schedules, amounts=amounts, ranges=st.tuples(days, days), part=st.tuples(days, days))
def test_bills_are_counted_as_if_each_were_looked_at(
    schedule: BillingSchedule,
    amounts: list[tuple[str, int]],
    ranges: tuple[date, date],
    part: tuple[date, date],
) -> None:
    schedule = replace(schedule, amounts=tuple(sorted(dict(amounts).items())))
    first, last = map(date.isoformat, sorted(ranges))
    begin, end = map(date.isoformat, sorted(part))

    counts = BillCounts(schedule, schedule.without_amounts().without_times().bills_before, first, last)

    beyond = (date.fromisoformat(last) + timedelta(days=3)).isoformat()
    later = takewhile(lambda day: day < beyond, schedule.bill_days(first))
    billed = [
        schedule.amount_on(day)
        for day in later
        if max(first, begin) <= day <= min(last, end)
        and (schedule.planned or day != schedule.next_bill_date)
        and schedule.amount_on(day)
    ]
    found = counts.between(begin, end)
    cents = sum(count * amount for count, (_, amount) in zip(found, schedule.amounts, strict=True))
    assert (sum(found), cents) == (len(billed), sum(billed))


async def record_daily_contracts(daybook: Daybook) -> None:
    """Contracts that bill each day from 14 November on, each a customer's of their own, at two amounts."""
    for number in range(MANY):
        await daybook.record(
            "subscription.recorded",
            "2025-11-13T10:00:00Z",
            subscription_id=f"sub-{number}",
            customer_id=f"cust-{number}",
            status="active",
            currency="usd",
            items=[{"interval": "day", "every": 1, "unit_amount": str(100 + number % 2)}],
            next_bill_on="2025-11-14",
        )
    await daybook.catch_up()


async def test_daily_contracts_of_many_customers_are_in_each_quarter(daybook: Daybook) -> None:
    await record_daily_contracts(daybook)

    found = await daybook.get("/api/v1/revenue/quarterly-forecast", quarters=20, today="2025-11-13")

    last = found["quarters"][-1]  # 2030-Q3, of 92 days
    assert (last["bills"], last["customers"]) == (92 * MANY, MANY)
    assert last["upcoming_cents"] == 92 * (100 + 101) * MANY // 2


async def test_a_forecast_that_adds_up_too_much_is_refused_by_a_count(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "_MOST_COUNTS", 12)
    await record_daily_contracts(daybook)

    refused = await daybook.ask("/api/v1/revenue/quarterly-forecast", quarters=5, today="2025-11-13")

    assert refused.status_code == 400
    assert "1 kinds of schedules in 15 months; fewer quarters" in refused.json()["detail"]
    assert (await daybook.ask("/api/v1/revenue/quarterly-forecast", today="2025-11-13")).status_code == 200


async def test_a_list_of_too_many_forecast_bills_is_refused_and_their_sum_is_not(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "_MOST_FORECAST_BILLS", 10)
    await record_daily_contracts(daybook)
    of_a_day = {"from_": "2025-11-20", "to": "2025-11-20", "today": "2025-11-13"}

    refused = await daybook.ask("/api/v1/upcoming", **of_a_day, forecast="true")

    assert refused.status_code == 400
    assert f"at most 10 bills are listed, and there are {MANY}" in refused.json()["detail"]
    assert (await daybook.get("/api/v1/upcoming", **of_a_day))["forecast_count"] == MANY
