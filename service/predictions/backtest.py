"""Backtest: predict from what was known some time ago, and compare with what has happened since."""

from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from service.predictions.fit import STRATA, Bools, History, Ints, States, fit, states
from service.predictions.model import (
    ALL,
    HORIZON_DAYS,
    MONTH_DAYS,
    PERIODS,
    State,
    billed,
    expected_units,
    source,
    survival,
)

ACTIVE_DAYS = 120
BINS = 10

Floats = npt.NDArray[np.float64]


class Foresight(Struct, frozen=True, kw_only=True):
    """What was predicted at the close of a day, an element for each customer who was alive.

    `live` are the contracts. `risk` is of churn within the horizon, `revenue` minor units within it; NaN
    without an estimate. `reasons` counts the missing estimates by their reason.
    """

    customer: Ints
    live: Bools
    risk: Floats
    revenue: Floats
    reasons: dict[str, int]


def foresee(known: History, cut: int, horizon_days: int = HORIZON_DAYS) -> Foresight:
    """Predictions from nothing but what was known at the close of `cut`."""
    model = fit(known, cut, horizon_days)
    now = states(known, cut)
    who = alive(known, cut)
    live = now.live[who]
    period = now.period[who]
    quiet = np.where(period >= 0, cut - now.last_day[who], 0)
    alike, of = np.unique(
        np.stack([live.astype(np.int64), now.stratum[who], now.age[who], period, quiet]),
        axis=1,
        return_inverse=True,
    )
    risk, units = np.full(alike.shape[1], np.nan), np.full(alike.shape[1], np.nan)
    reasons: dict[str, int] = {}
    counts = np.bincount(of, minlength=alike.shape[1])
    for row, (contract, number, age, pays, since) in enumerate(alike.T.tolist()):
        at = State("tenure" if contract else "gap", STRATA[number], age)
        found = source(model, at, horizon_days)
        if found.curve is None:
            reason = (
                "no history that long" if ALL in (model.tenure if contract else model.gap) else found.reason
            )
            reasons[reason or ""] = reasons.get(reason or "", 0) + int(counts[row])
            continue
        left = survival(found.curve, age, horizon_days).value
        risk[row] = 1 - left if contract else left
        if pays >= 0:
            due = bill_days(PERIODS[pays], since, horizon_days)
            units[row] = billed(found.curve, age, [(day, 1) for day in due]).value
        else:
            estimate = expected_units(model, at, horizon_days)[0]
            units[row] = np.nan if estimate is None else estimate.value
    return Foresight(
        customer=who, live=live, risk=risk[of], revenue=units[of] * _prices(now)[who], reasons=reasons
    )


def bill_days(months: float, since: int, days: int) -> list[int]:
    """The days ahead, up to `days`, on which bills fall: every so many months from the one `since` days ago.

    A history has no contracts' own dates, only what their orders tell.
    """
    between = months * MONTH_DAYS
    numbers = range(int(since / between), int((since + days) / between) + 2)
    return [day for number in numbers if 0 < (day := round(number * between) - since) <= days]


def _prices(now: States) -> Floats:
    """What a unit is worth: a bill where the period is known, a month of MRR, or an order."""
    months = np.where(now.period >= 0, np.array(PERIODS)[now.period], 1.0)
    return np.where(now.live, now.mrr * months, now.revenue / np.maximum(now.orders, 1))


def alive(known: History, day: int) -> Ints:
    """Who has a live contract, or has bought lately and has had no contract end since."""
    now = states(known, day)
    lately = (now.last_day >= day - ACTIVE_DAYS) & (now.orders > 0) & (now.ended_day < now.last_day)
    return np.flatnonzero(now.live | lately)


def churned(known: History, customers: Ints, live: Bools, cut: int, day: int) -> Bools:
    """Who was lost after `cut`: contracts without MRR at `day`, others without purchase or contract since."""
    then = states(known, day)
    back = (then.last_day > cut) | (then.tenure_day > cut)
    return np.where(live, ~then.live[customers], ~back[customers])


def paid(known: History, after: int, until: int) -> Ints:
    """What each customer paid after the close of `after` and up to that of `until`, minor units."""
    within = (known.order_day > after) & (known.order_day <= until)
    total = np.zeros(known.n, dtype=np.int64)
    np.add.at(total, known.order_customer[within], known.order_amount[within])
    return total


def backtest(known: History, day: int, hidden_days: int = HORIZON_DAYS) -> dict[str, Any]:
    """How well the model foresees the last `hidden_days` before the close of `day`, beside a naive guess.

    Naive: everybody of a kind churns at the rate of the kind in the window of the same length before, and
    pays what they paid in that window. `skill` is 1 - ours / naive: the part of the naive error that is gone.
    """
    cut = day - hidden_days
    seen = foresee(known.as_of(cut), cut, hidden_days)
    lost = churned(known, seen.customer, seen.live, cut, day)
    naive = _base_rates(known, seen.live, cut, hidden_days)
    told = ~np.isnan(seen.risk)
    kinds = {"tenure": seen.live, "gap": ~seen.live, "all": np.ones(len(seen.live), dtype=bool)}
    return {
        "day": day,
        "cut": cut,
        "hidden_days": hidden_days,
        "churn": {
            name: _scored(seen.risk[told & kind], lost[told & kind], naive[told & kind])
            for name, kind in kinds.items()
        },
        "unpredicted": {"n": int((~told).sum()), "reasons": dict(sorted(seen.reasons.items()))},
        "calibration": _calibration(seen.risk[told], lost[told]),
        "revenue": {
            name: _revenue(
                seen.revenue[told & kind],
                paid(known, cut, day)[seen.customer[told & kind]],
                paid(known, cut - hidden_days, cut)[seen.customer[told & kind]],
            )
            for name, kind in kinds.items()
        },
    }


def _base_rates(known: History, live: Bools, cut: int, hidden_days: int) -> Floats:
    """Each customer's naive risk: the churn rate of the kind before `cut`; NaN if nobody was alive then."""
    before = cut - hidden_days
    who = alive(known, before)
    was_live = states(known, before).live[who]
    lost = churned(known, who, was_live, before, cut)
    rates = [
        float(lost[was_live == kind].mean()) if (was_live == kind).any() else np.nan for kind in (False, True)
    ]
    return np.array(rates)[live.astype(np.int64)]


def _scored(risk: Floats, lost: Bools, naive: Floats) -> dict[str, Any]:
    if not len(risk):
        return dict.fromkeys(("churned", "mean_predicted", "naive", "brier", "brier_naive", "skill")) | {
            "n": 0,
            "reason": "no customer alive at the cut has an estimate",
        }
    brier = float(np.mean((risk - lost) ** 2))
    plain = float(np.mean((naive - lost) ** 2))
    known = not np.isnan(plain)
    return {
        "n": len(risk),
        "churned": int(lost.sum()),
        "mean_predicted": round(float(risk.mean()), 4),
        "naive": round(float(naive.mean()), 4) if known else None,
        "brier": round(brier, 6),
        "brier_naive": round(plain, 6) if known else None,
        "skill": round(1 - brier / plain, 4) if known and plain else None,
        "reason": None if known else "nobody was alive before the window before the cut: no naive guess",
    }


def _calibration(risk: Floats, lost: Bools) -> list[dict[str, Any]]:
    """Ten bins of predicted risk, with what came of them."""
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


def _revenue(predicted: Floats, actual: Ints, naive: Ints) -> dict[str, Any]:
    """Totals, and the mean absolute error of a customer, in minor units."""
    n = len(predicted)
    return {
        "n": n,
        "predicted_cents": round(float(predicted.sum())) if n else None,
        "actual_cents": int(actual.sum()) if n else None,
        "mae_cents": round(float(np.abs(predicted - actual).mean())) if n else None,
        "mae_naive_cents": round(float(np.abs(naive - actual).mean())) if n else None,
    }
