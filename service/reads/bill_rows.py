"""Bills as the rows of a list: issued, drafted, stated, overdue, and forecast."""

from typing import Annotated, Any, Literal

from msgspec import Struct, json
from sqlalchemy import ColumnElement, select

from projections.bills import UPCOMING_STATUSES, Bill
from service.books.overdue import is_overdue
from service.books.tables import ROWS
from service.books.view import View
from service.core import cadence
from service.reads.answers import (
    Account,
    Cadence,
    Causes,
    CustomerId,
    Day,
    Declined,
    Every,
    Interval,
    NameOfCustomer,
    NextBillDate,
    OpenCents,
    Processor,
    Schedule,
    Trust,
    about,
    cents,
    day,
)
from service.reads.coming import ForecastBill

BILLS = ROWS[Bill]
_ORDER_NAMES = "date customer_id contract_id invoice_id processor account interval every".split()
ORDER = tuple(  # the same on every database, whatever order the rows were written in
    BILLS.c[name].nulls_first() for name in _ORDER_NAMES
)

BillsContractId = Annotated[
    str | None,
    about("the id of the subscription or contract at the processor; null for a bill of no contract"),
]
InvoiceId = Annotated[str | None, about("the invoice's id at the processor; null for a bill that is coming")]


class ListedBill(Struct, frozen=True, kw_only=True):
    """A bill: issued, drafted, stated, overdue or forecast."""

    date: Annotated[Day, day("the bill date")]
    customer_id: CustomerId
    customer_name: NameOfCustomer
    contract_id: BillsContractId
    invoice_id: InvoiceId
    amount_cents: Annotated[int, cents("what is due")]
    cadence: Cadence
    mrr_cents: Annotated[int, cents("the contract's MRR on the bill date")]
    status: Annotated[
        Literal[
            "upcoming",
            "forecast",
            "overdue",
            "draft",
            "open",
            "billed",
            "failed",
            "paid",
            "uncollectible",
        ],
        about("the status of the bill"),
    ]
    next_bill_date: NextBillDate
    open_cents: OpenCents
    declined: Declined
    interval: Interval
    every: Every
    schedule: Schedule
    processor: Processor
    account: Account
    trust: Trust
    causes: Causes
    mrr_inferred: Annotated[bool, about("whether no event tells its MRR, but what was billed")]


def is_shown(today: str) -> ColumnElement[bool]:
    """Whether a bill is one on the day of the read: issued, drafted, still to come or overdue."""
    return (BILLS.c.status != "upcoming") | (BILLS.c.date >= today) | is_overdue(today)


def bill_rows(view: View, first: str, last: str, *, upcoming_only: bool = False) -> list[ListedBill]:
    """The bills between two days, by date, with the customer's name; not those that are only forecast."""
    today = view.scope.today.isoformat()
    query = view.with_names(select(BILLS), BILLS).where(
        *view.filters(BILLS, "bills"), BILLS.c.date.between(first, last), is_shown(today)
    )
    if upcoming_only:
        query = query.where(BILLS.c.status.in_(UPCOMING_STATUSES))
    return [
        _listed(
            row,
            date=row.date,
            invoice_id=row.invoice_id,
            amount_cents=row.amount_cents,
            interval=row.interval,
            every=row.every,
            mrr_cents=row.mrr_cents,
            mrr_inferred=row.mrr_inferred,
            status="overdue" if row.status == "upcoming" and row.date < today else row.status,
            next_bill_date=row.next_bill_date,
            open_cents=row.open_cents,
        )
        for row in view.all(query.order_by(*ORDER))
    ]


def forecast_row(bill: ForecastBill) -> ListedBill:
    """A forecast bill as a row of a list."""
    return _listed(
        bill.contract,
        date=bill.date,
        invoice_id=None,
        amount_cents=bill.amount_cents,
        interval=bill.schedule.interval,
        every=bill.schedule.every,
        mrr_cents=bill.mrr_cents,
        mrr_inferred=False,
        status="forecast",
        next_bill_date=bill.next_bill_date,
        open_cents=0,
    )


def _listed(row: Any, *, interval: Any, every: int, **fields: Any) -> ListedBill:
    """A bill; `row` is its own row, or that of its contract."""
    return ListedBill(
        **fields,
        customer_id=row.customer_id,
        customer_name=row.customer_name,
        contract_id=row.contract_id,
        cadence=cadence.cadence_label(interval, every),
        declined=row.declined,
        interval=interval,
        every=every,
        schedule=cadence.schedule_label(interval, every),
        processor=row.processor,
        account=row.account,
        trust=row.trust,
        causes=json.decode(row.causes),
    )


def position(bill: ListedBill) -> tuple[Any, ...]:
    """The place of a bill in a list: by date, then the customer's name, else id; then as in `ORDER`."""
    return bill.date, bill.customer_name or bill.customer_id, *(getattr(bill, n) or "" for n in _ORDER_NAMES)
