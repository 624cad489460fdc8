"""One customer: everything that the books hold about them at the end of a day."""

from collections.abc import Iterable, Sequence
from datetime import date
from itertools import islice, takewhile
from typing import Annotated, Any

from msgspec import Struct, json
from sqlalchemy import select

from projections.bills import Contract, mrr_on
from projections.customers import CustomerName
from projections.issued_invoices import IssuedInvoice
from projections.mrr import Movement
from projections.revenue import CustomerRevenue, Order, Reversal
from projections.schedules import decode
from service.books.tables import ROWS
from service.books.view import View
from service.core.cadence import bill_dates
from service.core.errors import NotFound, ParameterError
from service.core.events import join_key
from service.core.money import round_half_away
from service.predictions.model import LIFETIME_DAYS, Facts, Model
from service.predictions.predict import Predictions, predict
from service.reads.answers import (
    Account,
    Currency,
    CustomerId,
    EmailOfCustomer,
    NameOfCustomer,
    Processor,
    about,
)
from service.reads.customers.classes import (
    Classes,
    activity_of,
    lifecycle_of,
    segment_bounds,
    segment_of,
)

_orders = ROWS[Order]
_reversals = ROWS[Reversal]
_contracts = ROWS[Contract]
_movements = ROWS[Movement]
_CUSTOMER_TABLES = [
    (ROWS[CustomerRevenue], "revenue"),
    (_contracts, "bills"),
    (ROWS[IssuedInvoice], "bills"),
    (ROWS[CustomerName], "customers"),
]
_ORDER = (
    "date",
    "source_id",
    "amount_cents",
    "products",
    "trust",
    "causes",
    "link",
)  # there may be thousands
_REVERSAL = ("date", "kind", "source_id", "part", "amount_cents", "trust", "causes")
_UNKNOWN_CUSTOMER = "no order, contract or name of this customer is known"

Success = Annotated[bool, about("true")]


class CustomerHeader(Struct, frozen=True, kw_only=True):
    """The fields that identify the customer in an answer."""

    success: Success
    customer_id: CustomerId
    customer_name: NameOfCustomer
    customer_email: EmailOfCustomer
    processor: Processor
    account: Account
    currency: Currency


class Customer(Struct, frozen=True, kw_only=True):
    """One customer at the end of `today`, in one currency: orders and reversals by date, live contracts."""

    processor: str
    account: str
    customer_id: str
    name: str | None
    email: str | None
    orders: list[Any]
    reversals: list[Any]
    contracts: list[Any]
    movements: list[Any]


# Rows of the books


def find(view: View, customer_id: str, processor: str | None) -> Customer:
    """The customer of this id. Raises NotFound, or ParameterError where several have it."""
    processor, account = find_account(view, customer_id, processor)
    today = view.scope.today.isoformat()

    def rows(table: Any, book: str, names: Sequence[str], *conditions: Any) -> list[Any]:
        is_customers = (
            table.c.customer_id == customer_id,
            table.c.processor == processor,
            table.c.account == account,
        )
        query = select(*(table.c[name] for name in names))
        return view.all(query.where(*view.filters(table, book), *is_customers, *conditions))

    key = join_key(processor, account, customer_id, view.scope.currency)
    # The key holds the currency; with a condition on it, SQLite would choose the currency's index.
    conditions = view.filters(_movements, "mrr", currency=False)
    movements = select(_movements).where(*conditions, _movements.c.key == key)
    names = ROWS[CustomerName]
    name_query = select(names.c.name, names.c.email).where(view.names())
    name_query = name_query.where(names.c.customer_id == customer_id, names.c.processor == processor)
    name, email = next(iter(view.all(name_query.where(names.c.account == account))), (None, None))
    return Customer(
        processor=processor,
        account=account,
        customer_id=customer_id,
        name=name,
        email=email,
        orders=_by_date(rows(_orders, "revenue", _ORDER, _orders.c.date <= today)),
        reversals=_by_date(rows(_reversals, "revenue", _REVERSAL, _reversals.c.date <= today)),
        contracts=sorted(rows(_contracts, "bills", _contracts.c.keys()), key=lambda row: row.contract_id),
        movements=sorted(view.all(movements.where(_movements.c.date <= today)), key=lambda row: row.date),
    )


def _by_date(rows: list[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: (row.date, row.source_id))


def find_account(view: View, customer_id: str, processor: str | None) -> tuple[str, str]:
    """The processor and account of the one customer that has this id, by the books that the view has.

    Raises NotFound, or ParameterError where several have it.
    """
    if not customer_id.isprintable():  # every id is printable, and PostgreSQL takes no NUL
        raise NotFound(_UNKNOWN_CUSTOMER)
    accounts: set[tuple[str, str]] = set()
    for table, book in (each for each in _CUSTOMER_TABLES if each[1] in view.books):
        query = select(table.c.processor, table.c.account).where(table.c.customer_id == customer_id)
        accounts |= {
            (row[0], row[1]) for row in view.all(query.where(*view.filters(table, book, currency=False)))
        }
    accounts = {account for account in accounts if processor in (None, account[0])}
    if not accounts:
        raise NotFound(_UNKNOWN_CUSTOMER)
    if len(accounts) > 1:
        several = ", ".join(f"processor={name}&account={account}" for name, account in sorted(accounts))
        raise ParameterError(f"processor: several customers have this id; ask for one of {several}")
    return accounts.pop()


def facts_of(customer: Customer, today: date) -> Facts:
    """The facts about a customer that predictions are made from."""
    orders = customer.orders
    paid = sum(row.amount_cents for row in orders)
    last_date = orders[-1].date if orders else None
    return facts_from(
        orders=len(orders),
        first_date=orders[0].date if orders else None,
        last_date=last_date,
        paid_cents=paid,
        net_cents=paid - sum(row.amount_cents for row in customer.reversals),
        last_order_cents=sum(row.amount_cents for row in orders if row.date == last_date),
        movements=customer.movements,
        contracts=customer.contracts,
        today=today,
    )


def facts_from(  # noqa: PLR0913 - the columns of a customer's row, and rows of two other tables
    *,
    orders: int,
    first_date: str | None,
    last_date: str | None,
    paid_cents: int,
    net_cents: int,
    last_order_cents: int,
    movements: Sequence[Any],
    contracts: Sequence[Any],
    today: date,
) -> Facts:
    """The facts about a customer, from the sums of orders, the movements by date, and the contracts.

    `last_order_cents` is the sum of the last day's orders, since two contracts may bill on one day.
    """
    started_dates = [movement.date for movement in movements if movement.kind in ("new", "reactivation")]
    ended_dates = [movement.date for movement in movements if movement.kind == "churn"]
    day = today.isoformat()
    live = _select_live(contracts, day)
    next_bill_dates = [row.next_bill_date for row in live if row.next_bill_date]
    last_day = date.fromordinal(today.toordinal() + LIFETIME_DAYS).isoformat()
    return Facts(
        today=today.toordinal(),
        orders=orders,
        first_day=_ordinal(first_date) if first_date else None,
        last_day=_ordinal(last_date) if last_date else None,
        revenue_cents=net_cents,
        average_order_cents=round_half_away(paid_cents, orders) if orders else 0,
        last_order_cents=last_order_cents,
        last_order_mrr_cents=_closing(
            [movement for movement in movements if movement.date <= (last_date or "")]
        ),
        mrr_cents=_closing(movements),
        tenure_day=_ordinal(started_dates[-1]) if started_dates else None,
        ended_day=_ordinal(ended_dates[-1]) if ended_dates else None,
        bills=tuple((_ordinal(bill), cents) for bill, cents in dated_bills(live, day, last_day)),
        undated_mrr_cents=sum(mrr_on(row.terms, day) for row in live if _is_undated(row, day)),
        overdue_date=min(next_bill_dates) if next_bill_dates and max(next_bill_dates) < day else None,
        ends_date=_ends_on(live, day),
    )


def _closing(movements: Sequence[Any]) -> int:
    return movements[-1].closing_cents if movements else 0


def live_contracts(customer: Customer, today: str) -> list[Any]:
    """The contracts that count in MRR at the end of `today`."""
    return _select_live(customer.contracts, today)


def _select_live(contracts: Iterable[Any], today: str) -> list[Any]:
    return [row for row in contracts if mrr_on(row.terms, today)]


def _ends_on(live: Iterable[Any], today: str) -> str | None:
    """The day on which the last of the live contracts is set to end; None if one of them is not."""
    ends = [row.ends_date for row in live]
    return max(ends) if ends and all(end and end > today for end in ends) else None


def _is_undated(row: Any, today: str) -> bool:
    """Whether a contract continues for at least one period and has no stated next bill."""
    if row.next_bill_date:
        return False
    dates = islice(bill_dates(date.fromisoformat(today), row.interval, row.every), 2)
    return len([day for day in dates if not row.ends_date or day.isoformat() < row.ends_date]) == 2


def dated_bills(contracts: Iterable[Any], first: str, last: str) -> list[tuple[str, int]]:
    """The bills from `first` to `last`, [(day, minor units), …] by day.

    Each schedule's dated bill is rolled on by its interval, until the contract's own end. Where nothing is
    due, as in a trial to come, there is no bill.
    """
    bills: list[tuple[str, int]] = []
    for schedule in (each for row in contracts for each in decode(row.schedules)):
        days = takewhile(lambda day: day <= last, schedule.bill_days(first))
        bills += [(day, cents) for day in days if day >= first and (cents := schedule.amount_on(day))]
    return sorted(bills)


def _ordinal(day: str) -> int:
    return date.fromisoformat(day).toordinal()


def read_model(view: View) -> Model | None:
    """The currency's model, unless the worker fitted it on a later day than `today`."""
    document = view.stored_model("model")
    model = json.decode(document, type=Model) if document else None
    return model if model and model.day <= view.scope.today.toordinal() else None


def predict_customer(view: View, customer: Customer) -> Predictions | None:
    """The predictions for a customer; None where there is no model for this day."""
    model = read_model(view)
    return predict(facts_of(customer, view.scope.today), model) if model else None


def header(customer: Customer, currency: str) -> CustomerHeader:
    """The fields that identify the customer in an answer."""
    return CustomerHeader(
        success=True,
        customer_id=customer.customer_id,
        customer_name=customer.name,
        customer_email=customer.email,
        processor=customer.processor,
        account=customer.account,
        currency=currency,
    )


def classify(view: View, customer: Customer) -> Classes:
    """Segment, activity and lifecycle at the end of `today`."""
    paid, orders, today = sum(row.amount_cents for row in customer.orders), customer.orders, view.scope.today
    days_known, days_quiet = (
        (today - date.fromisoformat(orders[i].date)).days if orders else None for i in (0, -1)
    )
    segment = segment_of(paid, segment_bounds(view))
    stage = None if days_known is None or days_quiet is None else lifecycle_of(days_known, days_quiet)
    return Classes(
        customer_segment=segment,
        treatment=view.options.treatment.get(segment),
        activity_status=None if days_quiet is None else activity_of(days_quiet),
        lifecycle_stage=stage,
        focus=view.options.focus.get(stage or ""),
    )
