"""Payments and refunds from the API: they confirm notifications, and stand for those that never came."""

from datetime import datetime
from typing import Any

from msgspec import json
from msgspec.structs import replace

from handlers.mxmerchant.fields import (
    NAME,
    TRUST_SUFFIX,
    currency_of,
    customer_of,
    first_stated,
    parse_decimal,
    parse_minor,
    parse_moment,
)
from handlers.mxmerchant.notifications import ID_FIELDS
from handlers.mxmerchant.payloads import FetchedPayment
from handlers.standard.translation import normalize, parse
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import UPDATED, Data, Dispute, Event, Payment, Refund

# The meaning of a fetched status for each kind of data. Any other status leaves it open, and uncounted.
_STATUS_OF_PAID = {"approved": "succeeded", "settled": "succeeded"}
_STATUS_MEANINGS: dict[type[Data], dict[str, str]] = {
    # A payment that was charged back was paid first; its dispute is an event of its own.
    Payment: _STATUS_OF_PAID | {"chargedback": "succeeded", "declined": "failed", "voided": "voided"},
    Refund: _STATUS_OF_PAID | {"declined": "failed", "voided": "canceled"},
    Dispute: {"chargedback": "lost"},
}
_OPEN_STATUS = {Payment: "pending", Refund: "pending", Dispute: "under_review"}
_UNSETTLED = frozenset(_OPEN_STATUS.values())  # a fetched payment with such a status confirms nothing yet


def confirmation(payment: dict[str, Any], notification_event: Event, observed_at: datetime) -> Event:
    """The event that confirms an unsigned notification by its payment as fetched from the API.

    Amount, status and customer are those of the fetched payment, or of the notification where the payment
    lacks them. A sale confirms no refund and a refund no sale. Raises Unreadable if the payment is another
    one, can't be read, or has neither amount nor status.
    """
    fetched, data, account = (
        parse(payment, FetchedPayment),
        notification_event.data,
        notification_event.account,
    )
    if not isinstance(data, Payment | Refund | Dispute):
        raise Unreadable("there is nothing to confirm")
    if str(fetched.id) != api_payment_id(data) or first_stated(fetched.merchant_id) not in (None, account):
        raise Unreadable("the payment fetched is not the one in the notification")
    if fetched.amount is None and not fetched.status:
        raise Unreadable("the payment fetched has neither amount nor status")
    currency = currency_of(fetched, data.currency)
    amount = None if fetched.amount is None else parse_minor(fetched.amount, currency, "$.amount")
    # For a dispute the API returns the disputed payment, whose creation is not that of the dispute.
    created_at = None if isinstance(data, Dispute) else parse_moment(fetched.created, "$.created")
    occurred_at = min(normalize(created_at or notification_event.occurred_at, "$.created"), observed_at)
    confirmed = {
        "status": _confirmed_status(data, fetched.status, amount),
        "currency": currency,
        "amount": data.amount if amount is None else abs(amount),
        "customer_id": customer_of(replace(fetched, merchant_id=account))[0] or data.customer_id,
        "awaits_confirmation": False,
    }
    if isinstance(data, Refund):
        confirmed["created_at"] = occurred_at
    if isinstance(data, Payment):
        confirmed["invoice_id"] = data.invoice_id or first_stated(fetched.invoice)
    return replace(
        notification_event,
        event_id=notification_event.event_id.removesuffix(TRUST_SUFFIX["unsigned"]) + TRUST_SUFFIX["fetched"],
        occurred_at=occurred_at,
        rank=UPDATED,
        trust="fetched",
        data=normalize(replace(data, **confirmed), "$"),
    )


def confirm(payment: Any, notification_event: Event, observed_at: datetime) -> Event | None:
    """The event that confirms a notification; None while its payment has not settled. Raises Unreadable."""
    event = confirmation(payment, notification_event, observed_at)
    return event if _is_settled(event) else None


def _is_settled(event: Event) -> bool:
    return getattr(event.data, "status", "") not in _UNSETTLED


def observed_payment_events(record: Any, proof: Proof) -> list[Event]:
    """The events of a payment or refund that the API shows otherwise than the books: of that moment.

    None while it has not settled. Of one that was charged back there are two. Raises Unreadable.
    """
    listed = listed_payment_event(record, proof.account, proof.received_at)
    if listed is None:
        return []
    data = listed.data
    if isinstance(data, Payment) and data.status == "succeeded":
        data = replace(data, paid_at=listed.occurred_at)
    elif isinstance(data, Payment) and data.status == "failed":
        data = replace(data, failed_at=listed.occurred_at)
    event = replace(listed, event_id=proof.message_id, occurred_at=proof.received_at, data=data)
    if not is_charged_back(record) or not isinstance(data, Payment):
        return [event]
    dispute = Dispute(
        dispute_id=data.payment_id,
        status="lost",
        currency=data.currency,
        amount=data.amount,
        customer_id=data.customer_id,
    )
    return [event, replace(event, event_id=f"{event.event_id}:dispute", data=dispute)]


def is_charged_back(record: Any) -> bool:
    """Whether the API says of a payment that it was charged back."""
    return (parse(record, FetchedPayment).status or "").lower() == "chargedback"


def read_payment_again(record: Any, proof: Proof, event_id: str, notification: Event | None) -> list[Event]:
    """The event of a payment that was fetched to confirm a notification, or listed. Raises Unreadable."""
    if notification:
        return [confirmation(record, notification, proof.received_at)]
    listed = listed_payment_event(record, event_id.partition(":")[0], proof.received_at)
    return [listed] if listed else []


_LISTED_TYPES = ("PaymentSuccess", "PaymentFail", "RefundCreated")


def listed_payment_event(record: Any, merchant_id: str, observed_at: datetime) -> Event | None:
    """The event of a payment or refund in the API's list, as if it had been notified and then confirmed.

    None while it has not settled, or if it is a mere authorisation. Raises Unreadable.
    """
    fetched = parse(record, FetchedPayment)
    if fetched.amount is None:
        raise Unreadable("the payment listed has no amount")
    key = str(fetched.id)
    data: Payment | Refund = Payment(payment_id=key, status="succeeded", currency="usd", amount=0)
    has_no_money = _STATUS_MEANINGS[Payment].get((fetched.status or "").lower()) in ("failed", "voided")
    event_type = "PaymentFail" if has_no_money else "PaymentSuccess"
    if parse_decimal(fetched.amount, "$.amount") < 0:
        data = Refund(
            refund_id=key,
            status="succeeded",
            currency="usd",
            amount=0,
            created_at=observed_at,
            payment_id=first_stated(fetched.original_payment_id),
        )
        event_type = "RefundCreated"
    event = Event(
        processor=NAME,
        account=merchant_id,
        event_id=f"{merchant_id}:{event_type}:{key}",
        occurred_at=observed_at,
        data=data,
    )
    confirmed = confirmation(record, event, observed_at)
    return confirmed if _is_settled(confirmed) and not fetched.auth_only else None


def observed_record(record: dict[str, Any], recorded: Event | None) -> dict[str, Any]:
    """A record, with the payment that a refund gave back where only the recorded event names it."""
    payment_id = getattr(recorded and recorded.data, "payment_id", None)
    is_refund = parse_decimal(record["amount"], "$.amount") < 0
    return {"originalPaymentId": payment_id} | record if is_refund and payment_id else record


def recorded_refund_ids(merchant_id: str, key: str) -> list[str]:
    """The ids of events that may tell a refund with this id, of any trust."""
    return [f"{merchant_id}:RefundCreated:{key}{suffix}" for suffix in TRUST_SUFFIX.values()]


def complete_refund(body: bytes, recorded: Event) -> bytes:
    """A listed refund, with the payment that it gave back where only its recorded event names it."""
    payment_id = getattr(recorded.data, "payment_id", None)
    record = json.decode(body)
    if not payment_id or record.get("originalPaymentId"):
        return body
    return json.encode(record | {"originalPaymentId": payment_id})


def observed_id(merchant_id: str, key: str) -> str:
    """The id of a payment or refund that was observed, to which that of its content is added."""
    return f"payment:{merchant_id}:{key}"


def payment_event_ids(merchant_id: str, key: str, trust: str) -> list[str]:
    """The event ids under which the ledger may hold a payment or refund, for one trust."""
    return [f"{merchant_id}:{kind}:{key}{TRUST_SUFFIX[trust]}" for kind in _LISTED_TYPES]


def api_payment_id(data: Data) -> str:
    """The id of a notified payment, refund or dispute in the API."""
    key: str = getattr(data, ID_FIELDS[type(data)])
    return key


def _confirmed_status(data: Payment | Refund | Dispute, status: str | None, amount: int | None) -> str:
    if amount is not None and not isinstance(data, Dispute) and (amount < 0) != isinstance(data, Refund):
        return "failed"
    return (
        _STATUS_MEANINGS[type(data)].get(status.lower(), _OPEN_STATUS[type(data)]) if status else data.status
    )
