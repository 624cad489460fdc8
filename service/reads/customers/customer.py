"""One customer: all that the books know of them at the end of a day."""

from collections.abc import Iterable, Sequence
from datetime import date
from itertools import islice, takewhile
from typing import Any

from msgspec import Struct, json
from sqlalchemy import select

from projections.bills import Contract, IssuedInvoice, amount_on, mrr_on, roll_bill_dates
from projections.customers import CustomerName
from projections.mrr import Movement
from projections.revenue import CustomerRevenue, Order, Reversal
from service.books.tables import ROWS
from service.books.view import View
from service.core.errors import NotFound, ParameterError
from service.core.events import join_key
from service.core.money import round_half_away
from service.predictions.model import LIFETIME_DAYS, Facts, Model
from service.predictions.predict import Predictions, predict
from service.reads.customers.classes import activity_of, lifecycle_of, segment_bounds, segment_of

_orders = ROWS[Order]
_back = ROWS[Reversal]
_contracts = ROWS[Contract]
_movements = ROWS[Movement]
_KNOWN = [
    (ROWS[CustomerRevenue], "revenue"),
    (_contracts, "bills"),
    (ROWS[IssuedInvoice], "bills"),
    (ROWS[CustomerName], "customers"),
]
_ORDER = ("date", "source_id", "amount_cents", "products", "trust", "causes")  # there may be thousands
_REVERSAL = ("date", "kind", "source_id", "part", "amount_cents", "trust", "causes")
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

    def rows(table: Any, book: str, names: Sequence[str], *conditions: Any) -> list[Any]:
        mine = (
            table.c.customer_id == customer_id,
            table.c.processor == processor,
            table.c.account == account,
        )
        query = select(*(table.c[name] for name in names))
        return view.all(query.where(*view.filters(table, book), *mine, *conditions))

    key = join_key(processor, account, customer_id, view.scope.currency)
    within = view.filters(_movements, "mrr", currency=False)  # the key says it; SQLite would go by its index
    moved = select(_movements).where(*within, _movements.c.key == key)
    names = ROWS[CustomerName]
    named = select(names.c.name).where(*view.filters(names, "customers", currency=False))
    named = named.where(names.c.customer_id == customer_id, names.c.processor == processor)
    return Customer(
        processor=processor,
        account=account,
        customer_id=customer_id,
        name=next((row.name for row in view.all(named.where(names.c.account == account))), None),
        orders=_by_date(rows(_orders, "revenue", _ORDER, _orders.c.date <= today)),
        back=_by_date(rows(_back, "revenue", _REVERSAL, _back.c.date <= today)),
        contracts=sorted(rows(_contracts, "bills", _contracts.c.keys()), key=lambda row: row.contract_id),
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
            (row[0], row[1]) for row in view.all(query.where(*view.filters(table, book, currency=False)))
        }
    found = {who for who in found if processor in (None, who[0])}
    if not found:
        raise NotFound(_UNKNOWN)
    if len(found) > 1:
        several = ", ".join(f"processor={name}&account={account}" for name, account in sorted(found))
        raise ParameterError(f"processor: several customers have this id; ask for one of {several}")
    return found.pop()


def facts(customer: Customer, today: date) -> Facts:
    """What predictions are made from."""
    orders = customer.orders
    paid = sum(row.amount_cents for row in orders)
    last_date = orders[-1].date if orders else None
    return facts_from(
        orders=len(orders),
        first_date=orders[0].date if orders else None,
        last_date=last_date,
        paid_cents=paid,
        net_cents=paid - sum(row.amount_cents for row in customer.back),
        last_order_cents=sum(row.amount_cents for row in orders if row.date == last_date),
        movements=customer.movements,
        contracts=customer.contracts,
        today=today,
    )


def facts_from(  # noqa: PLR0913 - what a customer's row has, and two kinds of rows beside it
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
    """The facts of a customer by the orders added up, the movements by date, and the contracts.

    `last_order_cents` is all that was ordered on the last date: two contracts may bill on one day.
    """
    started = [move.date for move in movements if move.kind in ("new", "reactivation")]
    ended = [move.date for move in movements if move.kind == "churn"]
    day = today.isoformat()
    live = _live(contracts, day)
    stated = [row.next_bill_date for row in live if row.next_bill_date]
    until = date.fromordinal(today.toordinal() + LIFETIME_DAYS).isoformat()
    return Facts(
        today=today.toordinal(),
        orders=orders,
        first_day=_ordinal(first_date) if first_date else None,
        last_day=_ordinal(last_date) if last_date else None,
        revenue_cents=net_cents,
        average_order_cents=round_half_away(paid_cents, orders) if orders else 0,
        last_order_cents=last_order_cents,
        last_order_mrr_cents=_closing([move for move in movements if move.date <= (last_date or "")]),
        mrr_cents=_closing(movements),
        tenure_day=_ordinal(started[-1]) if started else None,
        ended_day=_ordinal(ended[-1]) if ended else None,
        bills=tuple((_ordinal(bill), cents) for bill, cents in dated_bills(live, day, until)),
        undated_mrr_cents=sum(mrr_on(row.terms, day) for row in live if _is_undated(row, day)),
        overdue_date=min(stated) if stated and max(stated) < day else None,
        ends_date=_ends_on(live, day),
    )


def _closing(movements: Sequence[Any]) -> int:
    return movements[-1].closing_cents if movements else 0


def live_contracts(customer: Customer, today: str) -> list[Any]:
    """The contracts that count in MRR at the end of `today`."""
    return _live(customer.contracts, today)


def _live(contracts: Iterable[Any], today: str) -> list[Any]:
    return [row for row in contracts if mrr_on(row.terms, today)]


def _ends_on(live: Iterable[Any], today: str) -> str | None:
    """The day on which the last of the live contracts is set to end; None if one of them is not."""
    ends = [row.ends_date for row in live]
    return max(ends) if ends and all(end and end > today for end in ends) else None


def _is_undated(row: Any, today: str) -> bool:
    """Whether a contract goes on for a period at least, and no next bill is stated."""
    dates = roll_bill_dates(today, row.interval, row.every, None, row.ends_date)
    return not row.next_bill_date and len(list(islice(dates, 2))) == 2


def dated_bills(contracts: Iterable[Any], first: str, last: str) -> list[tuple[str, int]]:
    """The bills from `first` to `last`, [(day, minor units), …] by day.

    Each contract's dated bill is rolled on by its interval, until that contract's own end.
    """
    bills: list[tuple[str, int]] = []
    for row in contracts:
        if row.next_bill_date:
            amounts = json.decode(row.amounts)
            days = roll_bill_dates(
                row.next_bill_date, row.interval, row.every, row.anchor_day, row.ends_date, since=first
            )
            bills += [
                (day, amount_on(amounts, day))
                for day in takewhile(lambda day: day <= last, days)
                if day >= first
            ]
    return sorted(bills)


def _ordinal(day: str) -> int:
    return date.fromisoformat(day).toordinal()


def model(view: View) -> Model | None:
    """What the worker has learnt of this currency, if not on a later day than `today`."""
    found = view.stored_model("model")
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


def classes(view: View, customer: Customer) -> dict[str, Any]:
    """Segment, activity and lifecycle at the end of `today`; the last two are null before any order."""
    paid, orders, today = sum(row.amount_cents for row in customer.orders), customer.orders, view.scope.today
    known, quiet = ((today - date.fromisoformat(orders[i].date)).days if orders else None for i in (0, -1))
    return {
        "customer_segment": segment_of(paid, segment_bounds(view)),
        "activity_status": None if quiet is None else activity_of(quiet),
        "lifecycle_stage": None if known is None or quiet is None else lifecycle_of(known, quiet),
    }
