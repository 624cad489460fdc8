"""Reads about customers. Here: customers, curves and views made by hand, without a database."""

from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

from msgspec import json

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


def contract(contract_id: str = "sub_1", **fields: Any) -> Any:
    """A contract as a row of the books: 50.00 on the 1st of each month since 2025, if not said otherwise."""
    known = {
        "interval": "month",
        "causes": '["stripe:evt_2"]',
        "every": 1,
        "next_bill_date": "2026-04-01",
        "anchor_day": 1,
        "ends_date": None,
        "status": "active",
        "declined": False,
        "unpriced": False,
        "terms": json.encode([("2025-01-01", 5000, True)]).decode(),
        "amounts": json.encode([("2026-04-01", 5000)]).decode(),
    }
    return SimpleNamespace(contract_id=contract_id, **{**known, **fields})


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
