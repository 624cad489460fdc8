"""What a customer is expected to pay: bills by survival, orders by trend and season."""

from datetime import date
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins

from service.books.view import Scope
from service.core.cadence import add_months
from service.predictions.model import Estimate, Model, survival_probability
from service.reads.customers.customer import Customer
from service.reads.customers.forecast import build_forecast, forecast, narrow_interval, scheduled_bills
from service.reads.customers.trend import Month, full_months, seasonal_indices
from tests.support.customers import (
    TODAY,
    ago,
    contract,
    curve,
    customer,
    model,
    movement,
    order,
    schedule,
    view,
)
from tests.support.effort import examples

STARTED = date(2025, 1, 1)
AGE = (TODAY - STARTED).days  # of the contract made by hand
MONTH_END = date(2026, 3, 31)  # its month counts whole


def told(
    whom: Customer, months: int = 12, learnt: Model | None = None, today: date = TODAY
) -> dict[str, Any]:
    scope = Scope(currency="usd", today=today)
    document: dict[str, Any] = to_builtins(build_forecast(whom, scope, months, learnt))
    return document


def column(document: dict[str, Any], name: str = "expected_cents") -> list[Any]:
    return [row[name] for row in document["monthly"]]


def buyer(*cents: int, running: int = 0) -> Customer:
    """Whoever ordered for so much in each of the full months up to `TODAY`, and in its own so far.

    Before them they ordered for nothing, on the last day of a month.
    """
    months = [add_months(TODAY, -n, 10).isoformat() for n in range(len(cents), -1, -1)]
    first = order(add_months(TODAY, -len(cents) - 1, 31).isoformat(), 0)
    amounts = zip(months, (*cents, running), strict=True)
    return customer([first, *(order(day, amount) for day, amount in amounts if amount)])


# The document


def test_the_months_are_whole_ones_from_the_next_on() -> None:
    document = to_builtins(forecast(view(), buyer(100), 3))
    assert column(document, "month") == ["2026-04", "2026-05", "2026-06"]
    assert (document["success"], document["customer_id"], document["months"]) == (True, "cus_1", 3)


@pytest.mark.parametrize("today", [date(2026, 1, 31), date(2028, 2, 29), date(2026, 12, 1)])
def test_the_month_after_any_day_is_the_next_one(today: date) -> None:
    months = column(told(buyer(100), 36, today=today), "month")
    assert months[0] == add_months(today, 1, 1).isoformat()[:7]
    assert len(set(months)) == 36


@pytest.mark.parametrize(("months", "has_year"), [(11, False), (12, True), (36, True)])
def test_the_year_is_told_once_twelve_months_are_asked(months: int, has_year: bool) -> None:
    document = told(customer(contracts=[contract()]), months)
    assert (document["annual"] is not None) is has_year
    if has_year:
        assert document["annual"]["expected_cents"] == 60_000


def test_of_nobody_nothing_is_known() -> None:
    document = told(customer())
    assert document["method"] is None
    assert document["reason"] == "no order"
    assert column(document) == [None] * 12
    assert document["annual"] == {"expected_cents": None, "low_cents": None, "high_cents": None}


# Contracts


def test_without_a_model_bills_count_as_they_are_scheduled() -> None:
    document = told(customer([order(ago(40), 777)], [contract()]))
    assert column(document) == column(document, "contract_cents") == [5000] * 12
    assert column(document, "other_cents") == [0] * 12
    assert document["method"] == "scheduled"
    assert document["factors"]["survival"] == {
        "kind": None,
        "by_month": None,
        "reason": "no survival is known of this day (yet)",
    }
    assert document["reason"] == "no survival is known of this day (yet)"
    assert column(document, "low_cents") == column(document, "high_cents") == [None] * 12


def test_bills_roll_on_by_their_interval_until_the_contract_ends() -> None:
    yearly = contract(schedules=[schedule("2026-05-31", "year")], ends_date="2028-05-31")
    assert [day for month in scheduled_bills([yearly], months(36)).values() for day, _ in month] == [
        "2026-05-31",
        "2027-05-31",
    ]


def test_bills_change_where_a_discount_ends() -> None:
    discounted = schedule("2026-04-01", "month", 1, ("2026-06-01", 5000), cents=4000)
    assert column(told(customer(contracts=[contract(schedules=[discounted])]), 4)) == [4000, 4000, 5000, 5000]


def test_bills_of_this_month_are_not_of_the_forecast() -> None:
    weekly = contract(schedules=[schedule("2026-03-18", "week", cents=100)])
    assert column(told(customer(contracts=[weekly]), 2)) == [
        500,
        400,
    ]  # five Wednesdays in April, four in May


def test_several_contracts_add_up_and_those_without_a_date_count_nothing() -> None:
    undated = contract("sub_2", [])
    document = told(customer(contracts=[contract(), contract("sub_3"), undated]), 1)
    assert column(document) == [10_000]
    assert "sub_2: no next bill is known" in document["reason"]


def test_schedules_of_one_contract_add_up() -> None:
    both = contract(schedules=[schedule(), schedule("2026-05-20", "month", 3, cents=900)])
    assert column(told(customer(contracts=[both]), 5)) == [5000, 5900, 5000, 5000, 5900]


def test_a_price_that_cannot_be_read_is_said() -> None:
    document = told(customer(contracts=[contract(unpriced=True)]), 1)
    assert "sub_1: a price or discount can't be read" in document["reason"]


def test_a_contract_that_ends_before_its_next_bill_brings_nothing() -> None:
    ending = contract(schedules=[], ends_date="2026-03-31")
    document = told(customer([order(ago(40))], [ending]))
    assert document["annual"] == {"expected_cents": 0, "low_cents": 0, "high_cents": 0}
    assert document["method"] == "scheduled"
    assert "every live contract is set to end by 2026-03-31" in document["reason"]


def test_each_bill_counts_by_the_survival_to_its_day() -> None:
    learnt = model(tenure=curve({AGE + 17: 0.9, AGE + 60: 0.45}, 2000))  # 1 April is 17 days ahead
    document = told(customer(contracts=[contract()]), 3, learnt)
    assert column(document) == [4500, 4500, 2250]
    assert document["factors"]["survival"]["by_month"] == [0.9, 0.45, 0.45]
    assert document["method"] == "scheduled_survival"
    assert document["reason"] == "One order: 0 spells and 0 events, 30 and 10 are needed"  # so all are taken


def test_survival_is_that_of_those_who_have_lived_so_long() -> None:
    learnt = model(tenure=curve({100: 0.5, AGE + 1: 0.25}, 2000))
    assert column(told(customer(contracts=[contract()]), 1, learnt)) == [2500]


def test_where_nobody_left_the_bounds_are_what_is_expected() -> None:
    document = told(customer(contracts=[contract()]), 1, model(tenure=curve({100: 0.5}, 2000)))
    assert column(document) == column(document, "low_cents") == column(document, "high_cents") == [5000]


def test_beyond_the_curve_nothing_is_said() -> None:
    learnt = model(tenure=curve({AGE + 10: 0.5}, AGE + 50))  # to 4 May
    document = told(customer(contracts=[contract()]), 12, learnt)
    assert column(document)[:3] == column(document, "contract_cents")[:3] == [2500, 2500, None]
    assert [low is None for low in column(document, "low_cents")[:3]] == [False, False, True]
    assert document["factors"]["survival"]["by_month"][:2] == [0.5, None]
    assert document["annual"] == {"expected_cents": None, "low_cents": None, "high_cents": None}
    assert "survival is known for 50 days: nothing is said beyond" in document["reason"]


def test_a_month_without_a_bill_is_known_beyond_the_curve() -> None:
    yearly = contract(schedules=[schedule("2026-05-01", "year", cents=10)])
    document = told(customer(contracts=[yearly]), 12, model(tenure=curve({AGE + 10: 0.5}, AGE + 50)))
    assert column(document) == [0, 5, *[0] * 10]
    assert document["annual"]["expected_cents"] == 5


def test_without_a_curve_of_that_age_bills_count_as_they_are_scheduled() -> None:
    document = told(customer(contracts=[contract()]), 1, model(tenure=curve({10: 0.5}, 100)))
    assert (column(document), document["method"]) == ([5000], "scheduled")
    assert "no history that long" in document["reason"]


def test_a_trial_bills_as_scheduled() -> None:
    trial = contract(terms="[]")
    document = told(customer([order(ago(3))], [trial], []), 1, model(gap=curve({100: 0.5}, 900)))
    assert (column(document), document["method"]) == ([5000], "scheduled")
    assert "no contract counts in MRR" in document["reason"]


def test_a_trial_that_may_never_pay_is_said_to_be_one() -> None:
    document = told(customer(contracts=[contract(status="trialing", terms="[]")], movements=[]), 1)
    assert column(document) == [5000]
    assert "sub_1: a trial, which may never pay" in document["reason"]
    assert "trial" not in told(customer(contracts=[contract()]), 1)["reason"]


@pytest.mark.parametrize(
    ("fields", "unknown"),
    [
        ({}, 3),  # monthly on the 1st, next in April: 1 March and all before are not told
        ({"schedules": [schedule("2026-03-18", "week")]}, 3),
        ({"schedules": [schedule("2026-03-03", "week")]}, 2),
        ({"schedules": [schedule("2026-03-31")]}, 2),
        ({"schedules": [schedule(interval="year")]}, 0),  # the bill before was in 2025
        ({"schedules": [schedule("2026-03-20", "year"), schedule()]}, 3),  # of the one alone
        ({"schedules": [schedule(interval="year"), schedule("2027-07-01")]}, 0),  # this one begins then
        ({"schedules": [schedule(interval="once")]}, 0),
        ({"status": "trialing"}, 0),
    ],
)
def test_of_an_earlier_day_months_before_the_next_bill_are_not_known(
    fields: dict[str, Any], unknown: int
) -> None:
    document = told(customer(contracts=[contract(**fields)]), 12, today=date(2025, 12, 20))
    known = [cents is not None for cents in column(document)]
    assert known == [False] * unknown + [True] * (12 - unknown)
    assert column(document, "contract_cents") == column(document)
    assert (document["annual"]["expected_cents"] is None) is (unknown > 0)
    assert ("which bills came before" in document["reason"]) is (unknown > 0)


def test_a_live_contract_without_a_date_is_foretold_by_its_orders() -> None:
    whom = customer(buyer(*[5000] * 12).orders, [contract(schedules=[])])
    document = told(whom, 3, model(tenure=curve({AGE + 60: 0.5}, 2000)))  # to 14 May
    assert column(document) == column(document, "other_cents") == [5000, 2500, 2500]
    assert document["method"] == "orders_survival"
    assert document["factors"]["survival"]["kind"] == "tenure"


@given(st.floats(0.01, 0.99), st.integers(1, 500))
def test_the_interval_is_narrower_than_the_known_one_and_has_the_value(left: float, ahead: int) -> None:
    known = survival_probability(curve({ahead: left}, 2000), 0, ahead)
    ours = narrow_interval(known)
    bounds = known.low, ours.low, ours.value, ours.high, known.high
    assert [*bounds] == sorted(bound for bound in bounds if bound is not None)
    assert ours.value == known.value


@pytest.mark.parametrize("chance", [Estimate(0.5, 0.0, 0.9), Estimate(0.5, 0.1, 1.0)])
def test_an_interval_at_its_limit_stays(chance: Estimate) -> None:
    assert narrow_interval(chance) == chance


# Orders


def months(count: int) -> list[str]:
    return [add_months(TODAY, n + 1, 1).isoformat()[:7] for n in range(count)]


def test_a_month_is_full_that_lies_between_the_first_order_and_today() -> None:
    rows = [
        order("2025-11-02", 500),
        order("2025-12-31", 700),
        order("2025-12-01", 1),
        order("2026-03-01", 9),
    ]
    assert full_months(customer(rows).orders, TODAY) == [
        Month("2025-12", 701, 2),
        Month("2026-01", 0, 0),
        Month("2026-02", 0, 0),
    ]
    assert full_months([order("2025-12-01")], TODAY)[0].name == "2025-12"
    assert full_months([order("2026-02-02")], TODAY) == []


def test_without_a_full_month_nothing_is_known() -> None:
    document = told(customer([order("2026-02-02")]))
    assert document["reason"] == document["factors"]["frequency"]["reason"]
    assert document["reason"] == "no full month since the first order"
    assert column(document) == column(document, "other_cents") == [None] * 12
    assert column(document, "contract_cents") == [0] * 12


def test_orders_go_on_as_often_and_as_large_as_they_were() -> None:
    document = told(buyer(900, 0, 300, running=400), today=MONTH_END)
    assert document["factors"]["frequency"] == {
        "orders_per_month": 0.6667,
        "avg_order_value_cents": 600,
        "months": 3,
        "reason": None,
    }
    assert column(document) == [400] * 12
    assert document["annual"] == {"expected_cents": 4800, "low_cents": None, "high_cents": None}
    assert document["method"] == "orders"
    assert "no interval: 4 full months" in document["reason"]


def test_only_the_last_twelve_full_months_count() -> None:
    document = told(buyer(*[9_000_000] * 3, *[100] * 12, running=100), today=MONTH_END)
    assert document["factors"]["frequency"]["months"] == 12
    assert column(document) == [100] * 12


@pytest.mark.parametrize(("count", "slope"), [(4, None), (5, 50.0), (11, 66.6667)])
def test_a_trend_needs_six_full_months_and_of_few_months_little_is_believed(
    count: int, slope: float | None
) -> None:
    rising = buyer(*(1000 + 100 * n for n in range(count)), running=1000 + 100 * count)
    document = told(rising, today=MONTH_END)
    assert document["factors"]["trend"]["cents_per_month"] == slope
    assert (document["factors"]["trend"]["reason"] is None) is (slope is not None)


def test_a_trend_levels_off() -> None:
    rising = buyer(*(1000 + 100 * n for n in range(11)), running=2100)
    cents = column(told(rising, 36, today=MONTH_END))
    assert cents[0] == 1964  # from 1550, the level, two thirds of the way to 2171: 2000, then 90 and 81 more
    steps = [after - before for before, after in pairwise(cents)]
    assert steps[0] == 49
    assert max(steps) <= steps[0] + 1
    assert 2400 < cents[-1] < 2450  # the trend ends with 2900


def test_a_falling_trend_never_reaches_zero() -> None:
    document = told(buyer(*(1100 - 100 * n for n in range(11))), today=MONTH_END)
    assert column(document) == [183] * 12  # a third of the level, since the trend says 0
    assert document["factors"]["trend"]["cents_per_month"] == -66.6667


def test_one_large_order_is_no_trend() -> None:
    document = told(buyer(*[0] * 11, 13_000), today=MONTH_END)
    assert column(document) == [1000] * 12
    assert document["factors"]["trend"] == {
        "cents_per_month": None,
        "reason": "357 cents a month may well be chance",
    }


def test_the_interval_comes_from_the_months_about_their_mean() -> None:
    document = told(buyer(1000, 3000, 1000, 3000, 3000, 1000, running=2000), today=MONTH_END)
    assert column(document) == [2000] * 12
    deviation = (6 * 1000**2 / 6) ** 0.5
    t = 1.439756  # for 80 % and 6 degrees of freedom
    off = t * deviation * (1 + 1 / 7) ** 0.5
    assert column(document, "low_cents") == [round(2000 - off)] * 12
    assert column(document, "high_cents") == [round(2000 + off)] * 12
    year = t * deviation * (12 + 12**2 / 7) ** 0.5
    assert document["annual"]["high_cents"] == 24_000 + round(year)


@pytest.mark.parametrize(("count", "known"), [(23, False), (24, True)])
def test_seasons_need_two_full_years(count: int, known: bool) -> None:
    indices, reason = seasonal_indices([Month(name, 100, 1) for name in past(count)])
    assert (indices is not None, reason is None) == (known, known)


def test_seasons_need_orders_in_two_years() -> None:
    rows = [Month(name, 100 * (n < 12), n < 12) for n, name in enumerate(past(24))]
    assert seasonal_indices(rows) == (None, "1 full years with orders, 2 are needed")


def test_a_yearly_order_is_expected_in_its_month() -> None:
    document = told(buyer(*([0] * 6 + [60_000] + [0] * 5) * 2))
    assert column(document) == [0, 0, 0, 0, 0, 60_000, 0, 0, 0, 0, 0, 0]
    assert document["monthly"][5]["month"] == "2026-09"
    assert document["factors"]["seasonality"]["indices"]["09"] == 12.0


def test_a_season_is_no_trend() -> None:
    year = [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1100, 1200]
    document = told(buyer(*year, *year, running=100), 24, today=MONTH_END)
    assert column(document) == [*year[1:], year[0]] * 2  # they end with February, and April is next
    assert document["factors"]["trend"]["cents_per_month"] is None


def test_orders_count_by_the_chance_of_not_having_gone_for_good() -> None:
    learnt = model(gap=curve({100: 0.25}, 900))  # each order is the last for a quarter of them
    level = 12_000 / (12 + 15 / 31)
    document = told(buyer(*[1000] * 12), 9, learnt)
    # the last order was 33 days ago: the next comes in 67 days, and others in 167 and 267
    assert column(document)[:2] == [round(0.75 * level), round(0.5625 * level)]
    chances = document["factors"]["survival"]["by_month"]
    assert [*chances[:4], chances[6]] == pytest.approx([0.75, 0.5625, 0.5625, 0.5625, 0.4219], abs=1e-3)
    assert column(document) == pytest.approx([level * chance for chance in chances], abs=1)
    assert document["factors"]["survival"]["kind"] == "gap"
    assert document["method"] == "orders_survival"


def test_loss_repeats_month_by_month() -> None:
    learnt = model(gap=curve({30: 0.1}, 400))
    whom = customer([order(ago(days)) for days in range(0, 400, 30)])
    chances = told(whom, 36, learnt)["factors"]["survival"]["by_month"]
    known = [chance for chance in chances if chance is not None]
    assert len(known) == 35  # 1,095 days
    assert all(after < before for before, after in pairwise(known[:30]))
    assert known[11] == pytest.approx(0.9**14, abs=0.03)  # 31 March is 381 days ahead, 12 orders and one more


def test_a_former_customer_is_expected_back_only_where_something_tells_of_it() -> None:
    moves = [movement("new", ago(400), 1000), movement("churn", ago(20), 0)]
    whom = customer(buyer(*[1000] * 12).orders, [contract(schedules=[], terms="[]")], moves)
    document = told(whom, 2)
    assert column(document) == [None, None]
    assert document["reason"].startswith("the contract has ended")
    back = told(whom, 2, model(gap=curve({100: 0.9}, 900)))
    assert column(back) == [round(1200 / (12 + 15 / 31))] * 2


def test_the_running_month_counts_by_what_of_it_has_elapsed() -> None:
    half = date(2026, 4, 15)
    rows = [order(day, 3000) for day in ("2026-01-31", "2026-02-10", "2026-03-10", "2026-04-10")]
    assert column(told(customer(rows), 1, today=half)) == [round(9000 / 2.5)]
    assert column(told(customer(rows[:-1]), 1, today=half)) == [round(6000 / 2.5)]


def test_what_follows_the_first_day_counts_by_the_rest_of_its_month() -> None:
    rows = [order(day, 3100) for day in ("2026-01-11", "2026-01-11", "2026-01-12", "2026-02-10")]
    expected = 6200 / (Fraction(20, 31) + 1 + Fraction(15, 31))
    assert column(told(customer(rows), 1)) == [round(expected)]


def test_of_orders_of_one_day_no_rate_is_known_until_a_year_has_passed() -> None:
    document = told(customer([order(ago(300)), order(ago(300))]))
    assert column(document) == [None] * 12
    assert document["method"] is None
    assert document["reason"] == "no order since the first day, so how often they come is not known"
    assert column(told(customer([order(ago(500))]))) == [0] * 12


def test_who_ordered_five_days_ago_is_not_forecast_at_nothing_after_a_steep_fall() -> None:
    amounts = (90_000, 80_000, 60_000, 50_000, 30_000, 20_000, 9_000, 2_000)
    whom = buyer(*amounts, running=1_000)
    assert whom.orders[-1].date == ago(5)
    document = told(whom)
    assert document["factors"]["trend"]["cents_per_month"] < 0
    assert min(column(document)) > 10_000


def test_a_free_plan_does_not_hide_what_is_ordered_beside_it() -> None:
    free = contract(schedules=[schedule(cents=0)], terms="[]")
    document = told(customer(buyer(*[5000] * 12, running=5000).orders, [free], []), 2, today=MONTH_END)
    assert column(document) == column(document, "other_cents") == [5000] * 2
    assert document["method"] == "orders"


def test_a_contract_that_bills_in_two_years_is_known_to_bill_nothing_before() -> None:
    late = contract(schedules=[schedule("2028-03-01", "year", 3)])
    assert column(told(buyer_with(late), 24)) == [0] * 23 + [5000]


def buyer_with(row: Any) -> Customer:
    return customer(buyer(*[900] * 12).orders, [row])


def test_live_contracts_without_a_date_are_the_least_that_is_expected() -> None:
    document = told(buyer_with(contract(schedules=[])), 2, model(tenure=curve({AGE + 60: 0.5}, 2000)))
    assert column(document) == [5000, 2500]
    assert "not below the MRR of contracts whose next bill is not known" in document["reason"]


def test_a_live_contract_without_a_date_or_an_order_is_expected_to_bring_its_mrr() -> None:
    document = told(customer(contracts=[contract(schedules=[])]), 2)
    assert column(document) == column(document, "other_cents") == [5000, 5000]
    assert column(document, "low_cents") == [None, None]
    assert document["method"] == "orders"
    assert "no interval: no order" in document["reason"]


def test_a_curve_of_a_hundred_lives_shows_no_chance_below_one_in_a_hundred_and_two() -> None:
    document = told(customer(contracts=[contract()]), 1, model(tenure=curve({AGE + 1: 0.001}, 2000)))
    (month,) = document["monthly"]
    assert month["expected_cents"] == round(5000 / 102)
    assert month["low_cents"] < month["expected_cents"] < month["high_cents"]


def test_seasons_need_orders_in_the_last_year() -> None:
    rows = [Month(name, 100 * (n < 24), n < 24) for n, name in enumerate(past(36))]
    assert seasonal_indices(rows) == (None, "no order in the last full year")


# How sure it is


def test_the_confidence_is_in_the_width_of_the_interval_and_in_the_length_of_the_history() -> None:
    document = told(buyer(1000, 3000, 1000, 3000, 3000, 1000, running=2000), 1, today=MONTH_END)
    (month,) = document["monthly"]
    half = (month["high_cents"] - month["low_cents"]) / 2
    known = (MONTH_END - date(2025, 8, 31)).days * 12 / 365
    score = 2000 / (2000 + half) * known / (known + 6)
    assert document["confidence_score"] == pytest.approx(score, abs=1e-4)


def test_the_same_orders_for_longer_are_surer() -> None:
    scores = [
        told(buyer(*[1000, 1200] * pairs, running=1100), today=MONTH_END)["confidence_score"]
        for pairs in (3, 6, 12)
    ]
    assert 0.3 < scores[0] < scores[1] < scores[2] < 0.9


def test_without_an_interval_there_is_no_confidence() -> None:
    assert told(buyer(900, 0, 300))["confidence_score"] == 0
    assert told(customer(contracts=[contract()]))["confidence_score"] == 0


def test_where_nothing_is_expected_to_be_known_there_is_no_score() -> None:
    assert told(customer())["confidence_score"] is None


def test_a_certain_nothing_is_as_sure_as_the_history_is_long() -> None:
    ending = customer(contracts=[contract(schedules=[], ends_date="2026-03-31")])
    months = AGE * 12 / 365
    sure = told(ending, 12, model(tenure=curve({100: 0.5}, 2000)))["confidence_score"]
    assert sure == pytest.approx(months / (months + 6), abs=1e-4)


# Always

cents = st.integers(0, 10**9)
curves = st.none() | st.builds(
    lambda ages, end: curve({age: 0.97 ** (n + 1) for n, age in enumerate(sorted(ages))}, end),
    st.sets(st.integers(1, 1500), min_size=1, max_size=30),
    st.integers(1500, 3000),
)
contracts = st.lists(
    st.builds(
        lambda bills, ends: contract(
            schedules=[schedule(ago(-ahead), every=every, cents=amount) for every, ahead, amount in bills],
            ends_date=ends and ago(-ends),
        ),
        st.lists(
            st.tuples(st.integers(1, 12), st.integers(1, 28), cents), max_size=2
        ),  # those before are past
        st.none() | st.integers(29, 900),
    ),
    max_size=3,
)
people = st.builds(
    lambda days, rows: customer([order(ago(day), amount) for day, amount in days], rows),
    st.lists(st.tuples(st.integers(0, 1400), cents), max_size=40),
    contracts,
)


@examples(60)
@given(people, curves, curves, st.integers(12, 36))
def test_bounds_hold_what_is_expected_and_months_add_up(
    whom: Customer, tenure: Any, gap: Any, count: int
) -> None:
    document = told(whom, count, model(tenure, gap))
    for row in [*document["monthly"], document["annual"]]:
        value, low, high = (row[name] for name in ("expected_cents", "low_cents", "high_cents"))
        assert value is None or value >= 0
        assert (low is None) == (high is None)
        assert low is not None or document["reason"]
        assert low is None or 0 <= low <= value <= high
    for row in document["monthly"]:
        parts = row["contract_cents"], row["other_cents"]
        assert row["expected_cents"] == (None if None in parts else sum(parts))
    score = document["confidence_score"]
    assert (score is None) == (set(column(document)) == {None})
    assert score is None or 0 <= score <= 1
    year = column(document)[:12]
    assert document["annual"]["expected_cents"] == (None if None in year else sum(year))


dear = st.integers(10**6, 10**9)


@examples(60)
@given(st.lists(st.tuples(st.integers(6, 600), dear), min_size=9, max_size=9), dear, curves)
def test_who_has_ordered_ten_times_and_five_days_ago_is_never_expected_to_bring_nothing(
    before: list[tuple[int, int]], last: int, gap: Any
) -> None:
    whom = customer([order(ago(5), last), *(order(ago(day), amount) for day, amount in before)])
    expected = column(told(whom, 12, model(gap=gap)))
    assert 0 not in expected


@examples(40)
@given(people, curves, curves, st.integers(1, 35))
def test_fewer_months_are_the_first_of_more(whom: Customer, tenure: Any, gap: Any, count: int) -> None:
    learnt = model(tenure, gap)
    assert told(whom, count, learnt)["monthly"] == told(whom, 36, learnt)["monthly"][:count]


@examples(40)
@given(people.filter(lambda whom: bool(whom.contracts)), curves)
def test_no_more_is_expected_than_is_scheduled(whom: Customer, tenure: Any) -> None:
    if all(row.next_bill_date is None for row in whom.contracts):
        return
    plain, weighed = told(whom), told(whom, 12, model(tenure))
    assert all(b is None or a >= b for a, b in zip(column(plain), column(weighed), strict=True))


@given(st.lists(cents, min_size=24, max_size=48))
def test_indices_of_the_seasons_are_one_on_average(amounts: list[int]) -> None:
    indices, _ = seasonal_indices(
        [Month(name, amount, 1) for name, amount in zip(past(len(amounts)), amounts, strict=True)]
    )
    assert indices is None or sum(indices.values()) == 12


def past(count: int) -> list[str]:
    return [add_months(TODAY, -n, 1).isoformat()[:7] for n in range(count, 0, -1)]
