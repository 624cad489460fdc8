"""Reads about customers. Here: customers, curves and views made by hand, without a database."""

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import islice
from types import SimpleNamespace
from typing import Any

from msgspec import json
from msgspec.structs import replace

from projections.bills import Contract
from projections.schedules import BillingSchedule, encode
from service.books.view import ReadOptions, Scope, View
from service.predictions.model import ALL, HORIZON_DAYS, LIFETIME_DAYS, STEP_DAYS, Curve, Model
from service.reads.customers.customer import Customer
from service.rulebook import Opportunity

TODAY = date(2026, 3, 15)


def ago(days: int) -> str:
    """The day so many days before `TODAY`."""
    return (TODAY - timedelta(days=days)).isoformat()


def order(day: str, cents: int = 1000) -> Any:
    """An order as a row of the books."""
    return SimpleNamespace(date=day, amount_cents=cents, source_id=f"in_{day}", causes='["stripe:evt_1"]')


def schedule(
    first: str = "2026-04-01",
    interval: str = "month",
    every: int = 1,
    *changes: tuple[str, int],
    cents: int = 5000,
) -> BillingSchedule:
    """Bills of so much from a date on; from the day of each change on, of another amount."""
    return BillingSchedule(
        interval=interval,
        every=every,
        first=date.fromisoformat(first),
        amounts=((first, cents), *changes),
    )


def contract(
    contract_id: str = "sub_1",
    schedules: Sequence[BillingSchedule] | None = None,
    *,
    ends_date: str | None = None,
    **fields: Any,
) -> Contract:
    """A contract as a row of the books: 50.00 on the 1st of each month since 2025, if not said otherwise.

    One without schedules has no bill to come.
    """
    given = [schedule()] if schedules is None else schedules
    bounded = [replace(each, until=ends_date) for each in given]
    ahead = sorted(
        (each for each in bounded if next(each.bill_days(), None)), key=lambda each: each.next_bill_date
    )
    next_bill = ahead[0].next_bill_date if ahead else None
    due = [each for each in ahead if each.next_bill_date == next_bill]
    row = Contract(
        causes='["stripe:evt_2"]',
        processor="stripe",
        account="acct_1",
        currency="usd",
        customer_id="cus_1",
        contract_id=contract_id,
        status="active",
        interval=due[0].interval if due else "month",
        every=due[0].every if due else 1,
        amount_cents=sum(each.amount_on(each.next_bill_date) for each in due),
        next_bill_date=next_bill,
        second_bill_date=min((day for each in ahead for day in islice(each.bill_days(), 1, 2)), default=None),
        ends_date=ends_date,
        declined=False,
        reason=None,
        feedback=None,
        unpriced=False,
        unknown_status=False,
        tied=False,
        trust="signed",
        last_event_date="2025-01-01",
        told_from="",
        terms=json.encode([("2025-01-01", 5000, True)]).decode(),
        schedules=encode(ahead),
    )
    return replace(row, **fields)


def movement(kind: str, day: str, closing_cents: int) -> Any:
    """A customer's movement as a row of the books."""
    return SimpleNamespace(kind=kind, date=day, closing_cents=closing_cents)


def customer(
    orders: list[Any] | None = None,
    contracts: list[Any] | None = None,
    movements: list[Any] | None = None,
    back: list[Any] | None = None,
) -> Customer:
    """A customer; with contracts and no movements, their MRR began with 2025."""
    if movements is None:
        movements = [movement("new", "2025-01-01", 5000)] if contracts else []
    return Customer(
        processor="stripe",
        account="acct_1",
        customer_id="cus_1",
        name="Ada",
        email="ada@example.com",
        orders=sorted(orders or [], key=lambda row: row.date),
        reversals=back or [],
        contracts=contracts or [],
        movements=movements,
    )


def view(*rules: Opportunity, learnt: Model | None = None, today: date = TODAY) -> View:
    """A view that finds nothing but what the worker has learnt."""
    return View(
        connection=None,  # type: ignore[arg-type]
        books={},
        scope=Scope(currency="usd", today=today),
        options=ReadOptions(opportunities=rules),
        stored_model=lambda _name: json.encode(learnt) if learnt else None,
    )


def curve(steps: dict[int, float], end: int) -> Curve:
    """Survival by age, known until `end`, with variances as of a hundred customers."""
    left = list(steps.values())
    return Curve(
        n=100,
        events=50,
        start=0,
        end=end,
        days=tuple(steps),
        survival=tuple(left),
        greenwood=tuple((1 - value) / (100 * value) for value in left),
        renewals=renewals(steps),
    )


def renewals(steps: dict[int, float]) -> tuple[float, ...]:
    """How many events are expected every 15 days, when each begins the same wait anew."""
    left = [1.0, *steps.values()]
    chances = [(day, before - after) for day, before, after in zip(steps, left, left[1:], strict=False)]
    within = [0.0]
    for age in range(1, LIFETIME_DAYS + 1):
        within.append(sum(chance * (1 + within[age - day]) for day, chance in chances if day <= age))
    return tuple(within[::STEP_DAYS])


def model(tenure: Curve | None = None, gap: Curve | None = None) -> Model:
    """A model of pooled curves."""
    return Model(
        day=TODAY.toordinal(),
        horizon_days=HORIZON_DAYS,
        tenure={ALL: tenure} if tenure else {},
        gap={ALL: gap} if gap else {},
        reasons={},
    )
