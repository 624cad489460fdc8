"""The pure part: what a curve says of a customer, and when it says nothing."""

import subprocess
import sys
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json
from msgspec.structs import replace

from service.predictions.model import (
    ALL,
    ENDED,
    HORIZON_DAYS,
    LIFETIME_DAYS,
    ONE_ORDER,
    Curve,
    Facts,
    Model,
    State,
    billing_period,
    choose_curve,
    expected_units,
    later_order_probability,
    shortage_reason,
    state_of,
    stratum_of,
    survival_probability,
)
from service.predictions.predict import predict, predictor

TODAY = date(2026, 3, 1).toordinal()


def iso(ahead: int) -> str:
    return (date.fromordinal(TODAY) + timedelta(days=ahead)).isoformat()


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Any curve that fitting could make: falling survival with Greenwood's sums, over 40 to 2,000 days."""
    days = sorted(draw(st.sets(st.integers(1, 2000), min_size=1, max_size=30)))
    left, variance, risk = 1.0, 0.0, draw(st.integers(400, 5000))
    survivals, variances = [], []
    for _ in days:
        died = draw(st.integers(1, 10))
        left *= 1 - died / risk
        variance += died / (risk * (risk - died))
        risk -= died
        survivals.append(left)
        variances.append(variance)
    return Curve(
        n=5000,
        events=100,
        start=0,
        end=max(days[-1], 40),
        days=tuple(days),
        survival=tuple(survivals),
        greenwood=tuple(variances),
        renewals=tuple(n / 10 for n in range(LIFETIME_DAYS // 15 + 1)),
    )


def model(tenure: Curve | None = None, gap: Curve | None = None) -> Model:
    """A model with no more than the pooled curves."""
    return Model(
        day=TODAY,
        horizon_days=HORIZON_DAYS,
        tenure={ALL: tenure} if tenure else {},
        gap={ALL: gap} if gap else {},
        reasons={"tenure": {}, "gap": {}},
    )


HALVES = Curve(  # half of them at 10 days, half of those at 100
    n=100,
    events=75,
    start=0,
    end=300,
    days=(10, 100),
    survival=(0.5, 0.25),
    greenwood=(0.01, 0.03),
    renewals=(0.0,) * 74,
)

HALVING = tuple(sum(0.5 ** (n + 1) for n in range(day // 10)) for day in range(0, 1096, 15))

facts = st.builds(
    Facts,
    today=st.just(TODAY),
    orders=st.integers(0, 50),
    first_day=st.just(TODAY - 900),
    last_day=st.integers(TODAY - 800, TODAY),
    revenue_cents=st.integers(-(10**9), 10**9),
    average_order_cents=st.integers(-(10**6), 10**8),
    mrr_cents=st.integers(0, 10**8),
    tenure_day=st.integers(TODAY - 900, TODAY),
    ended_day=st.none() | st.integers(TODAY - 900, TODAY),
    last_order_cents=st.integers(0, 10**8),
    last_order_mrr_cents=st.integers(0, 10**8),
    bills=st.lists(
        st.tuples(st.integers(TODAY, TODAY + LIFETIME_DAYS), st.integers(0, 10**8)), max_size=40
    ).map(lambda bills: tuple(sorted(bills))),
    undated_mrr_cents=st.just(0) | st.integers(1, 10**8),
    overdue_date=st.none() | st.integers(-40, -1).map(iso),
    ends_date=st.none() | st.integers(-5, 900).map(iso),
)


@pytest.mark.parametrize(
    ("orders", "days", "name"),
    [
        (0, 0, ONE_ORDER),
        (1, 0, ONE_ORDER),
        (2, 0, "Monthly"),
        (2, 30, "Monthly"),
        (2, 31, "Quarterly"),
        (3, 60, "Monthly"),
        (3, 61, "Quarterly"),
        (2, 90, "Quarterly"),
        (2, 91, "Bi-Annual"),
        (2, 180, "Bi-Annual"),
        (2, 181, "Annual+"),
        (13, 365, "Quarterly"),
    ],
)
def test_strata_have_their_upper_bound(orders: int, days: int, name: str) -> None:
    assert stratum_of(orders, TODAY - days, TODAY) == name


def test_a_new_contract_has_no_rhythm_until_its_second_bill_is_due() -> None:
    new = Facts(today=TODAY, orders=1, first_day=TODAY, last_day=TODAY, mrr_cents=100, tenure_day=TODAY - 30)
    old = Facts(today=TODAY, orders=1, first_day=TODAY, last_day=TODAY, mrr_cents=100, tenure_day=TODAY - 31)
    assert state_of(new) == State("tenure", ALL, 30)
    assert state_of(old) == State("tenure", ONE_ORDER, 31)


@pytest.mark.parametrize(
    ("cents", "months"),
    [
        (0, None),
        (16, None),
        (17, 7 * 12 / 365),
        (50, 14 * 12 / 365),
        (92, 28 * 12 / 365),
        (100, 1),
        (125, 1),
        (200, 2),
        (300, 3),
        (600, 6),
        (1300, 12),
        (2400, 24),
        (3600, 36),
        (5091, 36),
        (5092, None),
    ],
)
def test_an_order_pays_for_what_contracts_bill(cents: int, months: float | None) -> None:
    assert billing_period(cents, 100) == (None if months is None else pytest.approx(months))
    assert billing_period(cents, 0) is None


def test_a_contract_is_of_its_billing_period_from_the_first_bill_on() -> None:
    paid = {"last_order_cents": 120_000, "last_order_mrr_cents": 10_000}
    yearly = Facts(
        today=TODAY, orders=1, first_day=TODAY, last_day=TODAY, mrr_cents=10_000, tenure_day=TODAY, **paid
    )
    assert state_of(yearly) == State("tenure", "Annual+", 0)
    assert state_of(replace(yearly, tenure_day=TODAY + 1)) == State("tenure", ALL, 0)


def test_after_the_end_of_a_contract_the_quiet_time_begins_then() -> None:
    ended = Facts(today=TODAY, orders=5, first_day=TODAY - 200, last_day=TODAY - 40, ended_day=TODAY - 20)
    assert state_of(ended) == State("gap", ENDED, 20)


def test_a_purchase_after_the_end_counts_by_rhythm_again() -> None:
    back = Facts(today=TODAY, orders=5, first_day=TODAY - 100, last_day=TODAY - 4, ended_day=TODAY - 20)
    assert state_of(back) == State("gap", "Monthly", 4)


def test_survival_is_conditional_on_having_come_so_far() -> None:
    assert survival_probability(HALVES, 0, 90).value == 0.5
    assert survival_probability(HALVES, 10, 90).value == 0.5
    assert survival_probability(HALVES, 0, 100).value == 0.25
    assert survival_probability(HALVES, 100, 90).value == 1.0


def test_without_events_there_is_no_interval() -> None:
    assert survival_probability(HALVES, 100, 90).low is None


@given(curves(), st.data())
def test_an_interval_holds_its_value_and_stays_within_zero_and_one(curve: Curve, data: st.DataObject) -> None:
    age = data.draw(st.integers(0, curve.end))
    chance = survival_probability(curve, age, data.draw(st.integers(0, curve.end - age)))
    assert 0.0 <= chance.value <= 1.0
    if chance.low is not None and chance.high is not None:
        assert 0.0 <= chance.low <= chance.value <= chance.high <= 1.0


@given(curves(), st.data())
def test_a_longer_horizon_is_never_safer(curve: Curve, data: st.DataObject) -> None:
    age = data.draw(st.integers(0, curve.end))
    near, far = sorted(data.draw(st.integers(0, curve.end - age)) for _ in range(2))
    assert survival_probability(curve, age, far).value <= survival_probability(curve, age, near).value


@given(facts, curves(), curves())
def test_predictions_are_probabilities_within_their_intervals(one: Facts, tenure: Curve, gap: Curve) -> None:
    told = predict(one, model(tenure, gap))
    for field in ("next_purchase_probability", "churn_risk_score"):
        value, interval = getattr(told, field), told.basis[field].interval
        assert value is None or 0.0 <= value <= 1.0
        assert not interval or interval[0] <= value <= interval[1]
    interval = told.basis["estimated_ltv_cents"].interval
    assert not interval or interval[0] <= told.estimated_ltv_cents <= interval[1]


@given(facts, curves(), curves())
def test_a_figure_has_a_method_and_a_missing_one_a_reason(one: Facts, tenure: Curve, gap: Curve) -> None:
    told = predict(one, model(tenure, gap))
    for field, basis in told.basis.items():
        if getattr(told, field) is None:
            assert basis.method is None
            assert basis.reason
        else:
            assert basis.method


@given(facts, curves(), curves())
def test_many_at_once_read_the_same_bytes_as_one(one: Facts, tenure: Curve, gap: Curve) -> None:
    learnt = model(tenure, gap)
    assert json.encode(predictor(learnt)(one)) == json.encode(predict(one, learnt))


@given(curves(), curves())
def test_a_model_reads_back_from_its_json(tenure: Curve, gap: Curve) -> None:
    learnt = model(tenure, gap)
    assert json.decode(json.encode(learnt), type=Model) == learnt


@given(facts, curves(), curves())
def test_more_days_bring_no_less_revenue(one: Facts, tenure: Curve, gap: Curve) -> None:
    learnt, at = model(tenure, gap), state_of(one)
    if at is None:
        return
    # from the horizon on, what can be read is the same curve
    units = [expected_units(learnt, at, days)[0] for days in (90, 180, LIFETIME_DAYS)]
    values = [unit.value for unit in units if unit]
    assert all(0 <= a <= b + 1e-9 for a, b in pairwise(values))


def live(**changes: object) -> Facts:
    known = {
        "orders": 3,
        "first_day": TODAY - 60,
        "last_day": TODAY,
        "tenure_day": TODAY - 60,
        "mrr_cents": 3000,
    }
    return Facts(today=TODAY, **(known | changes))  # type: ignore[arg-type]


def test_a_contract_that_is_set_to_end_is_stated_to_churn() -> None:
    told = predict(live(ends_date=iso(90)), model(HALVES))
    assert told.churn_risk_score == 1.0
    assert told.basis["churn_risk_score"].method == "stated"


def test_an_end_beyond_the_horizon_is_not_yet_churn() -> None:
    told = predict(live(ends_date=iso(91)), model(HALVES))
    assert told.churn_risk_score == 0.5


def test_the_next_bill_is_stated_and_its_chance_is_to_live_until_then() -> None:
    told = predict(live(bills=((TODAY + 40, 3000),)), model(HALVES))
    assert told.next_purchase_predicted_date == iso(40)
    assert told.basis["next_purchase_predicted_date"].method == "stated"
    assert told.next_purchase_probability == 0.5


def test_no_bill_is_predicted_after_the_stated_end() -> None:
    told = predict(live(bills=((TODAY + 40, 3000),), ends_date=iso(30)), model(HALVES))
    assert told.next_purchase_predicted_date is None
    assert told.next_purchase_probability == 0.0
    assert told.basis["next_purchase_predicted_date"].reason == f"set to end on {iso(30)}"


def test_no_bill_before_the_end_is_stated_and_no_more_is_expected() -> None:
    told = predict(live(ends_date=iso(30), revenue_cents=9000), model(HALVES))
    assert (told.next_purchase_probability, told.basis["next_purchase_probability"].method) == (0, "stated")
    assert (told.estimated_ltv_cents, told.basis["estimated_ltv_cents"].method) == (9000, "stated")
    assert told.basis["estimated_ltv_cents"].reason == f"set to end on {iso(30)}, before another bill"


def test_an_overdue_bill_has_no_date_and_no_probability() -> None:
    told = predict(live(bills=((TODAY + 20, 3000),), overdue_date=iso(-10)), model(HALVES))
    assert told.next_purchase_predicted_date is None
    assert told.next_purchase_probability is None
    for field in ("next_purchase_predicted_date", "next_purchase_probability"):
        assert told.basis[field].reason == f"the bill of {iso(-10)} is overdue"


def test_what_is_paid_in_advance_counts_once_in_the_lifetime_value() -> None:
    yearly = {"orders": 1, "first_day": TODAY, "last_day": TODAY, "tenure_day": TODAY, "mrr_cents": 10_000}
    bills = tuple((TODAY + day, 120_000) for day in (365, 730, 1095))
    paid = live(**yearly, revenue_cents=120_000, bills=bills)
    told = predict(paid, model(replace(HALVES, end=2000)))
    assert told.estimated_ltv_cents == 120_000 + 3 * 30_000  # a quarter of them lives so long
    assert predict(paid, model(replace(HALVES, days=(10, 400), end=2000))).estimated_ltv_cents == (
        120_000 + 60_000 + 2 * 30_000
    )


def test_bills_count_no_further_than_the_history() -> None:
    bills = tuple((TODAY + 30 * n, 3000) for n in range(1, 30))
    told = predict(live(tenure_day=TODAY - 154, revenue_cents=1, bills=bills), model(HALVES))
    assert told.estimated_ltv_cents == 1 + 4 * 3000
    reason = told.basis["estimated_ltv_cents"].reason or ""
    assert reason.endswith("counts 146 of the next 1095 days: no history that long")


def test_bills_that_end_within_the_history_are_all_counted() -> None:
    told = predict(live(tenure_day=TODAY - 154, bills=((TODAY + 146, 3000),)), model(HALVES))
    assert told.estimated_ltv_cents == 3000
    assert "counts" not in (told.basis["estimated_ltv_cents"].reason or "")


def test_without_a_dated_bill_mrr_accrues_and_the_reason_says_so() -> None:
    told = predict(live(tenure_day=TODAY - 154, revenue_cents=1, undated_mrr_cents=3000), model(HALVES))
    assert told.estimated_ltv_cents == 1 + 14400  # 146 days are 4.8 months
    assert "no next bill is dated: MRR accrues evenly" in (told.basis["estimated_ltv_cents"].reason or "")
    assert told.basis["next_purchase_predicted_date"].reason == "the contract has no next bill"


def test_accrual_stops_at_the_stated_end_and_bills_add_to_it() -> None:
    undated = {"undated_mrr_cents": 3000, "ends_date": iso(73), "tenure_day": TODAY - 100}
    assert predict(live(**undated), model(HALVES)).estimated_ltv_cents == 7200  # 73 days are 2.4 months
    both = live(**undated, bills=((TODAY + 5, 100),))
    assert predict(both, model(HALVES)).estimated_ltv_cents == 7300


def test_a_near_bill_has_a_chance_where_the_horizon_is_beyond_the_history() -> None:
    told = predict(live(tenure_day=TODAY - 250, bills=((TODAY + 20, 3000),)), model(HALVES))
    assert told.churn_risk_score is None
    assert told.next_purchase_probability == 1.0


def quiet(days: int) -> Facts:
    return Facts(
        today=TODAY, orders=1, first_day=TODAY - days, last_day=TODAY - days, average_order_cents=1000
    )


def test_a_buyer_buys_again_on_the_even_day_between_the_quartiles() -> None:
    told = predict(quiet(5), model(gap=HALVES))
    assert told.next_purchase_predicted_date == iso(5)
    assert told.basis["next_purchase_predicted_date"].interval == (iso(5), iso(95))
    assert told.next_purchase_probability == told.churn_risk_score == 0.5
    assert told.estimated_ltv_cents == 750


def test_who_orders_by_chance_has_gone_by_and_by() -> None:
    # each order is followed by another 10 days later, or by none: half of them stay each time
    often = replace(HALVES, days=(10,), survival=(0.5,), greenwood=(0.01,), renewals=HALVING)
    chances = [later_order_probability(often, often, 0, days) for days in (0, 10, 20, 40)]
    assert chances == pytest.approx([0.5, 0.25, 0.125, 0.03125], abs=0.05)
    assert all(
        a >= b
        for a, b in pairwise(later_order_probability(often, often, 0, days) for days in range(0, 1095, 30))
    )
    assert later_order_probability(often, often, 0, LIFETIME_DAYS) == pytest.approx(0, abs=0.02)


def test_an_unlikely_purchase_has_no_date() -> None:
    told = predict(quiet(150), model(gap=HALVES))
    assert told.next_purchase_predicted_date is None
    assert told.churn_risk_score == 1.0
    assert "less likely than not" in (told.basis["next_purchase_predicted_date"].reason or "")


def test_beyond_the_history_nothing_is_said() -> None:
    told = predict(quiet(211), model(gap=HALVES))  # 211 + 90 > 300
    assert told.churn_risk_score is None
    assert "no history that long" in (told.basis["churn_risk_score"].reason or "")


def test_without_a_curve_nothing_is_said() -> None:
    told = predict(quiet(5), model())
    assert told.estimated_ltv_cents is None
    assert told.basis["estimated_ltv_cents"].reason == "; ".join(
        shortage_reason(name, 0, 0) for name in (ONE_ORDER, ALL)
    )


def test_who_has_bought_nothing_has_no_prediction() -> None:
    told = predict(Facts(today=TODAY), model(HALVES, HALVES))
    assert {basis.reason for basis in told.basis.values()} == {"no purchase and no live contract"}


def test_the_own_stratum_comes_first_and_the_pooled_one_with_a_reason() -> None:
    at = State("gap", "Monthly", 0)
    own = HALVES
    pooled = Curve(n=9, events=9, start=0, end=900, days=(), survival=(), greenwood=())
    learnt = Model(
        day=TODAY,
        horizon_days=HORIZON_DAYS,
        tenure={},
        gap={"Monthly": own, ALL: pooled},
        reasons={"gap": {"Annual+": shortage_reason("Annual+", 12, 3)}},
    )
    assert choose_curve(learnt, at, 90).curve is own
    assert choose_curve(learnt, at, 90).reason is None
    assert choose_curve(learnt, State("gap", "Monthly", 250), 90).curve is pooled
    thin = choose_curve(learnt, State("gap", "Annual+", 0), 90)
    assert thin.curve is pooled
    assert thin.reason == "Annual+: 12 spells and 3 events, 30 and 10 are needed"


def test_the_web_process_reads_models_without_numpy() -> None:
    code = "import sys, service.web.app; print('numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
