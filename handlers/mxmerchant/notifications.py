"""Notifications: what happened to one payment, refund or dispute."""

from datetime import datetime
from hashlib import sha256
from typing import Any

from msgspec import json

from handlers.mxmerchant.fields import (
    NAME,
    TRUST_SUFFIX,
    currency_of,
    customer_of,
    delivered_event,
    first_stated,
    parse_minor,
    transaction_time,
    with_name,
)
from handlers.mxmerchant.payloads import Notification, Record
from handlers.standard.translation import normalize, parse
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import CREATED, Data, Dispute, Event, Payment, Refund, Unused

_NOTIFICATIONS: dict[str, tuple[type[Data], str]] = {
    "PaymentSuccess": (Payment, "succeeded"),
    "PaymentFail": (Payment, "failed"),
    "RefundCreated": (Refund, "succeeded"),
    "Chargeback": (Dispute, "lost"),
}
ID_FIELDS = {Payment: "payment_id", Refund: "refund_id", Dispute: "dispute_id"}


def notification_events(payload: dict[str, Any], proof: Proof) -> list[Event]:
    """The events of a notification. Their ids are made of (merchantId, eventType, id) and the trust.

    Any key may be missing but the type and the amount of money that moved. A digest of the content stands for
    the id, so that a redelivery is known by it.
    """
    event_type = payload["eventType"]
    if not isinstance(event_type, str) or not 0 < len(event_type) <= 100:
        raise Unreadable("`$.eventType` is no type's name")
    if event_type not in _NOTIFICATIONS:
        return [_unused(payload, event_type, proof)]
    notification = parse({**payload, "id": _key(payload)}, Notification)
    account = first_stated(notification.merchant_id) or ""
    customer_id, name = customer_of(notification)
    occurred_at = transaction_time(notification.transaction_date) or proof.signed_at or proof.received_at
    event = Event(
        processor=NAME,
        account=account,
        event_id=f"{account}:{event_type}:{notification.id}{TRUST_SUFFIX[proof.trust]}",
        occurred_at=normalize(occurred_at, "$.transactionDate"),
        rank=CREATED,  # so that its confirmation comes after it
        trust=proof.trust,
        data=_notification_data(
            notification,
            *_NOTIFICATIONS[event_type],
            customer_id,
            occurred_at,
            awaits_confirmation=proof.confirmable,
        ),
    )
    return with_name(event, customer_id, name)


def _notification_data(
    notification: Notification,
    data_type: type[Data],
    status: str,
    customer_id: str | None,
    occurred_at: datetime,
    *,
    awaits_confirmation: bool,
) -> Data:
    currency = currency_of(notification)
    total = notification.total_amount
    if total in (None, "") and (status == "failed" or awaits_confirmation):
        total = 0  # no money came, or the fetch brings the amount
    amount = parse_minor("" if total is None else total, currency, "$.totalAmount")
    fields = {
        "payment_id": first_stated(
            notification.payment_id, notification.original_payment_id, notification.original_id
        ),
        "created_at": occurred_at,
        ID_FIELDS[data_type]: str(notification.id),
        "status": status,
        "currency": currency,
        "amount": amount if data_type is Payment else abs(amount),  # a refund's total is negative
        "customer_id": customer_id,
        "invoice_id": first_stated(notification.invoice_number),
        "awaits_confirmation": awaits_confirmation,
    }
    data: Data = normalize(parse(fields, data_type), "$")
    return data


def _unused(payload: dict[str, Any], event_type: str, proof: Proof) -> Event:
    """The event of a notification that has no effect. It may lack any key except its type."""
    account = first_stated(payload.get("merchantId")) or ""
    return delivered_event(
        proof,
        account=account,
        event_id=f"{account}:{event_type}:{_key(payload)}{TRUST_SUFFIX[proof.trust]}",
        data=Unused(original_type=event_type, customer_id=_customer_id_of(payload)),
    )


def _key(payload: dict[str, Any]) -> Any:
    """The id of a notification; where it has none a digest of its content."""
    return payload.get("id") or sha256(json.encode(payload, order="deterministic")).hexdigest()[:32]


def _customer_id_of(payload: dict[str, Any]) -> str | None:
    """The customer id of a payload whose other fields are unknown; None if it has none."""
    try:
        return customer_of(parse({**payload, "id": 0}, Record))[0]
    except Unreadable:
        return None
