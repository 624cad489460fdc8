"""Billing schedules: which items one bill asks for, on what days, and how they are rolled on."""

from datetime import UTC, date, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.book import Rules
from projections.schedules import BillingSchedule, decode
from service.core.cadence import Anchor, add_months, bill_dates
from service.core.events import Discount, Phase, Schedule
from tests.support.events import at, changed, created, event, item, subscription
from tests.support.folded_books import bills, contract

UTC_RULES = Rules()
NEW_YORK = Rules(reporting_tz="America/New_York")


def one(*items, **fields):
    """The rows of one contract's bills: (day, interval, amount)."""
    plan = subscription(*items, **{"next_bill_at": at("2025-12-01"), **fields})
    return [(row.date, row.interval, row.amount_cents) for row in bills([created(plan, "2025-11-01")])]


def rolled_on(*items, rules=UTC_RULES, count=4, **fields):
    """The days of the first bills of one contract with one schedule."""
    plan = subscription(*items, **fields)
    (schedule,) = decode(contract([created(plan, "2025-01-01")], rules).schedules)
    return list(islice(schedule.bill_days(), count))


# Items on their own dates


def test_items_of_two_intervals_are_billed_each_on_its_own_date():
    yearly = item(12_000, "year", next_bill_at=at("2026-06-15"))
    assert one(item(1_000), yearly) == [("2025-12-01", "month", 1_000), ("2026-06-15", "year", 12_000)]


def test_items_of_two_intervals_and_one_date_are_two_rows_of_that_day():
    rows = one(item(3_000, "month", 3), item(700, "month"), item(300, "month"))
    assert rows == [("2025-12-01", "month", 1_000), ("2025-12-01", "month", 3_000)]


def test_items_of_one_interval_and_two_period_ends_are_two_bills():
    rows = one(item(1_000), item(500, next_bill_at=at("2025-12-15")))
    assert rows == [("2025-12-01", "month", 1_000), ("2025-12-15", "month", 500)]


def test_a_contracts_amount_is_that_of_the_day_of_its_next_bill():
    plan = subscription(item(1_000), item(12_000, "year"), next_bill_at=at("2025-12-01"))
    row = contract([created(plan, "2025-11-01")])
    assert (row.next_bill_date, row.amount_cents, row.interval) == ("2025-12-01", 13_000, "month")


def test_one_off_items_are_in_no_schedule_of_a_contract_that_recurs():
    assert one(item(1_000), item(900, "once")) == [("2025-12-01", "month", 1_000)]


def test_in_a_trial_all_items_are_billed_at_its_end():
    rows = one(item(1_000), item(9_000, "year"), status="trialing", trial_end_at=at("2025-11-20"))
    assert rows == [("2025-11-20", "month", 1_000), ("2025-11-20", "year", 9_000)]


def test_a_prebilled_item_is_billed_when_its_prebilled_time_is_over():
    assert one(item(1_000, next_bill_at=at("2026-11-01"))) == [("2026-11-01", "month", 1_000)]


def test_a_percentage_is_off_every_schedule_and_an_amount_off_the_most_frequent_one():
    items = item(1_000), item(12_000, "year")
    percent, amount = Discount(percent_off=10), Discount(amount_off=400)
    assert [cents for *_, cents in one(*items, discounts=(percent,))] == [900, 10_800]
    assert [cents for *_, cents in one(*items, discounts=(amount,))] == [600, 12_000]


def test_a_schedule_that_the_contracts_end_comes_before_leaves_no_bill():
    yearly = item(12_000, "year", next_bill_at=at("2026-06-15"))
    assert one(item(1_000), yearly, cancel_at=at("2026-01-01")) == [("2025-12-01", "month", 1_000)]


# Rolling on


def test_31_january_is_followed_by_28_february_and_31_march():
    dates = bill_dates(date(2025, 1, 31), "month", 1)
    assert list(islice(dates, 3)) == [date(2025, 1, 31), date(2025, 2, 28), date(2025, 3, 31)]


def test_a_leap_day_comes_back_in_the_next_leap_year():
    days = list(islice(bill_dates(date(2024, 2, 29), "year", 1), 5))
    assert (days[1], days[4]) == (date(2025, 2, 28), date(2028, 2, 29))


def test_the_last_date_there_is_ends_the_bills():
    assert list(bill_dates(date(9999, 12, 31), "week", 1)) == [date(9999, 12, 31)]
    assert list(bill_dates(date(2025, 1, 1), "once", 1)) == [date(2025, 1, 1)]
    last = BillingSchedule(interval="month", every=1, first=date(9999, 12, 1), zone="Asia/Tokyo", amounts=())
    assert list(last.bill_days()) == ["9999-12-01"]


@pytest.mark.parametrize("anchor", [None, Anchor(day=31), Anchor(day=15, on=date(2023, 11, 15))])
@pytest.mark.parametrize(
    ("interval", "every"), [("day", 3), ("week", 2), ("month", 1), ("month", 5), ("year", 1)]
)
def test_a_date_far_ahead_is_reached_without_the_dates_before_it(interval, every, anchor):
    whole = list(islice(bill_dates(date(2024, 1, 31), interval, every, anchor), 3_000))
    for since in (date(2024, 1, 30), date(2024, 3, 1), date(2031, 12, 31)):
        ahead = bill_dates(date(2024, 1, 31), interval, every, anchor, since)
        assert next(day for day in ahead if day >= since) == next(day for day in whole if day >= since)


def test_bills_roll_on_to_the_anchor_day():
    days = rolled_on(anchor_at=at("2024-12-31"), next_bill_at=at("2025-02-28"))
    assert days == ["2025-02-28", "2025-03-31", "2025-04-30", "2025-05-31"]


def test_a_next_bill_that_is_not_on_the_anchor_is_followed_by_one_that_is():
    days = rolled_on(anchor_at=at("2024-12-31"), next_bill_at=at("2025-02-14"))
    assert days == ["2025-02-14", "2025-02-28", "2025-03-31", "2025-04-30"]


def test_a_quarter_after_a_shortened_period_is_counted_from_the_anchor():
    days = rolled_on(item(900, "month", 3), anchor_at=at("2025-01-10"), next_bill_at=at("2025-02-03"))
    assert days == ["2025-02-03", "2025-04-10", "2025-07-10", "2025-10-10"]


@pytest.mark.parametrize(
    ("plan", "days"),
    [
        (item(), ["2025-11-22", "2025-12-01", "2026-01-01"]),
        (item(900, "year"), ["2025-11-22", "2025-12-01", "2026-12-01"]),
        (item(900, "week"), ["2025-11-22", "2025-12-01", "2025-12-08"]),
    ],
)
def test_a_trial_that_ends_before_the_anchor_is_billed_to_the_anchor(plan, days):
    trial = {"status": "trialing", "trial_end_at": at("2025-11-22"), "anchor_at": at("2025-12-01")}
    assert rolled_on(plan, next_bill_at=at("2025-11-22"), count=3, **trial) == days


def test_a_stated_day_of_month_goes_before_that_of_the_anchor():
    fields = {"anchor_at": at("2025-02-28"), "anchor_day": 30, "next_bill_at": at("2025-02-28")}
    assert rolled_on(count=3, **fields) == ["2025-02-28", "2025-03-30", "2025-04-30"]


def test_a_date_is_rolled_on_as_a_date_to_the_day_of_month_of_its_anchor():
    fields = {"next_bill_on": date(2025, 11, 30), "anchor_on": date(2025, 8, 31)}
    assert rolled_on(rules=NEW_YORK, count=3, **fields) == ["2025-11-30", "2025-12-31", "2026-01-31"]


def test_a_moment_near_midnight_is_rolled_on_in_utc():
    days = rolled_on(rules=NEW_YORK, next_bill_at=at("2025-02-28 03:00"), anchor_at=at("2025-01-31 03:00"))
    assert days == ["2025-02-27", "2025-03-30", "2025-04-29", "2025-05-30"]


def test_a_moment_keeps_its_hour_in_utc_when_the_clocks_change():
    days = rolled_on(rules=NEW_YORK, next_bill_at=at("2025-11-01 04:10"), count=3)
    assert days == ["2025-11-01", "2025-11-30", "2025-12-31"]


def test_bills_roll_until_the_contract_ends():
    assert rolled_on(next_bill_at=at("2025-11-13"), cancel_at=at("2026-01-13")) == [
        "2025-11-13",
        "2025-12-13",
    ]


MOMENTS = st.datetimes(*(at(day).replace(tzinfo=None) for day in ("2019-01-01", "2034-12-31"))).map(
    lambda moment: moment.replace(tzinfo=UTC)
)


@given(
    zone=st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"})),
    first=MOMENTS,
    cycle=st.sampled_from([("day", 1), ("day", 30), ("week", 1), ("month", 1), ("month", 3), ("year", 1)]),
)
def test_a_moment_rolled_on_in_any_zone_is_the_rule_in_utc(zone, first, cycle):
    interval, every = cycle
    schedule = BillingSchedule(
        interval=interval,
        every=every,
        first=first.date(),
        first_time=first.time(),
        anchor=Anchor(day=first.day, on=first.date()),
        zone=zone,
        amounts=(),
    )

    def moment(number: int) -> datetime:
        if interval in ("day", "week"):
            return first + number * every * timedelta(days=7 if interval == "week" else 1)
        months = number * every * (12 if interval == "year" else 1)
        return datetime.combine(add_months(first.date(), months, first.day), first.time(), UTC)

    expected = [moment(number).astimezone(ZoneInfo(zone)).date().isoformat() for number in range(30)]
    assert list(islice(schedule.bill_days(), 30)) == expected
    since = expected[12]
    assert next(day for day in schedule.bill_days(since) if day >= since) == since


schedules = st.builds(
    BillingSchedule,
    interval=st.sampled_from(["day", "week", "month", "year", "once"]),
    every=st.integers(1, 14),
    first=st.dates(date(2024, 1, 1), date(2026, 12, 31)),
    first_time=st.none() | st.times(),
    anchor=st.none()
    | st.builds(Anchor, day=st.integers(1, 31), on=st.none() | st.dates(date(2024, 1, 1), date(2027, 6, 30))),
    anchor_time=st.none() | st.times(),
    until=st.none() | st.dates(date(2024, 1, 1), date(2029, 1, 1)).map(date.isoformat),
    zone=st.sampled_from(sorted(available_timezones())) | st.just("UTC"),
    amounts=st.just(()),
)


@given(schedule=schedules, day=st.dates(date(2023, 12, 1), date(2030, 12, 31)).map(date.isoformat))
def test_the_bills_before_a_day_are_counted_as_if_each_were_looked_at(schedule, day):
    # two days of the zone may be out of order, where a clock is set back over midnight
    days = takewhile(lambda each: each < "2031-01-03", schedule.bill_days())

    assert schedule.bills_before(day) == sum(each < day for each in days)
    assert list(islice(schedule.without_times().bill_days(), 50)) == list(islice(schedule.bill_days(), 50))


# Phases to come


def planned(*phases, status="active", **fields):
    return Schedule(schedule_id="sched_1", subscription_id="sub_1", status=status, phases=phases, **fields)


def rows_with(schedule, plan=None):
    plan = plan or subscription(item(price_id="price_a"), next_bill_at=at("2025-12-01"))
    events = [created(plan, "2025-11-01"), event(schedule, "2025-11-02")]
    return decode(contract(events).schedules), contract(events)


def test_a_price_that_is_planned_changes_the_bills_from_its_phase_on():
    phase = Phase(starts_at=at("2026-02-01"), items=(item(30_000),))
    (schedule,), row = rows_with(planned(phase))
    assert schedule.amounts == (("2025-12-01", 24_900), ("2026-02-01", 30_000))
    assert not row.unpriced


def test_a_planned_phase_on_the_next_bills_day_is_what_it_asks_for():
    phase = Phase(starts_at=at("2025-12-01"), items=(item(100),))
    _, row = rows_with(planned(phase))
    assert row.amount_cents == 100


def test_an_interval_that_is_planned_is_billed_from_its_phases_first_day():
    phase = Phase(starts_at=at("2026-01-15"), items=(item(90_000, "year"),))
    schedules, row = rows_with(planned(phase))
    assert row.next_bill_date == "2025-12-01"  # nobody has stated the year's
    assert [each.planned for each in schedules] == [False, True]
    assert [(each.interval, list(islice(each.bill_days(), 3))) for each in schedules] == [
        ("month", ["2025-12-01", "2026-01-01"]),
        ("year", ["2026-01-15", "2027-01-15", "2028-01-15"]),
    ]


def test_a_planned_price_that_the_contract_had_before_is_known_by_its_id():
    old = subscription(item(10_000, price_id="price_old"), next_bill_at=at("2025-11-01"))
    new = subscription(item(20_000, price_id="price_new"), next_bill_at=at("2025-12-01"))
    phase = Phase(starts_at=at("2026-02-01"), items=(item(None, price_id="price_old"),))
    events = [created(old, "2025-10-01"), changed(new, "2025-11-01"), event(planned(phase), "2025-11-02")]
    (schedule,) = decode(contract(events).schedules)
    assert schedule.amounts == (("2025-12-01", 20_000), ("2026-02-01", 10_000))


def test_a_planned_price_that_is_not_known_is_flagged_and_changes_nothing():
    phase = Phase(starts_at=at("2026-02-01"), items=(item(None, price_id="price_x"),))
    (schedule,), row = rows_with(planned(phase))
    assert schedule.amounts == (("2025-12-01", 24_900),)
    assert row.unpriced


@pytest.mark.parametrize("status", ["released", "canceled", "completed"])
def test_a_schedule_that_is_over_changes_nothing(status):
    phase = Phase(starts_at=at("2026-02-01"), items=(item(30_000),))
    (schedule,), _ = rows_with(planned(phase, status=status))
    assert schedule.amounts == (("2025-12-01", 24_900),)


@pytest.mark.parametrize("discount", [{"currency": "eur"}, {"currency": "jpy"}])
def test_an_amount_in_another_currency_is_not_off_and_is_flagged(discount):
    off = Discount(amount_off=400, **discount)
    plan = subscription(item(1_000), next_bill_at=at("2025-12-01"), discounts=(off,))
    row = contract([created(plan, "2025-11-01")])
    assert (row.amount_cents, row.unpriced) == (1_000, True)


@pytest.mark.parametrize(("ends", "cents"), [("15:00", 500), ("10:00", 1_000), ("09:59", 1_000)])
def test_a_bill_has_the_discount_that_ends_later_on_its_day(ends, cents):
    off = Discount(percent_off=50, duration="repeating", ends_at=at(f"2025-12-01 {ends}"))
    assert rows_at_ten(discounts=(off,)) == cents


@pytest.mark.parametrize(("ends", "cents"), [("15:00", 0), ("10:00", 1_000)])
def test_a_bill_has_no_item_whose_trial_ends_later_on_its_day(ends, cents):
    assert rows_at_ten(item(1_000, trial_end_at=at(f"2025-12-01 {ends}"))) == cents


def rows_at_ten(*items, **fields):
    """The amount of the first bill, on 1 December at 10:00."""
    plan = subscription(*(items or (item(1_000),)), next_bill_at=at("2025-12-01 10:00"), **fields)
    (schedule,) = decode(contract([created(plan, "2025-11-01")]).schedules)
    return schedule.amount_on("2025-12-01")


@pytest.mark.parametrize("ends", ["2026-05-01", "2026-01-15"])
def test_a_schedule_that_cancels_ends_the_contract_after_its_last_phase(ends):
    phase = Phase(starts_at=at("2025-12-15"), ends_at=at(ends), items=(item(30_000),))
    (schedule,), row = rows_with(planned(phase, end_behavior="cancel"))
    assert row.ends_date == ends
    assert all(day < ends for day in schedule.bill_days())


def test_a_schedule_that_releases_its_contract_ends_nothing():
    phase = Phase(starts_at=at("2025-12-15"), ends_at=at("2026-05-01"), items=(item(30_000),))
    _, row = rows_with(planned(phase, end_behavior="release"))
    assert row.ends_date is None


@pytest.mark.parametrize(
    "fields", [{"discounts": (Discount(amount_off=1_500),)}, {"credit": -1_500}], ids=["off", "credit"]
)
def test_what_one_bill_can_not_bear_of_a_day_with_two_is_flagged(fields):
    credit = [item(fields.pop("credit"))] if "credit" in fields else []
    plan = subscription(item(1_000), item(12_000, "year"), *credit, next_bill_at=at("2025-12-01"), **fields)
    assert contract([created(plan, "2025-11-01")]).unpriced
