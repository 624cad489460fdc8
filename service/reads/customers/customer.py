"""One customer: all that the books know of them at the end of a day."""

from datetime import date
from typing import Any

from msgspec import Struct, json
from sqlalchemy import select

from projections.bills import Contract, mrr_on
from projections.customers import Name
from projections.mrr import Movement
from projections.revenue import CustomerRevenue, Order, Reversal
from service.books.tables import ROWS
from service.core.errors import NotFound, ParameterError
from service.core.events import joined
from service.core.money import round_half_away
from service.predictions.model import Facts, Model, Predictions, predict
from service.reads.customers.classes import activity_of, lifecycle_of, segment_bounds, segment_of
from service.reads.view import View

_orders = ROWS[Order]
_back = ROWS[Reversal]
_contracts = ROWS[Contract]
_movements = ROWS[Movement]
_KNOWN = [(ROWS[CustomerRevenue], "revenue"), (_contracts, "bills"), (ROWS[Name], "customers")]
_UNKNOWN = "no order, contract or name of this customer is known"


class Customer(Struct, frozen=True, kw_only=True):
    """One customer at the end of `today`, in one currency: orders and reversals by date, live contracts."""

    processor: str
    account: str
    customer_id: str
    name: str | None
    orders: list[Any]
    back: list[Any]
    contracts: list[Any]
    movements: list[Any]


# What is known


def find(view: View, customer_id: str, processor: str | None) -> Customer:
    """The customer of this id. Raises NotFound, or ParameterError where several have it."""
    processor, account = _whose(view, customer_id, processor)
    today = view.scope.today.isoformat()

    def rows(table: Any, book: str, *conditions: Any) -> list[Any]:
        mine = (
            table.c.customer_id == customer_id,
            table.c.processor == processor,
            table.c.account == account,
        )
        return view.all(select(table).where(*view.within(table, book), *mine, *conditions))

    key = joined(processor, account, customer_id, view.scope.currency)
    moved = select(_movements).where(*view.within(_movements, "mrr"), _movements.c.key == key)
    names = ROWS[Name]
    named = select(names.c.name).where(*view.within(names, "customers", currency=False))
    named = named.where(names.c.customer_id == customer_id, names.c.processor == processor)
    return Customer(
        processor=processor,
        account=account,
        customer_id=customer_id,
        name=next((row.name for row in view.all(named.where(names.c.account == account))), None),
        orders=_by_date(rows(_orders, "revenue", _orders.c.date <= today)),
        back=_by_date(rows(_back, "revenue", _back.c.date <= today)),
        contracts=sorted(rows(_contracts, "bills"), key=lambda row: row.contract_id),
        movements=sorted(view.all(moved.where(_movements.c.date <= today)), key=lambda row: row.date),
    )


def _by_date(rows: list[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: (row.date, row.source_id))


def _whose(view: View, customer_id: str, processor: str | None) -> tuple[str, str]:
    """The processor and account of the one customer that has this id."""
    if not customer_id.isprintable():  # as every id is; PostgreSQL takes no NUL
        raise NotFound(_UNKNOWN)
    found: set[tuple[str, str]] = set()
    for table, book in _KNOWN:
        query = select(table.c.processor, table.c.account).where(table.c.customer_id == customer_id)
        found |= {
            (row[0], row[1]) for row in view.all(query.where(*view.within(table, book, currency=False)))
        }
    found = {who for who in found if processor in (None, who[0])}
    if not found:
        raise NotFound(_UNKNOWN)
    if len(found) > 1:
        several = ", ".join(f"processor={name}&account={account}" for name, account in sorted(found))
        raise ParameterError(f"processor: several customers have this id; ask for one of {several}")
    return found.pop()


def live_mrr(customer: Customer) -> int:
    """The customer's MRR at the end of `today`."""
    return customer.movements[-1].closing_cents if customer.movements else 0


def facts(customer: Customer, today: date) -> Facts:
    """What predictions are made from."""
    orders, moves = customer.orders, customer.movements
    paid = sum(row.amount_cents for row in orders)
    started = [move.date for move in moves if move.kind in ("new", "reactivation")]
    ended = [move.date for move in moves if move.kind == "churn"]
    bills = [row.next_bill_date for row in customer.contracts if row.next_bill_date]
    return Facts(
        today=today.toordinal(),
        orders=len(orders),
        first_day=_ordinal(orders[0].date) if orders else None,
        last_day=_ordinal(orders[-1].date) if orders else None,
        revenue_cents=paid - sum(row.amount_cents for row in customer.back),
        average_order_cents=round_half_away(paid, len(orders)) if orders else 0,
        mrr_cents=live_mrr(customer),
        tenure_day=_ordinal(started[-1]) if started else None,
        ended_day=_ordinal(ended[-1]) if ended else None,
        next_bill_date=min(bills, default=None),
        ends_date=ends_on(customer, today.isoformat()),
    )


def live_contracts(customer: Customer, today: str) -> list[Any]:
    """The contracts that count in MRR at the end of `today`."""
    return [row for row in customer.contracts if mrr_on(row.terms, today)]


def ends_on(customer: Customer, today: str) -> str | None:
    """The day on which the last of the live contracts is set to end; None if one of them is not."""
    ends = [row.ends_date for row in live_contracts(customer, today)]
    return max(ends) if ends and all(end and end > today for end in ends) else None


def _ordinal(day: str) -> int:
    return date.fromisoformat(day).toordinal()


def model(view: View) -> Model | None:
    """What the worker has learnt of this currency, if not on a later day than `today`."""
    found = view.learnt("model")
    learnt = json.decode(found, type=Model) if found else None
    return learnt if learnt and learnt.day <= view.scope.today.toordinal() else None


def predictions(view: View, customer: Customer) -> Predictions | None:
    """What is to be expected of a customer; None where nothing is learnt for this day."""
    learnt = model(view)
    return predict(facts(customer, view.scope.today), learnt) if learnt else None


def header(view: View, customer: Customer) -> dict[str, Any]:
    """Whom an answer is about."""
    return {
        "success": True,
        "customer_id": customer.customer_id,
        "customer_name": customer.name,
        "processor": customer.processor,
        "account": customer.account,
        "currency": view.scope.currency,
    }


def standing(view: View, customer: Customer) -> dict[str, Any]:
    """Segment, activity and lifecycle at the end of `today`; the last two are null before any order."""
    paid, orders, today = sum(row.amount_cents for row in customer.orders), customer.orders, view.scope.today
    known, quiet = ((today - date.fromisoformat(orders[i].date)).days if orders else None for i in (0, -1))
    return {
        "customer_segment": segment_of(paid, segment_bounds(view)),
        "activity_status": None if quiet is None else activity_of(quiet),
        "lifecycle_stage": None if known is None or quiet is None else lifecycle_of(known, quiet),
    }
