"""The facts that are compared, by the type of data as which an object is recorded."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from projections import bills
from projections.bills import Contract, mrr_on
from projections.book import Row, Rules
from projections.customer_discounts import CustomerDiscounts
from projections.issued_invoices import IssuedInvoice, invoice_rows
from service.core.events import NO_CURRENCY, UNKNOWN_CUSTOMER, Data, Event, Invoice, Subscription
from service.sync.reconcile.report import Facts


class Comparison(Struct, frozen=True, kw_only=True):
    """How an object is compared with its row in a book. `history` is the first part of the row's key.

    `contribute` makes the row of a history under rules, given the discounts of the customer; `facts` the
    compared values of a row on a day, and `stated_facts` those of a row that was made of what the API shows.
    """

    history: str
    book: str
    row: type[Row]
    contribute: Callable[[Sequence[Event], Rules, Sequence[CustomerDiscounts]], list[Row]]
    facts: Callable[[Any, str], Facts]
    stated_facts: Callable[[Any, str], Facts]


def contract_facts(row: Contract, today: str) -> Facts:
    """The values of a contract that are compared. The bill's amount counts only if there is a next bill."""
    return {
        "status": row.status,
        "customer": row.customer_id,
        "currency": row.currency,
        "mrr_cents": mrr_on(row.terms, today),
        "next_bill_cents": row.amount_cents if row.next_bill_date else None,
        "next_bill_date": row.next_bill_date,
        "cancel_date": row.ends_date,
    }


def _stated_contract_facts(row: Contract, today: str) -> Facts:
    """The same of what the API shows; of a contract whose end is all that can be read of it, only that."""
    is_readable = row.customer_id != UNKNOWN_CUSTOMER and row.currency != NO_CURRENCY
    return contract_facts(row, today) if is_readable else {"status": row.status}


def invoice_facts(row: IssuedInvoice, _today: str) -> Facts:
    """The values of an invoice that are compared. The books' status "failed" is an open invoice."""
    return {
        "status": "open" if row.status == "failed" else row.status,
        "customer": row.customer_id,
        "date": row.date,
        "amount_due_cents": row.amount_cents,
        "amount_remaining_cents": row.open_cents,
    }


COMPARISONS: dict[type[Data], Comparison] = {
    Subscription: Comparison(
        history="subscription",
        book="bills",
        row=Contract,
        contribute=bills.observed_contract_rows,
        facts=contract_facts,
        stated_facts=_stated_contract_facts,
    ),
    Invoice: Comparison(
        history="invoice",
        book="bills",
        row=IssuedInvoice,
        contribute=lambda history, rules, _discounts: invoice_rows(history, rules),
        facts=invoice_facts,
        stated_facts=invoice_facts,
    ),
}
