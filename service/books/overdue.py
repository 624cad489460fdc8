"""Overdue bills: stated for a day that is over, and nothing was issued. And the contracts behind them."""

from datetime import date, timedelta

from sqlalchemy import ColumnElement, select

from projections.bills import Bill
from projections.issued_invoices import IssuedInvoice, LinkedPayment
from service.books.tables import ROWS
from service.core.cadence import ONCE

_GRACE = timedelta(days=3)  # in which an event of the contract may still come

_bills = ROWS[Bill]
_invoices = ROWS[IssuedInvoice]
_payments = ROWS[LinkedPayment]


def is_overdue(today: str) -> ColumnElement[bool]:
    """Whether a bill was stated for a day that is over, by a contract that is still live.

    A one-off bill that was not declined is paid by then, as far as anybody states.
    """
    is_live = _bills.c.ends_date.is_(None) | (_bills.c.ends_date > today)
    is_awaited = (_bills.c.interval != ONCE) | _bills.c.declined
    return (_bills.c.status == "upcoming") & (_bills.c.date < today) & is_live & is_awaited


def makes_contract_overdue(today: date) -> ColumnElement[bool]:
    """Whether a bill is overdue for three days, and nothing was heard of its contract on its day or since.

    The bill's row says so of the contract's own events and its invoices'; the later ones of payments are in
    rows of their own.
    """
    later_payments = (
        select(_payments.c.id)
        .join(
            _invoices, (_invoices.c.book == _payments.c.book) & (_invoices.c.key == _payments.c.invoice_key)
        )
        .where(
            _invoices.c.book == _bills.c.book,
            _invoices.c.parent_key == _bills.c.key,
            _payments.c.last_event_date >= _bills.c.date,
        )
    )
    is_late = _bills.c.date <= (today - _GRACE).isoformat()
    return _bills.c.unheard & is_late & is_overdue(today.isoformat()) & ~later_payments.exists()
