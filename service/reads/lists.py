"""Lists of upcoming bills and of contracts."""

from collections.abc import Sequence
from datetime import date
from itertools import groupby
from typing import Annotated, Any, Literal, cast

from msgspec import Struct, field, json
from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_

from projections.bills import Bill, Contract, mrr_on
from projections.customers import CustomerName
from service.books.overdue import makes_contract_overdue
from service.books.tables import ROWS
from service.books.view import View
from service.core import cadence
from service.core.errors import ParameterError
from service.reads.answers import (
    Account,
    Bills,
    Cadence,
    Causes,
    ContractId,
    Currency,
    CustomerId,
    Customers,
    Day,
    Declined,
    Every,
    Interval,
    NameOfCustomer,
    NextBillDate,
    NextCursor,
    Processor,
    Schedule,
    TotalCents,
    Trust,
    about,
    cents,
    day,
    or_null,
)
from service.reads.bill_rows import (
    BillsContractId,
    InvoiceId,
    ListedBill,
    bill_rows,
    forecast_row,
    position,
)
from service.reads.coming import rolled_schedules
from service.reads.parameters import to_cursor

_contracts = ROWS[Contract]
_bills = ROWS[Bill]
_names = ROWS[CustomerName]
_MOST_FORECAST_BILLS = 100_000  # in a list


class UpcomingDay(Struct, frozen=True, kw_only=True):
    """A day that has stated bills."""

    billing_date: Annotated[Day, day("the day of these bills")]
    payment_count: Bills
    daily_revenue_cents: Annotated[int, cents("the day's bills together")]
    customers: Annotated[list[str], about("the customers' names, ids where there is no name; sorted")]


class UpcomingBill(Struct, frozen=True, kw_only=True):
    """A bill that is coming."""

    next_bill_date: Annotated[Day, day("the bill date")]
    customer_id: CustomerId
    customer_name: NameOfCustomer
    contract_id: BillsContractId
    amount_cents: Annotated[int, cents("what is due")]
    interval: Interval
    every: Every
    billing_schedule: Schedule
    days_until_payment: Annotated[int, about("days from `today` to the bill; negative where that is past")]
    declined: Declined
    processor: Processor
    status: Annotated[
        Literal["upcoming", "overdue", "draft", "forecast"],
        about("whether it is stated, drafted or only forecast"),
    ]
    invoice_id: InvoiceId
    trust: Trust
    causes: Causes


class Upcoming(Struct, frozen=True, kw_only=True):
    """The bills that come between two days."""

    currency: Currency
    from_: Annotated[Day, day("the first day")] = field(name="from")
    to: Annotated[Day, day("the last day")]
    total_cents: TotalCents
    payments_count: Bills
    customers_count: Customers
    forecast_cents: Annotated[int, cents("what contracts bill after their next bill, by their intervals")]
    forecast_count: Annotated[int, about("how many bills these are")]
    days: Annotated[list[UpcomingDay], about("the days that have bills")]
    payments: Annotated[
        list[UpcomingBill],
        about("next bills and drafts, with `forecast=true` all that follow, too; by date"),
    ]


class ListedContract(Struct, frozen=True, kw_only=True):
    """A contract."""

    contract_id: ContractId
    customer_id: CustomerId
    customer_name: NameOfCustomer
    status: Annotated[str, about("the processor's own word, in lower case")]
    schedule: Schedule
    cadence: Cadence
    interval: Interval
    every: Every
    amount_cents: Annotated[int, cents("what its next bill asks for on its own schedule, before tax")]
    currency: Currency
    mrr_cents: Annotated[int, cents("its MRR at the end of `today`")]
    next_bill_date: NextBillDate
    ends_date: Annotated[
        Day | None,
        or_null(day("the day on which the contract ends or has ended"), "where no end is known"),
    ]
    declined: Declined
    unpriced: Annotated[bool, about("whether a price or discount in it can't be read")]
    unknown_status: Annotated[bool, about("whether its status is a word that no rule knows")]
    tied: Annotated[
        bool,
        about("whether two of its events of one moment differ, and only their ids say which came last"),
    ]
    processor: Processor
    account: Account
    trust: Trust
    causes: Causes


class Contracts(Struct, frozen=True, kw_only=True):
    """A page of contracts."""

    currency: Currency
    contracts: Annotated[list[ListedContract], about("one page, by the customer's name or else id")]
    next_cursor: NextCursor


def upcoming(view: View, first: date, last: date, *, with_forecast: bool = False) -> Upcoming:
    """Stated next bills and drafts between two days, overdue ones too, and their sums by day.

    Beside them is the sum of what rolling on adds; `with_forecast` lists these bills, too. Raises
    ParameterError where there are too many to list.
    """
    start, end = first.isoformat(), last.isoformat()
    stated = bill_rows(view, start, end, upcoming_only=True)
    rolled = rolled_schedules(view, start, end)
    forecast_count = sum(each.counts.bills for each in rolled)
    if with_forecast and forecast_count > _MOST_FORECAST_BILLS:
        raise ParameterError(
            f"forecast: at most {_MOST_FORECAST_BILLS:,} bills are listed, and there are {forecast_count:,}; "
            "fewer days, or one account, have less"
        )
    forecast = [bill for each in rolled for bill in each.bills()] if with_forecast else []
    listed = sorted([*stated, *map(forecast_row, forecast)], key=position)
    return Upcoming(
        currency=view.scope.currency,
        from_=start,
        to=end,
        total_cents=sum(bill.amount_cents for bill in stated),
        payments_count=len(stated),
        customers_count=len({(bill.processor, bill.account, bill.customer_id) for bill in stated}),
        forecast_cents=sum(each.cents for each in rolled),
        forecast_count=forecast_count,
        days=[
            _upcoming_day(billing_date, list(bills))
            for billing_date, bills in groupby(stated, key=lambda bill: bill.date)
        ],
        payments=[_upcoming_bill(bill, view.scope.today) for bill in listed],
    )


def _upcoming_day(billing_date: str, bills: Sequence[ListedBill]) -> UpcomingDay:
    return UpcomingDay(
        billing_date=billing_date,
        payment_count=len(bills),
        daily_revenue_cents=sum(bill.amount_cents for bill in bills),
        customers=sorted({bill.customer_name or bill.customer_id for bill in bills}),
    )


def _upcoming_bill(bill: ListedBill, today: date) -> UpcomingBill:
    return UpcomingBill(
        next_bill_date=bill.date,
        customer_id=bill.customer_id,
        customer_name=bill.customer_name,
        contract_id=bill.contract_id,
        amount_cents=bill.amount_cents,
        interval=bill.interval,
        every=bill.every,
        billing_schedule=bill.schedule,
        days_until_payment=(date.fromisoformat(bill.date) - today).days,
        declined=bill.declined,
        processor=bill.processor,
        status=cast(Any, bill.status),  # of bills that are coming
        invoice_id=bill.invoice_id,
        trust=bill.trust,
        causes=bill.causes,
    )


class ContractPage(Struct, frozen=True, kw_only=True):
    """Which contracts to list. `after` is the `next_cursor` of the page before; without a limit, all."""

    status: str | None
    overdue: bool
    limit: int | None
    after: str | None


def contracts(view: View, asked: ContractPage) -> Contracts:
    """One page of contracts by the customer's name, else id; `next_cursor` is None on the last page.

    A cursor names a contract and no customer: addresses are logged. Raises ParameterError for another one.
    """
    # The columns' own collation: by bytes, on every database.
    order = (
        func.coalesce(func.nullif(_names.c.name, ""), _contracts.c.customer_id),
        *(_contracts.c[name] for name in ("contract_id", "account", "processor")),
    )
    query = view.with_names(select(_contracts), _contracts).where(*view.filters(_contracts, "bills"))
    if asked.status:
        query = query.where(_contracts.c.status == asked.status.lower())
    if asked.overdue:
        late = select(_bills.c.key).where(
            *view.filters(_bills, "bills"), makes_contract_overdue(view.scope.today)
        )
        query = query.where(_contracts.c.parent_key.in_(late))
    if asked.after:
        query = query.where(tuple_(*order) > _place(view, order, asked.after))
    rows = view.all(query.order_by(*order).limit(None if asked.limit is None else asked.limit + 1))
    page = rows[: asked.limit]
    return Contracts(
        currency=view.scope.currency,
        contracts=[_contract(row, view.scope.today.isoformat()) for row in page],
        next_cursor=to_cursor(page[-1].parent_key) if len(rows) > len(page) else None,
    )


def _place(view: View, order: Sequence[ColumnElement[str]], key: str) -> ColumnElement[Any]:
    """Where a contract stands in the list now. Raises ParameterError if there is none with this key."""
    names = view.with_names(cast(Select[Any], select(*order)), _contracts)
    row = view.connection.execute(
        names.where(*view.filters(_contracts, "bills"), _contracts.c.parent_key == key)
    ).first()
    if row is None:
        raise ParameterError("cursor: the `next_cursor` of the page before")
    return tuple_(*map(literal, row[: len(order)]))


def _contract(row: Any, today: str) -> ListedContract:
    past_once = row.interval == cadence.ONCE and (row.next_bill_date or "") < today
    return ListedContract(
        contract_id=row.contract_id,
        customer_id=row.customer_id,
        customer_name=row.customer_name,
        status=row.status,
        schedule=cadence.schedule_label(row.interval, row.every),
        cadence=cadence.cadence_label(row.interval, row.every),
        interval=row.interval,
        every=row.every,
        amount_cents=row.amount_cents,
        currency=row.currency,
        mrr_cents=mrr_on(row.terms, today),
        next_bill_date=None if past_once else row.next_bill_date,
        ends_date=row.ends_date,
        declined=row.declined,
        unpriced=row.unpriced,
        unknown_status=row.unknown_status,
        tied=row.tied,
        processor=row.processor,
        account=row.account,
        trust=row.trust,
        causes=json.decode(row.causes),
    )
