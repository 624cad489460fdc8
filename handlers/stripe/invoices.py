"""Invoices, the payments that settle them, and credit notes."""

from collections.abc import Sequence
from typing import Any

from handlers.stripe import payloads
from handlers.stripe.fields import (
    customer_id,
    id_of,
    missing,
    moment,
    optional_moment,
    payment_id,
    readable,
)
from handlers.stripe.lines import (
    billed_items,
    first_id,
    inclusive_taxes,
    is_recurring,
    named_prices,
    named_products,
)
from service.core import events
from service.core.events import Data


def invoice(payload: payloads.Invoice, event_type: str) -> Data:
    """An invoice with the payments that settle it."""
    created = payload.date if payload.created is None else payload.created
    if created is None:
        raise missing("created")
    status = "deleted" if event_type == "invoice.deleted" else _status(payload)
    amount_paid = payload.amount_paid
    if amount_paid is None:  # an old payload, in which an invoice is paid as a whole
        amount_paid = payload.amount_due if status == "paid" else 0
    amounts = _payment_amounts(payload)
    transitions = payload.status_transitions or payloads.StatusTransitions()
    subscription_id = _subscription_id(payload)
    return events.Invoice(
        invoice_id=payload.id,
        status=status,
        currency=payload.currency,
        amount_due=payload.amount_due,
        amount_paid=amount_paid,
        amount_remaining=payload.amount_remaining,
        customer_id=customer_id(payload),
        subscription_id=subscription_id,
        created_at=moment(created),
        finalized_at=optional_moment(_finalized_at(payload)),
        paid_at=optional_moment(transitions.paid_at),
        payment_failed=event_type == "invoice.payment_failed",
        payment_ids=tuple(amounts),
        payment_amounts=tuple(amounts.values()) if any(amounts.values()) else (),
        lines=_lines(payload.lines, payload.subtotal) if payload.lines else (),
        paid_out_of_band=bool(payload.paid_out_of_band)
        or 0 < amount_paid <= (payload.amount_paid_off_stripe or 0),
        within_period=subscription_id is not None and _is_within_period(payload),
        periods=_periods(payload.lines) if subscription_id and payload.lines else (),
        billed=billed_items(payload, created) if subscription_id else (),
        **(_inclusive_tax(payload) if subscription_id else {}),
    )


def _status(payload: payloads.Invoice) -> str:
    """The status; of an old invoice what it was called later.

    An invoice that was `closed` is one with `auto_advance` off, so that says nothing. Source:
    https://docs.stripe.com/changelog/2018-11-08.
    """
    if payload.status:
        return payload.status
    if payload.paid:
        return "paid"
    if payload.forgiven:
        return "uncollectible"
    return "open" if payload.attempted or _finalized_at(payload) is not None else "draft"


def _finalized_at(payload: payloads.Invoice) -> int | None:
    transitions = payload.status_transitions
    return transitions.finalized_at if transitions and transitions.finalized_at else payload.finalized_at


def _subscription_id(payload: payloads.Invoice) -> str | None:
    details = payload.parent.subscription_details if payload.parent else None
    return id_of(payload.subscription) or (id_of(details.subscription) if details else None)


_PERIOD_REASONS = {"subscription_create", "subscription_cycle"}
_CHANGE_REASONS = {
    "automatic_pending_invoice_item_invoice",
    "manual",
    "subscription_threshold",
    "subscription_update",
}


def _is_within_period(payload: payloads.Invoice) -> bool:
    """Whether a contract's invoice bills changes within a period, and no period."""
    lines = payload.lines.data if payload.lines else ()
    if payload.billing_reason in _PERIOD_REASONS or any(map(is_recurring, lines)):
        return False
    return payload.billing_reason in _CHANGE_REASONS or (bool(lines) and all(map(_is_change, lines)))


def _periods(lines: payloads.InvoiceLines) -> tuple[events.Period, ...]:
    """The periods of a contract that its lines bill; none where a line that is not listed may bill another.

    A metered line bills the period that is over, beside lines that bill the coming one.
    """
    stated = [readable(line.period, payloads.LinePeriod) for line in lines.data if is_recurring(line)]
    if lines.has_more or None in stated:
        return ()
    periods = dict.fromkeys((period.start, period.end) for period in stated if period)
    return tuple(events.Period(starts_at=moment(start), ends_at=moment(end)) for start, end in periods)


# Lines


def _lines(lines: payloads.InvoiceLines, subtotal: int | None) -> tuple[events.InvoiceLine, ...]:
    """The lines. Those beyond the first page of the list become one line without a product.

    Otherwise their amount would be counted as revenue of the listed products.
    """
    listed = tuple(_line(line) for line in lines.data)
    if not lines.has_more:
        return listed
    listed_total = sum(line.amount for line in listed)
    return (*listed, events.InvoiceLine(amount=subtotal - listed_total)) if subtotal is not None else ()


def _line(line: payloads.InvoiceLine) -> events.InvoiceLine:
    prices, products = named_prices(line), named_products(line)
    names = [
        *(product.name for product in products if isinstance(product, payloads.Product)),
        *(price.nickname for price in prices if isinstance(price, payloads.NamedPrice)),
    ]
    return events.InvoiceLine(
        amount=line.amount,
        product_id=first_id(products),
        price_id=first_id(prices),
        product_name=next(filter(None, names), None),
    )


def _inclusive_tax(payload: payloads.Invoice) -> dict[str, Any]:
    """The tax that the subscription's lines include, and their amount with it.

    Nothing where the invoice has neither an inclusive tax nor an automatic one that was computed.
    """
    lines = [line for line in (payload.lines.data if payload.lines else ()) if is_recurring(line)]
    inclusive = [tax for line in lines for tax in inclusive_taxes(line)]
    amount = sum(line.amount - _total(line.discount_amounts) for line in lines)
    if amount <= 0 or not (inclusive or _is_automatic(payload.automatic_tax)):
        return {}
    return {"taxed_amount": amount, "inclusive_tax": sum(inclusive)}


def _is_change(line: payloads.InvoiceLine) -> bool:
    """Whether a line bills a part of a period, or an item that was added to the invoice."""
    return line.parent is not None or line.type == "invoiceitem" or bool(line.proration)


def _is_automatic(tax: payloads.AutomaticTax | None) -> bool:
    return tax is not None and tax.enabled and tax.status not in {"failed", "requires_location_inputs"}


def _total(parts: Sequence[payloads.LineDiscount] | None) -> int:
    return sum(part.amount for part in parts or ())


# Payments of invoices


def _payment_amounts(payload: payloads.Invoice) -> dict[str, int | None]:
    """The payments that an invoice lists, each with what it paid of the invoice, where that is stated."""
    payments = payload.payments.data if payload.payments else ()
    listed = [each for each in payments if each.status != "canceled"]
    named = filter(None, (payment_id(payload), *(payment_id(each.payment) for each in listed)))
    amounts: dict[str, int | None] = dict.fromkeys(named)
    for each in listed:
        key = payment_id(each.payment)
        if key and each.status != "open" and each.amount_paid:
            amounts[key] = (amounts[key] or 0) + each.amount_paid
    return amounts


def invoice_payment(payload: payloads.InvoicePayment, event_type: str) -> Data:
    """A payment of an invoice; a detached one settles it no longer."""
    key = payment_id(payload.payment)
    if key is None:
        raise missing("payment_intent", "$.data.object.payment")
    transitions = payload.status_transitions
    is_detached = event_type == "invoice_payment.detached"
    return events.InvoicePayment(
        invoice_id=id_of(payload.invoice),
        payment_id=key,
        status="canceled" if is_detached else payload.status or "paid",
        amount_paid=payload.amount_paid,
        paid_at=optional_moment(transitions.paid_at) if transitions else None,
    )


def checkout_session(payload: payloads.CheckoutSession, event_type: str) -> Data:
    """The link from a session's payment to the invoice that is its receipt, where the session has both."""
    invoice_id, intent_id = id_of(payload.invoice), id_of(payload.payment_intent)
    if invoice_id is None or intent_id is None:
        return events.Unused(original_type=event_type, customer_id=customer_id(payload))
    status = "paid" if payload.payment_status == "paid" else "open"
    return events.InvoicePayment(invoice_id=invoice_id, payment_id=intent_id, status=status)


# Credit notes


def credit_note(payload: payloads.CreditNote, _: str) -> Data:
    """A credit note; one for money that was given back outside of Stripe is the refund of that money."""
    if payload.out_of_band_amount and payload.created is not None:
        return events.Refund(
            refund_id=payload.id,
            status="canceled" if payload.status == "void" else "succeeded",
            currency=payload.currency,
            amount=payload.out_of_band_amount,
            created_at=moment(payload.created),
            customer_id=customer_id(payload),
        )
    return events.CreditNote(
        credit_note_id=payload.id,
        invoice_id=id_of(payload.invoice),
        currency=payload.currency,
        amount=payload.amount,
    )
