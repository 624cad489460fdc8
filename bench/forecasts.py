"""How well the forecasts of buyers hold: forecast from an earlier day, and compared with the year since.

`python -m bench.forecasts 20000 3` makes three populations of so many customers. In each, `steady` buyers pay
as `bench.population` makes them; the amounts of `drifting` ones grow or fall over the years, by a yearly rate
of their own. A buyer is forecast who ordered on two days, the last in the 120 days before. The naive guess is
that the months pay, on average, as the twelve months before did.
"""

import sys
from collections.abc import Iterator
from datetime import date

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from bench.population import as_history, population
from service.books.view import Scope
from service.predictions.backtest import ACTIVE_DAYS
from service.predictions.fit import History, fit, states_at
from service.predictions.model import Model
from service.reads.customers.customer import Customer
from service.reads.customers.forecast import build_forecast
from tests.support.customers import customer, order

DAY = date(2026, 1, 1)
CUTS = (date(2024, 12, 5), date(2024, 12, 25))
MONTHS = (1, 3, 12)
SAMPLE = 800
YEARLY_DRIFT = 0.7  # the standard deviation of the logarithm


class Buyer(Struct, frozen=True, kw_only=True):
    """A buyer as known at the cut; what they paid in each month after it, and a month before, on average."""

    known: Customer
    paid: tuple[int, ...]
    before: float


def drifting(history: History, seed: int) -> History:
    """The same orders, whose amounts grow or fall for each customer."""
    rate = np.random.default_rng(seed).normal(0, YEARLY_DRIFT, history.n)[history.order_customer]
    years = (history.order_day - DAY.toordinal()) / 365
    amount = np.maximum(np.round(history.order_amount * np.exp(rate * years)), 1).astype(np.int64)
    return replace(history, order_amount=amount)


def buyers(history: History, cut: date) -> Iterator[Buyer]:
    """Buyers who ordered on two days at least, and were active at the cut."""
    day = cut.toordinal()
    states = states_at(history, day)
    came_back = states.last_day > states.first_day
    active = came_back & (states.last_day >= day - ACTIVE_DAYS) & (states.tenure_day < 0)
    for number in np.flatnonzero(active)[:SAMPLE].tolist():
        start, end = np.searchsorted(history.order_customer, (number, number + 1)).tolist()
        days, cents = history.order_day[start:end].tolist(), history.order_amount[start:end].tolist()
        rows = [
            (date.fromordinal(when).isoformat(), amount) for when, amount in zip(days, cents, strict=True)
        ]
        known = customer([order(*row) for row in rows if row[0] <= cut.isoformat()])
        months = [f"2025-{month:02d}" for month in range(1, 13)]
        paid = tuple(sum(amount for when, amount in rows if when[:7] == month) for month in months)
        age = min(day - days[0], 365) + 1
        before = sum(amount for when, amount in zip(days, cents, strict=True) if day - age < when <= day)
        yield Buyer(known=known, paid=paid, before=before * 365 / 12 / age)


def errors(history: History, cut: date, model: Model | None) -> dict[int, list[tuple[float, int, float]]]:
    """(forecast, paid, naive) of each buyer with a forecast, by the number of months together."""
    found: dict[int, list[tuple[float, int, float]]] = {months: [] for months in MONTHS}
    for buyer in buyers(history, cut):
        result = build_forecast(buyer.known, Scope(currency="usd", today=cut), max(MONTHS), model)
        expected = [month.expected_cents for month in result.monthly]
        for months, rows in found.items():
            amounts = [cents for cents in expected[:months] if cents is not None]
            if len(amounts) == months:
                rows.append((sum(amounts), sum(buyer.paid[:months]), buyer.before * months))
    return found


def main(customers: int, seeds: int) -> None:
    table = Table("buyers", "model", "months", "n", "error", "naive", "forecast ÷ paid", "zero, but paid")
    kinds = {"steady": lambda history, _: history, "drifting": drifting}
    for name, change in kinds.items():
        for with_model in (False, True):
            pooled: dict[int, list[tuple[float, int, float]]] = {months: [] for months in MONTHS}
            for seed in range(1, seeds + 1):
                history = change(as_history(population(customers, seed, DAY.toordinal())[0]), seed)
                for cut in CUTS:
                    model = fit(history, cut.toordinal()) if with_model else None
                    for months, rows in errors(history, cut, model).items():
                        pooled[months] += rows
            for months, rows in pooled.items():
                forecast, paid, naive = np.array(rows).T
                table.add_row(
                    name,
                    "yes" if with_model else "no",
                    str(months),
                    str(len(rows)),
                    f"{np.abs(forecast - paid).mean() / months:,.0f}",
                    f"{np.abs(naive - paid).mean() / months:,.0f}",
                    f"{forecast.sum() / paid.sum():.3f}",
                    str(int(((forecast == 0) & (paid > 0)).sum())),
                )
    Console(width=110).print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
