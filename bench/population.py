"""A population whose churn is known: subscribers and buyers with hidden lives, seeded.

Subscribers pay by month, quarter or year. How soon one leaves differs by plan and by person, so that those
who stay have a falling hazard; one who has decided to leave mostly does so at the end of the paid period.
Buyers purchase at a rhythm of their own and leave for good after a purchase, each with a probability of their
own (as in the BG/NBD model of Fader, Hardie and Lee, 2005); no event reports it.

`python -m bench.population 20000` fits the model to one, and prints how well it predicts.
"""

import json
import sys
from datetime import date
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from service.predictions.backtest import backtest, predict_at_cut
from service.predictions.fit import History, fit
from service.predictions.model import HORIZON_DAYS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SPAN_DAYS = 1460
PLANS = (  # months, share, monthly rate of leaving, prices a period in minor units
    (1, 0.68, 0.050, (1900, 4900, 9900, 24900)),
    (3, 0.12, 0.030, (14900, 29900)),
    (12, 0.20, 0.015, (19900, 49900, 99900)),
)
SUBSCRIBERS = 0.6
WIN_BACKS = 0.08
LATE = 0.04
AT_ONCE = 0.3  # of those who leave, without waiting for the period's end
MONTH_DAYS = 365.25 / 12


class Population(Struct, frozen=True, kw_only=True):
    """Columns of rows sorted by customer, then day. A contract that has not ended has the end -1.

    The first `SUBSCRIBERS` of the customers have contracts, and all their orders are bills; the rest have
    none.

    orders: customer, day, amount; movements: customer, day, closing MRR;
    contracts: customer, start, end, months of a period, price of a period.
    """

    n: int
    orders: tuple[Ints, ...]
    movements: tuple[Ints, ...]
    contracts: tuple[Ints, ...]


def population(customers: int, seed: int, day: int) -> tuple[Population, Ints]:
    """The rows up to the close of `day`, and the day on which each customer truly left, maybe after `day`.

    A buyer leaves on the day of the last purchase.
    """
    rng = np.random.default_rng(seed)
    subscribers = round(customers * SUBSCRIBERS)
    arrival = day - (SPAN_DAYS * (1 - np.sqrt(rng.random(customers)))).astype(np.int64)  # more each month
    contracts, bills, subscribers_left = _subscribers(rng, arrival[:subscribers])
    bought, buyers_left = _buyers(rng, arrival[subscribers:], day)
    orders = tuple(
        np.concatenate([a, b]) for a, b in zip(bills, (bought[0] + subscribers, *bought[1:]), strict=True)
    )
    orders = _sorted(tuple(column[orders[1] <= day] for column in orders))
    has_begun = contracts[1] <= day
    customer, start, end, months, price = (column[has_begun] for column in contracts)
    has_ended = end <= day
    movements = _sorted(
        (
            np.concatenate([customer, customer[has_ended]]),
            np.concatenate([start, end[has_ended]]),
            np.concatenate([price // months, np.zeros(int(has_ended.sum()), dtype=np.int64)]),
        )
    )
    contracts_seen = _sorted((customer, start, np.where(has_ended, end, -1), months, price))
    return Population(
        n=customers, orders=orders, movements=movements, contracts=contracts_seen
    ), np.concatenate([subscribers_left, buyers_left])


def as_history(population_: Population) -> History:
    """The population as the model reads it."""
    (order_customer, order_day, amount), (move_customer, move_day, closing) = (
        population_.orders,
        population_.movements,
    )
    return History(
        n=population_.n,
        order_customer=order_customer,
        order_day=order_day,
        order_amount=amount,
        move_customer=move_customer,
        move_day=move_day,
        move_closing=closing,
    )


def report(customers: int, seed: int, day: int) -> dict[str, Any]:
    """Sizes, seconds, the backtest, and Brier scores of its predictions against who has truly left."""
    population_, left_days = population(customers, seed, day)
    history = as_history(population_)
    began = perf_counter()
    fit(history, day)
    fitted = perf_counter()
    result = backtest(history, day)
    tested = perf_counter()
    return {
        "customers": customers,
        "orders": len(population_.orders[0]),
        "movements": len(population_.movements[0]),
        "fit_s": round(fitted - began, 2),
        "backtest_s": round(tested - fitted, 2),
        **result,
        "true_churn": score_against_truth(history, left_days, day, result),
    }


def score_against_truth(
    history: History, left_days: Ints, day: int, tested: dict[str, Any]
) -> dict[str, Any]:
    """Brier scores of a backtest's predictions, and of its naive ones, against who has truly left."""
    cut = day - HORIZON_DAYS
    predictions = predict_at_cut(history.as_of(cut), cut)
    has_left = left_days[predictions.customer] <= day
    naive = np.where(predictions.live, *(tested["churn"][kind]["naive"] for kind in ("tenure", "gap")))
    scores: dict[str, Any] = {}
    for name, kind in (
        ("tenure", predictions.live),
        ("gap", ~predictions.live),
        ("all", predictions.live | True),
    ):
        chosen = kind & ~np.isnan(predictions.risk)
        brier, brier_naive = (
            float(np.mean((guess - has_left)[chosen] ** 2)) for guess in (predictions.risk, naive)
        )
        scores[name] = {
            "brier": round(brier, 4),
            "brier_naive": round(brier_naive, 4),
            "skill": round(1 - brier / brier_naive, 4),
        }
    return scores


def _subscribers(rng: np.random.Generator, arrival: Ints) -> tuple[tuple[Ints, ...], tuple[Ints, ...], Ints]:
    """Contracts (some come back for a second one), their payments, and when each left for good."""
    n = len(arrival)
    plan = rng.choice(len(PLANS), n, p=[share for _, share, _, _ in PLANS])
    months = np.array([months for months, *_ in PLANS])[plan]
    price = np.array([rng.choice(prices) for _, _, _, prices in (PLANS[p] for p in plan)])
    rate = np.array([rate for *_, rate, _ in PLANS])[plan] * rng.gamma(1.5, 1 / 1.5, n)
    ends = _end_days(rng, arrival, months, rate)
    returning = np.flatnonzero(rng.random(n) < WIN_BACKS)
    second_start = ends[returning] + rng.integers(20, 240, len(returning))
    second_end = _end_days(rng, second_start, months[returning], rate[returning])
    churn = ends.copy()
    churn[returning] = second_end
    customer = np.concatenate([np.arange(n), returning])
    contracts = (
        customer,
        np.concatenate([arrival, second_start]),
        np.concatenate([ends, second_end]),
        months[customer],
        price[customer],
    )
    return contracts, _payments(rng, contracts), churn


def _end_days(rng: np.random.Generator, start: Ints, months: Ints, rate: Floats) -> Ints:
    """The end of the period in which a subscriber decides to leave, or that very day."""
    decided = np.minimum(rng.exponential(1 / rate), 240)  # months
    period_end = (np.floor(decided / months) + 1) * months
    lives = np.where(rng.random(len(start)) < AT_ONCE, decided, period_end)
    return start + np.maximum(np.round(lives * MONTH_DAYS), 1).astype(np.int64)


def _payments(rng: np.random.Generator, contracts: tuple[Ints, ...]) -> tuple[Ints, ...]:
    """Each period's payment in advance, a few of them days late; none once the contract is over."""
    customer, start, end, months, price = contracts
    periods = np.ceil((end - start - 1) / (months * MONTH_DAYS)).astype(np.int64).clip(1)
    periods = np.minimum(periods, SPAN_DAYS // (months * 30) + 2)
    row, number = _number_within_rows(periods)
    late = (rng.random(len(row)) < LATE) * rng.integers(1, 9, len(row))
    day = start[row] + np.round(number * months[row] * MONTH_DAYS).astype(np.int64) + late
    due = day < end[row]
    return customer[row][due], day[due], price[row][due]


def _buyers(rng: np.random.Generator, arrival: Ints, day: int) -> tuple[tuple[Ints, ...], Ints]:
    """Purchases at each buyer's own rhythm and price, and the day of the last one."""
    n = len(arrival)
    mean_gap = np.exp(rng.normal(np.log(35), 0.7, n))
    leaves = rng.beta(1.2, 9, n)
    count = np.minimum(rng.geometric(leaves), 2 * SPAN_DAYS)
    row, number = _number_within_rows(count)
    gap = np.maximum(np.round(rng.exponential(mean_gap[row])), 1).astype(np.int64)
    gap[number == 0] = 0
    days_since_first = np.cumsum(gap)
    first = np.flatnonzero(number == 0)
    when = arrival[row] + days_since_first - days_since_first[first][row]
    usual = np.exp(rng.normal(np.log(6000), 0.8, n))
    amount = np.maximum(np.round(usual[row] * np.exp(rng.normal(0, 0.35, len(row)))), 100).astype(np.int64)
    left_days = when[np.append(first[1:], len(row)) - 1]
    is_seen = when <= day
    return (row[is_seen], when[is_seen], amount[is_seen]), left_days


def _number_within_rows(counts: Ints) -> tuple[Ints, Ints]:
    """Row and number within the row, for `counts` elements of each row: [2, 1] gives [0, 0, 1], [0, 1, 0]."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)


def _sorted(columns: tuple[Any, ...]) -> tuple[Any, ...]:
    order = np.lexsort((columns[1], columns[0]))
    return tuple(column[order] for column in columns)


if __name__ == "__main__":
    print(json.dumps(report(int(sys.argv[1]), 1, date(2026, 1, 1).toordinal()), indent=1))
