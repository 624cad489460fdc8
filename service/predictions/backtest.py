"""Backtest: predict from the history up to an earlier day, and compare with the days since."""

from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from service.predictions.fit import STRATA, Bools, History, Ints, States, fit, states_at
from service.predictions.model import (
    ALL,
    HORIZON_DAYS,
    MONTH_DAYS,
    PERIODS,
    State,
    choose_curve,
    expected_bills,
    expected_units,
    survival_probability,
)

ACTIVE_DAYS = 120
BINS = 10

Floats = npt.NDArray[np.float64]


class CutPredictions(Struct, frozen=True, kw_only=True):
    """Predictions made at the close of the cut day: arrays with an element for each active customer.

    `live` is true for customers with a contract. `risk` is the probability of churn within the horizon,
    `revenue` the minor units expected within it; NaN without an estimate. `reasons` counts the missing
    estimates by their reason.
    """

    customer: Ints
    live: Bools
    risk: Floats
    revenue: Floats
    reasons: dict[str, int]


def predict_at_cut(history: History, cut: int, horizon_days: int = HORIZON_DAYS) -> CutPredictions:
    """Predictions from nothing but the history up to the close of `cut`."""
    model = fit(history, cut, horizon_days)
    states = states_at(history, cut)
    customers = find_active(history, cut)
    live = states.live[customers]
    period = states.period[customers]
    days_quiet = np.where(period >= 0, cut - states.last_day[customers], 0)
    cases, case_of_customer = np.unique(
        np.stack(
            [live.astype(np.int64), states.stratum[customers], states.age[customers], period, days_quiet]
        ),
        axis=1,
        return_inverse=True,
    )
    risk, units = np.full(cases.shape[1], np.nan), np.full(cases.shape[1], np.nan)
    reasons: dict[str, int] = {}
    counts = np.bincount(case_of_customer, minlength=cases.shape[1])
    for case, (has_contract, stratum, age, period_index, days_since_bill) in enumerate(cases.T.tolist()):
        state = State("tenure" if has_contract else "gap", STRATA[stratum], age)
        choice = choose_curve(model, state, horizon_days)
        if choice.curve is None:
            reason = (
                "no history that long"
                if ALL in (model.tenure if has_contract else model.gap)
                else choice.reason
            )
            reasons[reason or ""] = reasons.get(reason or "", 0) + int(counts[case])
            continue
        survives = survival_probability(choice.curve, age, horizon_days).value
        risk[case] = 1 - survives if has_contract else survives
        if period_index >= 0:
            days_to_bill = bill_days(PERIODS[period_index], days_since_bill, horizon_days)
            units[case] = expected_bills(choice.curve, age, [(day, 1) for day in days_to_bill]).value
        else:
            estimate = expected_units(model, state, horizon_days)[0]
            units[case] = np.nan if estimate is None else estimate.value
    return CutPredictions(
        customer=customers,
        live=live,
        risk=risk[case_of_customer],
        revenue=units[case_of_customer] * _unit_values(states)[customers],
        reasons=reasons,
    )


def bill_days(months: float, days_since_bill: int, horizon_days: int) -> list[int]:
    """The days ahead on which bills fall: every `months`, counted from a bill `days_since_bill` ago.

    They are estimated from orders, since a history holds no bill dates of contracts.
    """
    interval = months * MONTH_DAYS
    numbers = range(int(days_since_bill / interval), int((days_since_bill + horizon_days) / interval) + 2)
    return [
        day for number in numbers if 0 < (day := round(number * interval) - days_since_bill) <= horizon_days
    ]


def _unit_values(states: States) -> Floats:
    """The value of a unit: of a bill where the period is known, of a month of MRR, or of an order."""
    months = np.where(states.period >= 0, np.array(PERIODS)[states.period], 1.0)
    return np.where(states.live, states.mrr * months, states.revenue / np.maximum(states.orders, 1))


def find_active(history: History, day: int) -> Ints:
    """The customers with a live contract, or with a recent purchase and no contract that ended since."""
    states = states_at(history, day)
    bought_recently = (
        (states.last_day >= day - ACTIVE_DAYS) & (states.orders > 0) & (states.ended_day < states.last_day)
    )
    return np.flatnonzero(states.live | bought_recently)


def churned(history: History, customers: Ints, live: Bools, cut: int, day: int) -> Bools:
    """Who was lost after `cut`: live contracts without MRR at `day`; others without a purchase since."""
    states = states_at(history, day)
    has_returned = (states.last_day > cut) | (states.tenure_day > cut)
    return np.where(live, ~states.live[customers], ~has_returned[customers])


def paid_between(history: History, after: int, until: int) -> Ints:
    """What each customer paid after the close of `after` and up to that of `until`, minor units."""
    is_between = (history.order_day > after) & (history.order_day <= until)
    total = np.zeros(history.n, dtype=np.int64)
    np.add.at(total, history.order_customer[is_between], history.order_amount[is_between])
    return total


def backtest(history: History, day: int, hidden_days: int = HORIZON_DAYS) -> dict[str, Any]:
    """How well the model predicts the last `hidden_days` before the close of `day`, beside a naive guess.

    Naive: every customer churns at the rate that their kind had in the window of the same length before the
    cut, and pays what they paid in that window. `skill` is 1 - brier / brier_naive: the part of the naive
    error that the model removes.
    """
    cut = day - hidden_days
    predictions = predict_at_cut(history.as_of(cut), cut, hidden_days)
    lost = churned(history, predictions.customer, predictions.live, cut, day)
    naive = _base_rates(history, predictions.live, cut, hidden_days)
    has_estimate = ~np.isnan(predictions.risk)
    kinds = {
        "tenure": predictions.live,
        "gap": ~predictions.live,
        "all": np.ones(len(predictions.live), dtype=bool),
    }
    return {
        "day": day,
        "cut": cut,
        "hidden_days": hidden_days,
        "churn": {
            name: _churn_score(
                predictions.risk[has_estimate & kind], lost[has_estimate & kind], naive[has_estimate & kind]
            )
            for name, kind in kinds.items()
        },
        "unpredicted": {
            "n": int((~has_estimate).sum()),
            "reasons": dict(sorted(predictions.reasons.items())),
        },
        "calibration": _calibration(predictions.risk[has_estimate], lost[has_estimate]),
        "revenue": {
            name: _revenue_score(
                predictions.revenue[has_estimate & kind],
                paid_between(history, cut, day)[predictions.customer[has_estimate & kind]],
                paid_between(history, cut - hidden_days, cut)[predictions.customer[has_estimate & kind]],
            )
            for name, kind in kinds.items()
        },
    }


def _base_rates(history: History, live: Bools, cut: int, hidden_days: int) -> Floats:
    """Each customer's naive risk: the churn rate of their kind before `cut`; NaN if none was active."""
    before = cut - hidden_days
    customers = find_active(history, before)
    was_live = states_at(history, before).live[customers]
    lost = churned(history, customers, was_live, before, cut)
    rates = [
        float(lost[was_live == kind].mean()) if (was_live == kind).any() else np.nan for kind in (False, True)
    ]
    return np.array(rates)[live.astype(np.int64)]


def _churn_score(risk: Floats, lost: Bools, naive: Floats) -> dict[str, Any]:
    if not len(risk):
        return dict.fromkeys(("churned", "mean_predicted", "naive", "brier", "brier_naive", "skill")) | {
            "n": 0,
            "reason": "no customer alive at the cut has an estimate",
        }
    brier = float(np.mean((risk - lost) ** 2))
    brier_naive = float(np.mean((naive - lost) ** 2))
    has_naive = not np.isnan(brier_naive)
    return {
        "n": len(risk),
        "churned": int(lost.sum()),
        "mean_predicted": round(float(risk.mean()), 4),
        "naive": round(float(naive.mean()), 4) if has_naive else None,
        "brier": round(brier, 6),
        "brier_naive": round(brier_naive, 6) if has_naive else None,
        "skill": round(1 - brier / brier_naive, 4) if has_naive and brier_naive else None,
        "reason": None if has_naive else "nobody was alive before the window before the cut: no naive guess",
    }


def _calibration(risk: Floats, lost: Bools) -> list[dict[str, Any]]:
    """Ten bins of predicted risk, each with the observed share of churn."""
    number = np.minimum((risk * BINS).astype(np.int64), BINS - 1)
    rows: list[dict[str, Any]] = []
    for bin_ in range(BINS):
        inside = number == bin_
        n = int(inside.sum())
        rows.append(
            {
                "from": bin_ / BINS,
                "to": (bin_ + 1) / BINS,
                "n": n,
                "predicted": round(float(risk[inside].mean()), 4) if n else None,
                "observed": round(float(lost[inside].mean()), 4) if n else None,
            }
        )
    return rows


def _revenue_score(predicted: Floats, actual: Ints, naive: Ints) -> dict[str, Any]:
    """Totals, and the mean absolute error of a customer, in minor units."""
    n = len(predicted)
    return {
        "n": n,
        "predicted_cents": round(float(predicted.sum())) if n else None,
        "actual_cents": int(actual.sum()) if n else None,
        "mae_cents": round(float(np.abs(predicted - actual).mean())) if n else None,
        "mae_naive_cents": round(float(np.abs(naive - actual).mean())) if n else None,
    }
