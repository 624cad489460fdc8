"""The metrics recounted from what really happened: each customer's MRR, day by day, and what failed.

Nothing here knows of movements or totals. A period's customers are looked at when it begins and when it ends;
what was won and lost in it is added up over its days.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from math import floor

from service.books.store import BookStore
from tests.support.expected_books import ExpectedBooks
from tests.support.expected_links import CustomerKey
from tests.support.temporary_books import document

Levels = dict[CustomerKey, int]
MONTHS = {"month": 1, "quarter": 3, "year": 12}
DIGITS = 6  # of a rate


@dataclass(frozen=True)
class Lives:
    """The MRR of each customer at the end of each day, and the failures of each day, in one currency."""

    levels: dict[date, Levels]
    failures: dict[date, list[bool]]  # whether each was paid in the end

    @classmethod
    def of(cls, expected: ExpectedBooks, currency: str, first: date, last: date) -> "Lives":
        levels: dict[date, Levels] = {}
        for day in days_between(first - timedelta(days=1), last):
            levels[day] = defaultdict(int)
            for contract in expected.contracts:
                if contract.currency == currency:
                    levels[day][contract.who] += expected.contract_mrr(contract, day)
        failures: dict[date, list[bool]] = defaultdict(list)
        for failure in expected.failures:
            if failure.currency == currency:
                failures[expected.day(failure.at)].append(failure.recovered)
        return cls(levels, failures)

    def metrics(self, begins: date, ends: date, months: int) -> dict[str, float | None]:
        """The metrics of a period of so many months."""
        before, after = self.levels[begins - timedelta(days=1)], self.levels[ends]
        there = {who: cents for who, cents in before.items() if cents > 0}
        paying = [cents for cents in after.values() if cents > 0]
        opening, kept = sum(there.values()), sum(after[who] for who in there)
        gone = [who for who in there if not after[who]]
        lost = sum(max(cents - after[who], 0) for who, cents in there.items())
        churn, arpa = _part(len(gone), len(there)), _part(sum(after.values()), len(paying))
        won, given_up = self._won_and_lost(begins, ends)
        outcomes = [outcome for day in days_between(begins, ends) for outcome in self.failures.get(day, [])]
        retention = _part(kept, opening)
        return {
            "opening_cents": sum(before.values()),
            "closing_cents": sum(after.values()),
            "opening_customers": len(there),
            "closing_customers": len(paying),
            "customer_churn_rate": _rounded(churn, DIGITS),
            "gross_mrr_churn_rate": _rounded(_part(lost, opening), DIGITS),
            "net_revenue_retention": _rounded(retention, DIGITS),
            "net_mrr_churn_rate": _rounded(None if retention is None else 1 - retention, DIGITS),
            "quick_ratio": _rounded(_part(won, given_up), DIGITS),
            "arpa_cents": _rounded(arpa, 0),
            "ltv_cents": _rounded(arpa * months / churn if arpa is not None and churn else None, 0),
            "failed_payments": len(outcomes),
            "recovered_payments": sum(outcomes),
            "recovery_rate": _rounded(_part(sum(outcomes), len(outcomes)), DIGITS),
        }

    def _won_and_lost(self, begins: date, ends: date) -> tuple[int, int]:
        """What the days of a period brought more, and what they brought less, customer by customer."""
        won = lost = 0
        for day in days_between(begins, ends):
            before, after = self.levels[day - timedelta(days=1)], self.levels[day]
            for who in before | after:
                change = after[who] - before[who]
                won, lost = won + max(change, 0), lost + max(-change, 0)
        return won, lost


async def same_metrics_of_scenario(store: BookStore, expected: ExpectedBooks, currency: str, by: str) -> None:
    """Every period that holds a day on which something happened has the recounted metrics."""
    first, last = expected.span()
    periods = periods_of(first, last, by)
    lives = Lives.of(expected, currency, periods[0][0], periods[-1][1])
    await same_metrics(store, lives, periods, currency, by)


async def same_metrics(
    store: BookStore, lives: Lives, periods: Sequence[tuple[date, date]], currency: str, by: str
) -> None:
    """The metrics of these periods, which follow each other, are the recounted ones."""
    (first, _), (_, last) = periods[0], periods[-1]
    asked = {"by": by, "from_": first.isoformat(), "to": last.isoformat()}
    answer = await document(store, "metrics", currency, last, **asked)
    assert [(row["from"], row["to"]) for row in answer["periods"]] == [
        (begins.isoformat(), ends.isoformat()) for begins, ends in periods
    ]
    for row, (begins, ends) in zip(answer["periods"], periods, strict=True):
        metrics = lives.metrics(begins, ends, MONTHS[by])
        assert {name: row[name] for name in metrics} == metrics, f"{row['period']} in {currency}"


def periods_of(first: date, last: date, by: str) -> list[tuple[date, date]]:
    """The first and last days of the periods that hold a day of the range."""
    found, months = [], MONTHS[by]
    number = (first.year * 12 + first.month - 1) // months * months
    while (begins := date(number // 12, number % 12 + 1, 1)) <= last:
        number += months
        found.append((begins, date(number // 12, number % 12 + 1, 1) - timedelta(days=1)))
    return found


def days_between(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _part(part: int, whole: int) -> Fraction | None:
    return Fraction(part, whole) if whole else None


def _rounded(value: Fraction | None, digits: int) -> float | None:
    """Half away from zero; no digits make a whole number."""
    if value is None:
        return None
    whole = floor(abs(value) * 10**digits + Fraction(1, 2)) * (1 if value >= 0 else -1)
    return whole / 10**digits if digits else whole
