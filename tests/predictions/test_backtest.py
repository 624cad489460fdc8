"""The backtest: honest about what it could know, and better than the naive guess."""

from datetime import date
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from bench.population import as_history, population
from service.predictions.backtest import backtest, bill_days, churned, predict_at_cut
from service.predictions.fit import History, build_history, fit
from service.predictions.predict import predictor
from tests.predictions.facts import facts_of

DAY = date(2026, 1, 1).toordinal()
CUT = DAY - 90


@pytest.fixture(scope="module")
def known() -> History:
    return as_history(population(6000, 11, DAY)[0])


@pytest.fixture(scope="module")
def result(known: History) -> dict[str, Any]:
    return backtest(known, DAY)


@pytest.mark.parametrize("kind", ["tenure", "gap", "all"])
def test_predictions_beat_the_base_rate(result: dict[str, Any], kind: str) -> None:
    assert result["churn"][kind]["brier"] < result["churn"][kind]["brier_naive"]
    assert result["churn"][kind]["skill"] > 0


@pytest.mark.parametrize("kind", ["tenure", "gap", "all"])
def test_predicted_revenue_errs_less_than_the_window_before(result: dict[str, Any], kind: str) -> None:
    assert result["revenue"][kind]["mae_cents"] < result["revenue"][kind]["mae_naive_cents"]


def test_bills_are_foretold_as_they_are_paid(result: dict[str, Any]) -> None:
    found = result["revenue"]["tenure"]
    assert found["predicted_cents"] == pytest.approx(found["actual_cents"], rel=0.03)
    assert found["mae_cents"] < found["mae_naive_cents"] / 2


def test_a_young_contract_is_judged_by_its_billing_period() -> None:
    seen, _ = population(12_000, 3, DAY)
    known = as_history(seen)
    who, start, _, months, _ = seen.contracts
    fresh = who[(months == 12) & (start > CUT - 80) & (start <= CUT)]
    told = predict_at_cut(known.as_of(CUT), CUT)
    chosen = told.live & np.isin(told.customer, fresh)
    lost = churned(known, told.customer, told.live, CUT, DAY)
    assert chosen.sum() > 50
    assert told.risk[chosen].mean() == pytest.approx(lost[chosen].mean(), abs=0.03)


@pytest.mark.parametrize(
    ("months", "since", "days"),
    [(1.0, 0, [30, 61]), (1.0, 29, [1, 32, 62]), (12.0, 0, []), (12.0, 300, [65]), (12.0, 365, [])],
)
def test_bills_come_each_period_after_the_last_order(months: float, since: int, days: list[int]) -> None:
    assert bill_days(months, since, 90) == days


def test_no_bill_of_a_yearly_contract_is_expected_before_its_year_is_over() -> None:
    lives = [(customer, CUT - (600 if customer < 40 else 200), 100) for customer in range(60)]
    ends = [(customer, CUT - 100 + customer, 0) for customer in range(20)]
    bills = [(customer, day, 1200) for customer, day, _ in lives]
    bills += [(customer, day + 365, 1200) for customer, day, _ in lives[:40]]
    seen = predict_at_cut(build_history(60, bills, [*lives, *ends]), CUT)
    young = seen.customer >= 40
    assert seen.revenue[young].tolist() == [0.0] * 20
    assert not np.isnan(seen.risk[young]).any()


def test_what_is_predicted_is_what_comes(result: dict[str, Any]) -> None:
    for row in result["calibration"]:
        if row["n"] >= 200:
            assert row["predicted"] == pytest.approx(row["observed"], abs=0.08)


def test_the_backtest_foretells_what_the_api_would_have_said(known: History) -> None:
    seen = predict_at_cut(known, CUT)
    tell = predictor(fit(known, CUT))
    for number, customer in list(enumerate(seen.customer))[::40]:
        one = facts_of(known.as_of(CUT), int(customer), CUT)
        risk = tell(one).churn_risk_score
        assert (
            np.isnan(seen.risk[number])
            if risk is None
            else risk == pytest.approx(seen.risk[number], abs=1e-4)
        )


def test_a_changed_future_changes_no_prediction(known: History) -> None:
    kept = known.order_day <= CUT
    other = replace(
        known,
        order_customer=known.order_customer[kept],
        order_day=known.order_day[kept],
        order_amount=known.order_amount[kept],
        move_closing=np.where(known.move_day > CUT, known.move_closing * 7 + 3, known.move_closing),
    )
    one, two = predict_at_cut(known, CUT), predict_at_cut(other, CUT)
    assert np.array_equal(one.customer, two.customer)
    assert one.risk.tobytes() == two.risk.tobytes()
    assert one.revenue.tobytes() == two.revenue.tobytes()


def test_the_same_seed_gives_the_same_population() -> None:
    (one, left), (two, also) = population(300, 4, DAY), population(300, 4, DAY)
    assert [column.tobytes() for column in one.orders] == [column.tobytes() for column in two.orders]
    assert left.tobytes() == also.tobytes()


@pytest.mark.parametrize("orders", [[], [(0, DAY - 100, 500)]])
def test_too_little_history_gives_nulls_and_a_reason(orders: list[tuple[int, int, int]]) -> None:
    result = backtest(build_history(1, orders, []), DAY)
    assert result["churn"]["all"]["n"] == 0
    assert result["churn"]["all"]["brier"] is None
    assert result["churn"]["all"]["reason"]
    assert result["revenue"]["all"]["mae_cents"] is None
    assert result["unpredicted"]["n"] == len(orders)


def test_whose_contract_has_ended_is_not_foretold_as_a_customer() -> None:
    known = build_history(1, [(0, CUT - 20, 500)], [(0, CUT - 50, 100), (0, CUT - 10, 0)])
    assert not len(predict_at_cut(known, CUT).customer)
