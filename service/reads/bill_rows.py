"""Bills as the rows of a list: issued, drafted, stated, overdue, and forecast."""

from collections.abc import Mapping
from typing import Any

from msgspec import json
from sqlalchemy import ColumnElement, select

from projections.bills import UPCOMING_STATUSES, Bill
from service.books.overdue import is_overdue
from service.books.tables import ROWS
from service.books.view import View
from service.core import cadence
from service.reads.coming import ForecastBill

BILLS = ROWS[Bill]
_ORDER_NAMES = "date customer_id contract_id invoice_id processor account interval every".split()
ORDER = tuple(  # the same on every database, whatever order the rows were written in
    BILLS.c[name].nulls_first() for name in _ORDER_NAMES
)


def is_shown(today: str) -> ColumnElement[bool]:
    """Whether a bill is one on the day of the read: issued, drafted, still to come or overdue."""
    return (BILLS.c.status != "upcoming") | (BILLS.c.date >= today) | is_overdue(today)


def bill_rows(view: View, first: str, last: str, *, upcoming_only: bool = False) -> list[dict[str, Any]]:
    """The bills between two days, by date, with the customer's name; not those that are only forecast."""
    today = view.scope.today.isoformat()
    query = view.with_names(select(BILLS), BILLS).where(
        *view.filters(BILLS, "bills"), BILLS.c.date.between(first, last), is_shown(today)
    )
    if upcoming_only:
        query = query.where(BILLS.c.status.in_(UPCOMING_STATUSES))
    return [
        _row_document(
            row,
            date=row.date,
            invoice_id=row.invoice_id,
            amount_cents=row.amount_cents,
            interval=row.interval,
            every=row.every,
            mrr_cents=row.mrr_cents,
            status="overdue" if row.status == "upcoming" and row.date < today else row.status,
            next_bill_date=row.next_bill_date,
            open_cents=row.open_cents,
        )
        for row in view.all(query.order_by(*ORDER))
    ]


def forecast_row(bill: ForecastBill) -> dict[str, Any]:
    """A forecast bill as a row of a list."""
    return _row_document(
        bill.contract,
        date=bill.date,
        invoice_id=None,
        amount_cents=bill.amount_cents,
        interval=bill.schedule.interval,
        every=bill.schedule.every,
        mrr_cents=bill.mrr_cents,
        status="forecast",
        next_bill_date=bill.next_bill_date,
        open_cents=0,
    )


def _row_document(row: Any, *, interval: str, every: int, **fields: Any) -> dict[str, Any]:
    """The document of a bill; `row` is its own row, or that of its contract."""
    return {
        "date": fields["date"],
        "customer_id": row.customer_id,
        "customer_name": row.customer_name,
        "contract_id": row.contract_id,
        "invoice_id": fields["invoice_id"],
        "amount_cents": fields["amount_cents"],
        "cadence": cadence.cadence_label(interval, every),
        **{name: fields[name] for name in ("mrr_cents", "status", "next_bill_date", "open_cents")},
        "declined": row.declined,
        "interval": interval,
        "every": every,
        "schedule": cadence.schedule_label(interval, every),
        "processor": row.processor,
        "account": row.account,
        "trust": row.trust,
        "causes": json.decode(row.causes),
    }


def position(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The place of a row in a list: by date, then the customer's name, else id; then the order of `ORDER`."""
    return row["date"], row["customer_name"] or row["customer_id"], *(row[n] or "" for n in _ORDER_NAMES)
