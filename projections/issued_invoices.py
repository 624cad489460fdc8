"""Issued invoices as the bills book reads them, and what their payments say of what is still to be paid.

What an invoice itself states stays in its row. What the payments of it brought beyond that, or took back,
counts as in `projections.settlement`.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from projections.book import (
    Row,
    Rules,
    causes,
    encode_causes,
    last_event_date,
    merge_causes,
    weakest_trust,
)
from projections.receipts import Claim, Receipt, claim_rows, receipt_rows
from projections.schedules import encode_periods
from projections.settlement import settle
from projections.status_words import is_unknown
from service.core.events import Event, Invoice, join_key, subject
from service.core.moments import day_of


class IssuedInvoice(Row, frozen=True, kw_only=True):
    """An invoice as it is now, whatever its status. `date` is its bill date.

    `within_period`: it bills changes within a period and no period of its own. `periods` are those that it
    bills, where they are known (see `projections.schedules`). `last_event_date` is that of its events and
    those that name it.
    """

    table = "invoices"
    indexes = (("customer_id",),)

    processor: str
    account: str
    currency: str
    customer_id: str
    contract_id: str | None
    invoice_id: str
    created_date: str
    date: str
    status: str
    amount_cents: int
    open_cents: int
    uncollectible_cents: int
    within_period: bool
    periods: str
    last_event_date: str
    trust: str


class UnstatedMoney(Row, frozen=True, kw_only=True):
    """Money that an invoice does not state: its payments brought it or, below zero, took it back."""

    table = "unstated_money"

    invoice_id: str
    cents: int
    trust: str


class LinkedPayment(Row, frozen=True, kw_only=True):
    """A payment whose last event is of a later day than all events by which it is linked to an invoice.

    Those are in the invoice's own history, where later ones, as refunds, may not be.
    """

    table = "linked_payments"
    indexes = (("invoice_key",),)

    invoice_key: str
    last_event_date: str


def invoice_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One invoice's events to the row of its present state."""
    if not any(isinstance(event.data, Invoice) for event in history):
        return []
    latest, data = latest_invoice(history)
    failed = any(isinstance(e.data, Invoice) and e.data.payment_failed for e in history)
    remaining = data.amount_due - data.amount_paid if data.amount_remaining is None else data.amount_remaining
    is_open = data.status == "open"
    return [
        IssuedInvoice(
            parent_key=_bill_key(latest, data),
            causes=causes(latest),
            processor=latest.processor,
            account=latest.account,
            currency=data.currency,
            customer_id=data.customer_id or "",
            contract_id=data.subscription_id,
            invoice_id=data.invoice_id,
            created_date=day_of(data.created_at, rules.zone).isoformat(),
            date=day_of(data.finalized_at or data.created_at, rules.zone).isoformat(),
            status="failed" if is_open and failed else data.status,
            amount_cents=0 if is_unknown(latest) else data.amount_due,
            open_cents=max(remaining, 0) if is_open else 0,
            uncollectible_cents=max(remaining, 0) if data.status == "uncollectible" else 0,
            within_period=data.within_period,
            periods=encode_periods(data.periods, rules),
            last_event_date=last_event_date(history, rules),
            trust=latest.trust,
        )
    ]


def _bill_key(of: Event | Claim, invoice: Invoice | Claim) -> str:
    """The key under which an invoice's rows are read: its contract's, or its own where it has none."""
    contract_id = invoice.contract_id if isinstance(invoice, Claim) else invoice.subscription_id
    kind, key = ("subscription", contract_id) if contract_id else ("invoice", invoice.invoice_id)
    return join_key(kind, of.processor, of.account, key)


def joined_claim_rows(history: Sequence[Event], _rules: Rules) -> list[Row]:
    """One invoice's events to its claim, where payments may bring it money."""
    return [replace(row, tries="[]", lines="[]") for row in claim_rows(history) if row.parent_key]


def joined_receipt_rows(history: Sequence[Event], _rules: Rules) -> list[Row]:
    """One payment's events to its receipts with money that may be an invoice's."""
    rows = (row for row in receipt_rows(history) if row.parent_key and row.changes != "[]")
    return [replace(row, tries="[]") for row in rows]


def unstated_money_rows(rows: Sequence[Claim | Receipt], _rules: Rules) -> list[Row]:
    """Claims and receipts that may belong together to what invoices do not state of their money."""
    return [
        UnstatedMoney(
            parent_key=_bill_key(claim, claim),
            causes=encode_causes(change.cause for change in settlement.changes),
            invoice_id=claim.invoice_id,
            cents=cents,
            trust=weakest_trust(change.trust for change in settlement.changes),
        )
        for settlement in settle(rows)
        if (claim := settlement.claim) and (cents := settlement.collected_cents - claim.stated_cents)
    ]


def linked_payment_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One payment's events to its last day, for each invoice that an earlier event names as the last one."""
    last = last_event_date(history, rules)
    naming = {name: event for event in history if (name := getattr(event.data, "invoice_id", None))}
    return [
        LinkedPayment(
            causes=causes(history[-1]), invoice_key=subject("invoice", event, name), last_event_date=last
        )
        for name, event in naming.items()
        if last_event_date([event], rules) < last
    ]


_TERMINAL = ("void", "deleted")  # statuses of invoices that stay, the weaker first


def latest_invoice(history: Sequence[Event]) -> tuple[Event, Invoice]:
    """The last event, and its data; of a void or deleted invoice the last that says so."""
    invoices = [(event, event.data) for event in history if isinstance(event.data, Invoice)]
    ended = [pair for pair in invoices if pair[1].status in _TERMINAL]
    return max(reversed(ended), key=lambda pair: _TERMINAL.index(pair[1].status), default=invoices[-1])


def as_settled(row: IssuedInvoice, money: UnstatedMoney | None) -> IssuedInvoice:
    """An invoice with what its payments say of its money: less of it is open, or some of it again."""
    if money is None:
        return row
    open_cents, uncollectible_cents, status = row.open_cents, row.uncollectible_cents, row.status
    if status in ("open", "failed"):
        open_cents = max(open_cents - money.cents, 0)
    elif status == "uncollectible":
        uncollectible_cents = max(uncollectible_cents - money.cents, 0)
    elif status == "paid" and money.cents < 0:
        open_cents, status = -money.cents, "open"
    else:
        return row
    return replace(
        row,
        causes=merge_causes([row.causes, money.causes]),
        open_cents=open_cents,
        uncollectible_cents=uncollectible_cents,
        status=status if open_cents or uncollectible_cents else "paid",
        trust=weakest_trust([row.trust, money.trust]),
    )
