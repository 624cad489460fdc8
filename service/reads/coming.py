"""Bills that nobody has stated: each schedule of a contract rolled on from its next bill.

The next bill itself is a row of the bills book. What is rolled on never lies before `today`.
"""

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from functools import cache, lru_cache
from itertools import islice
from operator import mul
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


class BillCounts:
    """How many bills a schedule has from `first` to `last` by each of its amounts, in their order.

    They are counted, without a look at each. The next bill is not among them, unless it is planned, and
    neither are bills of 0. Schedules share the counts if they bill on the same days, and nothing on the same.
    """

    def __init__(
        self, schedule: BillingSchedule, bills_before: Callable[[str], int], first: str, last: str
    ) -> None:
        self._amounts = schedule.amounts
        self._bills_before = bills_before
        self._first, self._last = first, last
        self._next_bill_date = None if schedule.planned else schedule.next_bill_date
        self.by_amount = self.between(first, last)
        self.bills = sum(self.by_amount)

    def between(self, first: str, last: str) -> list[int]:
        """The counts between two days."""
        ends = [*(start for start, _ in self._amounts[1:]), _day_after(min(last, self._last))]
        counts = []
        for (begin, cents), until in zip(self._amounts, ends, strict=True):
            start, end = max(begin, first, self._first), min(until, ends[-1])
            counts.append(self._count(start, end) if cents and start < end else 0)
        return counts

    def _count(self, start: str, end: str) -> int:
        """How many bills there are from one day until before another."""
        count = self._bills_before(end) - self._bills_before(start)
        stated = self._next_bill_date
        if stated and start <= stated < end:
            count -= self._bills_before(_day_after(stated)) - self._bills_before(stated)
        return count


class RolledSchedule(Struct, frozen=True, kw_only=True):
    """A schedule of a contract that bills after its next bill, from `first` to `last`."""

    contract: Any
    schedule: BillingSchedule
    first: str
    last: str
    counts: BillCounts

    @property
    def cents(self) -> int:
        """The sum of its bills."""
        amounts = (cents for _, cents in self.schedule.amounts)
        return sum(map(mul, self.counts.by_amount, amounts))

    @property
    def next_bill(self) -> tuple[str, str, int, str]:
        """The contract's key, the interval, and the day of the next bill, which is stated or issued."""
        schedule = self.schedule
        return self.contract.parent_key, schedule.interval, schedule.every, schedule.next_bill_date

    def bills(self, *, first_only: bool = False) -> list[ForecastBill]:
        """Its bills; or the first one, with the amounts of the others beside it."""
        days = _days_between(self.schedule, self.first, self.last)
        billed = (day for day in days if self.schedule.amount_on(day))
        listed = list(islice(billed, 2)) if first_only else list(billed)
        following = (
            *listed[1:],
            next((day for day in self.schedule.bill_days(listed[-1]) if day > listed[-1]), None),
        )
        amounts = [self.schedule.amount_on(day) for day in listed]
        return [
            ForecastBill(
                contract=self.contract,
                schedule=self.schedule,
                date=day,
                amount_cents=cents,
                later_cents=self.cents - cents if first_only else 0,
                next_bill_date=next_day,
            )
            for day, cents, next_day in zip(listed, amounts, following, strict=True)
        ][: 1 if first_only else None]


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
    before_by_rule: dict[BillingSchedule, Callable[[str], int]] = {}  # many contracts bill on the same days
    counts_of: dict[tuple[Any, ...], BillCounts] = {}
    rolled = []
    for row in view.all(view.with_names(query, _contracts).order_by(_contracts.c.parent_key)):
        for schedule in decode(row.schedules):
            rule = schedule.without_amounts().without_times()
            before = before_by_rule.setdefault(rule, cache(rule.bills_before))
            key = before, *((day, bool(cents)) for day, cents in schedule.amounts)
            if key not in counts_of:
                counts_of[key] = BillCounts(schedule, before, start, last)
            if counts_of[key].bills:
                rolled.append(
                    RolledSchedule(
                        contract=row, schedule=schedule, first=start, last=last, counts=counts_of[key]
                    )
                )
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


@lru_cache(4_096)
def _day_after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


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
