"""Payments from charges and payment intents, their refunds and disputes."""

from typing import Any

from handlers.stripe import payloads
from handlers.stripe.fields import customer_id, id_of, moment, payment_id
from service.core import events
from service.core.events import Data

# The type of event that would tell of an object that the API showed, long after what happened.
OBSERVED_CHARGE = "charge.observed"
OBSERVED_DISPUTE = "charge.dispute.observed"
_LATER = frozenset({OBSERVED_CHARGE, "charge.refunded"})


def charge(payload: payloads.Charge, event_type: str) -> Data:
    """The state of a payment from its charge. Where it is told of later, it also tells when it was paid.

    What was held and never captured can't be refunded: Stripe counts it in `amount_refunded` once it is
    given back. Source: https://docs.stripe.com/payments/place-a-hold-on-a-payment-method.
    """
    status = _charge_status(payload)
    captured = _captured(payload, status)
    uncaptured = max(payload.amount - captured, 0) if status in {"succeeded", "authorized"} else 0
    released = min(payload.amount_refunded, uncaptured)
    return _payment(
        payload,
        payment_id=id_of(payload.payment_intent) or payload.id,
        status=status,
        amount=captured if status == "succeeded" else payload.amount,
        amount_refunded=payload.amount_refunded - released,
        amount_released=uncaptured if event_type == "charge.expired" else released,
        paid_at=moment(payload.created) if event_type in _LATER else None,
        attempted_at=moment(payload.created),
        failed_at=moment(payload.created) if event_type == OBSERVED_CHARGE and status == "failed" else None,
    )


def _charge_status(payload: payloads.Charge) -> str:
    """The status of a payment; "authorized" while no money has moved."""
    status = payload.status or ("succeeded" if payload.paid else "failed")
    if status not in {"succeeded", "paid"}:
        return status
    return "authorized" if payload.captured is False else "succeeded"


def _captured(payload: payloads.Charge, status: str) -> int:
    """The amount that was captured, at times more than was held; all of it where an old charge has none."""
    if status == "authorized":
        return 0
    stated = payload.amount_captured if payload.captured else None
    return payload.amount if stated is None else stated


def payment_intent(payload: payloads.PaymentIntent, event_type: str) -> Data:
    """The state of a payment from its payment intent."""
    failed = event_type == "payment_intent.payment_failed"
    received = payload.amount if payload.amount_received is None else payload.amount_received
    return _payment(
        payload,
        payment_id=payload.id,
        status="failed" if failed else "succeeded",
        amount=payload.amount if failed else received,
    )


def _payment(payload: payloads.Payment, **fields: Any) -> events.Payment:
    details = payload.payment_details
    order = details.order_reference if details else None  # Stripe names its own invoices there
    order_id = order if order and order.startswith("in_") else None
    return events.Payment(
        currency=payload.currency,
        customer_id=customer_id(payload),
        invoice_id=id_of(payload.invoice) or order_id,
        **fields,
    )


def refund(payload: payloads.Refund, event_type: str) -> Data:
    """A refund. One of no payment that went to a bank account returned cash that had paid nothing."""
    key = payment_id(payload)
    if key is None and payload.destination_details:
        return events.Unused(original_type=event_type, customer_id=customer_id(payload))
    return events.Refund(
        refund_id=payload.id,
        status=payload.status or "unknown",
        currency=payload.currency,
        amount=payload.amount,
        created_at=moment(payload.created),
        payment_id=key,
        customer_id=customer_id(payload),
        captured=payload.reason != "expired_uncaptured_charge",
    )


def dispute(payload: payloads.Dispute, event_type: str) -> Data:
    """A dispute. Of one that was observed, the last of its transactions tells when it took the money."""
    moments = [part.created for part in _transactions(payload) if part.created is not None]
    return events.Dispute(
        dispute_id=payload.id,
        status=payload.status,
        currency=payload.currency,
        amount=payload.amount,
        amount_taken=_taken(payload),
        taken_at=moment(max(moments)) if moments and event_type == OBSERVED_DISPUTE else None,
        payment_id=payment_id(payload),
    )


def _taken(payload: payloads.Dispute) -> int | None:
    """What the dispute took and has not given back; None where it names no transaction.

    In an account of another currency the amounts can't be compared: it took all, unless it gave back all.
    """
    stated, transactions = payload.balance_transactions, _transactions(payload)
    if stated is None or len(transactions) < len(stated):
        return None
    taken = max(-sum(part.amount for part in transactions), 0)
    if any(part.currency not in {None, payload.currency} for part in transactions):
        return payload.amount if taken else 0
    return taken


def _transactions(payload: payloads.Dispute) -> list[payloads.BalanceTransaction]:
    """The transactions that it shows in full."""
    return [part for part in payload.balance_transactions or () if not isinstance(part, str)]
