"""MRR at the end of a day, and its movements by month or day."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated, Literal

from msgspec import UNSET, Struct, UnsetType, json
from sqlalchemy import func, select

from projections.mrr import MOVEMENT_KINDS, Movement
from service.books.tables import ROWS, TOTALS
from service.books.view import View, format_fraction, sum_columns
from service.core import cadence
from service.core.money import round_half_away
from service.reads.answers import (
    Account,
    CancellationComment,
    CancellationFeedback,
    CancellationReason,
    Causes,
    ClosingCents,
    Currency,
    CustomerId,
    Day,
    Every,
    Interval,
    MrrCents,
    NameOfCustomer,
    OpeningCents,
    Policy,
    Processor,
    ReasonCauses,
    Schedule,
    WeakestTrust,
    WeeksPerMonth,
    about,
    cents,
    day,
    or_null,
)

_LISTS = ("contracts", "causes", "reason_causes")  # columns of movements, as JSON
_CUSTOMER_VERBS = dict(
    zip(MOVEMENT_KINDS, ("new", "reactivated", "expanded", "contracted", "churned"), strict=True)
)

ActiveContracts = Annotated[int, about("how many contracts count in MRR")]
ArrCents = Annotated[int, cents("twelve times the MRR")]
NewCents = Annotated[int, cents("MRR from customers who never had any")]
ReactivationCents = Annotated[int, cents("MRR from customers who had none left")]
ExpansionCents = Annotated[int, cents("what customers' MRR rose by")]
ContractionCents = Annotated[int, cents("what customers' MRR fell by, negative or zero")]
ChurnCents = Annotated[int, cents("MRR of customers who have none left, negative or zero")]
NewCustomers = Annotated[int, about("customers behind `new_cents`")]
ReactivatedCustomers = Annotated[int, about("customers behind `reactivation_cents`")]
ChurnedCustomers = Annotated[int, about("customers behind `churn_cents`")]


class Counting(Struct, frozen=True, kw_only=True):
    """In which currency and by which rules MRR is counted."""

    currency: Currency
    policy: Policy
    weeks_per_month: WeeksPerMonth


class ScheduleMrr(Struct, frozen=True, kw_only=True):
    """The MRR of all contracts of one schedule."""

    interval: Interval
    every: Every
    schedule: Schedule
    contracts: ActiveContracts
    mrr_cents: MrrCents


class OtherCurrency(Struct, frozen=True, kw_only=True):
    """MRR in another currency."""

    currency: Currency
    mrr_cents: MrrCents
    active_contracts: ActiveContracts


class Mrr(Counting, frozen=True, kw_only=True):
    """Monthly recurring revenue at the end of a day."""

    date: Annotated[Day, day("the day at whose end this is the MRR")]
    mrr_cents: MrrCents
    arr_cents: ArrCents
    active_contracts: ActiveContracts
    customers: Annotated[int, about("customers with MRR")]
    arpa_cents: Annotated[int | None, or_null(cents("MRR for each customer"), "without customers")]
    by_schedule: Annotated[list[ScheduleMrr], about("the same MRR by schedule")]
    weekly_count: Annotated[int, about("contracts that bill every week")]
    four_week_count: Annotated[int, about("contracts that bill every 4 weeks")]
    ten_week_count: Annotated[int, about("contracts that bill every 10 weeks")]
    other_currencies: Annotated[
        list[OtherCurrency], about("what there is in other currencies; never added up")
    ]


class Period(Struct, frozen=True, kw_only=True):
    """What moved MRR in a month or on a day."""

    period: Annotated[str, about('the month ("2025-11") or the day ("2025-11-13")')]
    opening_cents: OpeningCents
    new_cents: NewCents
    reactivation_cents: ReactivationCents
    expansion_cents: ExpansionCents
    contraction_cents: ContractionCents
    churn_cents: ChurnCents
    closing_cents: ClosingCents
    new_customers: NewCustomers
    reactivated_customers: ReactivatedCustomers
    expanded_customers: Annotated[int, about("customers behind `expansion_cents`")]
    contracted_customers: Annotated[int, about("customers behind `contraction_cents`")]
    churned_customers: ChurnedCustomers


class CustomerMovement(Struct, frozen=True, kw_only=True):
    """What moved a customer's MRR on a day."""

    date: Annotated[Day, day("the day")]
    customer_id: CustomerId
    kind: Annotated[Literal["new", "reactivation", "expansion", "contraction", "churn"], about("what moved")]
    amount_cents: Annotated[int, cents("the movement's size and direction")]
    opening_cents: OpeningCents
    closing_cents: ClosingCents
    processor: Processor
    account: Account
    trust: WeakestTrust
    causes: Causes
    customer_name: NameOfCustomer
    contracts: Annotated[list[str], about("the ids of the contracts that moved it")]
    reason: CancellationReason
    feedback: CancellationFeedback
    comment: CancellationComment = None
    reason_causes: ReasonCauses


class Movements(Counting, frozen=True, kw_only=True):
    """What moved MRR, by period."""

    by: Annotated[Literal["month", "day"], about("the length of a period")]
    periods: Annotated[list[Period], about("every period of the range")]
    movements: Annotated[
        list[CustomerMovement] | UnsetType,
        about("what is behind the periods; only with `detail=customers`"),
    ] = UNSET


def mrr(view: View) -> Mrr:
    """MRR at the end of `today`, by the events known now."""
    days, today = TOTALS["mrr_days"], view.scope.today.isoformat()
    by_schedule = view.all(
        select(days.c.interval, days.c.every, *sum_columns(days, ("contracts", "mrr_cents")))
        .where(*view.filters(days, "mrr"), days.c.date <= today)
        .group_by(days.c.interval, days.c.every)
    )
    schedules = [
        ScheduleMrr(
            interval=row.interval,
            every=row.every,
            schedule=cadence.schedule_label(row.interval, row.every),
            contracts=row.contracts,
            mrr_cents=row.mrr_cents,
        )
        for row in sorted(by_schedule, key=lambda r: (cadence.INTERVALS.index(r.interval), r.every))
        if row.contracts or row.mrr_cents
    ]
    other_currencies = view.all(
        select(days.c.currency, *sum_columns(days, ("contracts", "mrr_cents")))
        .where(*view.filters(days, "mrr", currency=False), days.c.date <= today)
        .where(days.c.currency != view.scope.currency)
        .group_by(days.c.currency)
        .order_by(days.c.currency)
    )
    total = sum(row.mrr_cents for row in schedules)
    customers = paying_customers(view)
    count: dict[tuple[str, int], int] = {(row.interval, row.every): row.contracts for row in schedules}
    return Mrr(
        **describe_counting(view),
        date=today,
        mrr_cents=total,
        arr_cents=total * 12,
        active_contracts=sum(row.contracts for row in schedules),
        customers=customers,
        arpa_cents=round_half_away(total, customers) if customers else None,
        by_schedule=schedules,
        weekly_count=count.get(("week", 1), 0),
        four_week_count=count.get(("week", 4), 0),
        ten_week_count=count.get(("week", 10), 0),
        other_currencies=[
            OtherCurrency(currency=row.currency, mrr_cents=row.mrr_cents, active_contracts=row.contracts)
            for row in other_currencies
            if row.contracts or row.mrr_cents
        ],
    )


def describe_counting(view: View) -> dict[str, str]:
    """The fields of `Counting`."""
    return {
        "currency": view.scope.currency,
        "policy": view.scope.policy,
        "weeks_per_month": format_fraction(view.rules().weeks_per_month),
    }


def paying_customers(view: View) -> int:
    """How many customers have MRR at the end of `today`."""
    days = TOTALS["movement_days"]
    names = ("new_customers", "reactivation_customers", "churn_customers")
    query = select(*sum_columns(days, names)).where(
        *view.filters(days, "mrr"), days.c.date <= view.scope.today.isoformat()
    )
    new, reactivated, churned = view.one(query)
    return int(new + reactivated - churned)


def movements(
    view: View,
    first: date,
    last: date,
    by: Literal["month", "day"],
    *,
    with_customers: bool = False,
    kinds: Sequence[str] = MOVEMENT_KINDS,
) -> Movements:
    """Opening MRR, its movements and closing MRR for every period from `first` to `last`.

    `with_customers` lists the customers' movements of these kinds; their comments are not in the books.
    """
    days = TOTALS["movement_days"]
    width = 7 if by == "month" else 10
    period = func.substr(days.c.date, 1, width).label("period")
    amounts = tuple(f"{kind}_cents" for kind in MOVEMENT_KINDS)
    counts = tuple(f"{kind}_customers" for kind in MOVEMENT_KINDS)
    rows = view.all(
        select(period, *sum_columns(days, (*amounts, *counts)))
        .where(*view.filters(days, "mrr"), days.c.date.between(first.isoformat(), last.isoformat()))
        .group_by(period)
    )
    rows_by_period = {row.period: row for row in rows}
    before = view.one(
        select(*sum_columns(days, amounts)).where(*view.filters(days, "mrr"), days.c.date < first.isoformat())
    )
    level = sum(before)
    periods = []
    for name in (start.isoformat()[:width] for start in first_days(first, last, by)):
        row = rows_by_period.get(name)
        change = {name: getattr(row, name) if row else 0 for name in amounts}
        opening, level = level, level + sum(change.values())
        customers = {
            f"{_CUSTOMER_VERBS[kind]}_customers": getattr(row, f"{kind}_customers") if row else 0
            for kind in MOVEMENT_KINDS
        }
        periods.append(Period(period=name, opening_cents=opening, **change, closing_cents=level, **customers))
    return Movements(
        **describe_counting(view),
        by=by,
        periods=periods,
        movements=_movement_rows(view, first, last, kinds) if with_customers else UNSET,
    )


def _movement_rows(view: View, first: date, last: date, kinds: Sequence[str]) -> list[CustomerMovement]:
    """The customers' movements behind the periods, each with its causes."""
    table = ROWS[Movement]
    names = (
        "date",
        "customer_id",
        "kind",
        "amount_cents",
        "opening_cents",
        "closing_cents",
        "processor",
        "account",
        "trust",
        "reason",
        "feedback",
        *_LISTS,
    )
    query = view.with_names(select(*(table.c[name] for name in names)), table).where(
        *view.filters(table, "mrr"),
        table.c.date.between(first.isoformat(), last.isoformat()),
        table.c.kind.in_(kinds),
    )
    rows = view.all(query.order_by(table.c.date, table.c.customer_id, table.c.processor, table.c.account))
    return [
        CustomerMovement(**{**row._mapping, **{name: json.decode(getattr(row, name)) for name in _LISTS}})  # noqa: SLF001
        for row in rows
    ]


def first_days(first: date, last: date, by: Literal["month", "day"]) -> list[date]:
    """The first day of every period of the range; the first period begins with `first`."""
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return [day for day in days if by == "day" or day == first or day.day == 1]
