"""Bills that nobody has stated: each schedule of a contract rolled on from its next bill.

The next bill itself is a row of the bills book. What is rolled on never lies before `today`.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, or_, select

from projections.bills import Bill, Contract, mrr_on
from projections.schedules import BillingSchedule, decode
from service.books.tables import ROWS
from service.books.view import View, customer_key

_bills = ROWS[Bill]
_contracts = ROWS[Contract]


class ForecastBill(Struct, frozen=True, kw_only=True):
    """A bill that nobody has stated. `later_cents` is the amount of its month's further ones, beside it."""

    contract: Any
    schedule: BillingSchedule
    date: str
    amount_cents: int
    later_cents: int = 0
    next_bill_date: str | None

    @property
    def mrr_cents(self) -> int:
        """The contract's MRR at the end of the day."""
        return mrr_on(self.contract.terms, self.date)


class RolledSchedule(Struct, frozen=True, kw_only=True):
    """A schedule of a contract, and the days of a range on which it bills after its next bill."""

    contract: Any
    schedule: BillingSchedule
    days: tuple[str, ...]

    @property
    def next_bill(self) -> tuple[str, str, int, str]:
        """The contract's key, the interval, and the day of the next bill, which is stated or issued."""
        schedule = self.schedule
        return self.contract.parent_key, schedule.interval, schedule.every, schedule.next_bill_date

    @property
    def cents(self) -> int:
        """The sum of the bills."""
        return sum(map(self.schedule.amount_on, self.days))

    def bills(self, *, first_only: bool = False) -> list[ForecastBill]:
        """A bill for each of the days, or one for the first with the amounts of the others beside it."""
        amounts = [self.schedule.amount_on(day) for day in self.days]
        following = (
            *self.days[1:],
            next((d for d in self.schedule.bill_days(self.days[-1]) if d > self.days[-1]), None),
        )
        listed = 1 if first_only else len(amounts)
        return [
            ForecastBill(
                contract=self.contract,
                schedule=self.schedule,
                date=day,
                amount_cents=cents,
                later_cents=sum(amounts[1:]) if first_only else 0,
                next_bill_date=next_day,
            )
            for day, cents, next_day in list(zip(self.days, amounts, following, strict=True))[:listed]
        ]


class MonthForecast(Struct, frozen=True, kw_only=True):
    """What rolling on adds to a month: bills, and later amounts beside bills that are stated."""

    bills: list[ForecastBill]
    later: list[RolledSchedule]

    def later_cents_of(self, contract_key: str | None = None) -> dict[str, int]:
        """The later amounts beside stated bills, by the day of the bill; of one contract or of all."""
        cents: dict[str, int] = {}
        for each in self.later:
            if contract_key in (None, each.contract.parent_key):
                day = each.schedule.next_bill_date
                cents[day] = cents.get(day, 0) + each.cents
        return cents


def rolled_schedules(view: View, first: str, last: str) -> list[RolledSchedule]:
    """The schedules that bill between two days, and not by their next bill alone."""
    start = max(first, view.scope.today.isoformat())
    query = select(_contracts, customer_key(_contracts).label("customer")).where(
        *contracts_that_bill_again(view, first, last)
    )
    days_by_rule: dict[BillingSchedule, tuple[str, ...]] = {}  # many contracts bill on the same days
    rolled = []
    for row in view.all(view.with_names(query, _contracts).order_by(_contracts.c.parent_key)):
        for schedule in decode(row.schedules):
            rule = schedule.without_amounts()
            if rule not in days_by_rule:
                days_by_rule[rule] = tuple(_days_between(schedule, start, last))
            days = tuple(day for day in days_by_rule[rule] if schedule.amount_on(day))
            if days:
                rolled.append(RolledSchedule(contract=row, schedule=schedule, days=days))
    return rolled


def contracts_that_bill_again(view: View, first: str, last: str) -> list[ColumnElement[bool]]:
    """The conditions for contracts that may bill between two days by more than their next bill."""
    again = or_(_contracts.c.next_bill_date < first, _contracts.c.second_bill_date <= last)
    return [*view.filters(_contracts, "bills"), again]


def _days_between(schedule: BillingSchedule, first: str, last: str) -> Iterable[str]:
    next_bill_date = None if schedule.planned else schedule.next_bill_date
    for day in schedule.bill_days(first):
        if day > last:
            return
        if first <= day != next_bill_date:
            yield day


def forecast_month(view: View, first: str, last: str) -> MonthForecast:
    """What rolling on adds to the month from `first` to `last`."""
    rolled = rolled_schedules(view, first, last)
    stated = _stated_bills(view, first, last) if rolled else set()
    later = [each for each in rolled if each.next_bill in stated]
    others = (each for each in rolled if each.next_bill not in stated)
    return MonthForecast(bills=[bill for each in others for bill in each.bills(first_only=True)], later=later)


def _stated_bills(view: View, first: str, last: str) -> set[tuple[str, str, int, str]]:
    """The key, interval and day of the stated bills."""
    query = select(_bills.c.key, _bills.c.interval, _bills.c.every, _bills.c.date).where(
        *view.filters(_bills, "bills"), _bills.c.date.between(first, last), _bills.c.status == "upcoming"
    )
    return {tuple(row) for row in view.all(query)}
