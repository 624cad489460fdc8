"""Events written out by hand, with what a test does not care about filled in."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import count

from msgspec import json, structs

from service.core.events import (
    CREATED,
    INVOICE_RANK,
    UPDATED,
    Data,
    Dispute,
    Event,
    Invoice,
    InvoicePayment,
    Item,
    Payment,
    Refund,
    Subscription,
)

_ids = count(1)


def at(text: str) -> datetime:
    """A moment in UTC: "2025-11-13", or "2025-11-13 10:30"."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def event(data: Data, when: str | datetime, event_id: str | None = None, **fields) -> Event:
    """An event of `data`; its rank is what a handler would say. Ids are in the order of their making."""
    moment = at(when) if isinstance(when, str) else when
    rank = INVOICE_RANK.get(data.status, UPDATED) if isinstance(data, Invoice) else UPDATED
    fields = {"processor": "stripe", "rank": rank, **fields}
    return Event(event_id=event_id or f"evt_{next(_ids):06}", occurred_at=moment, data=data, **fields)


def item(cents: str | int | None = 24_900, interval: str = "month", every: int = 1, **fields) -> Item:
    """An item of one price."""
    price = None if cents is None else Decimal(cents)
    return Item(interval=interval, every=every, unit_amount=price, **fields)


def subscription(*items: Item, **fields) -> Subscription:
    """An active subscription of `cus_1` in dollars."""
    fields = {
        "subscription_id": "sub_1",
        "customer_id": "cus_1",
        "status": "active",
        "currency": "usd",
        **fields,
    }
    return Subscription(items=items or (item(),), **fields)


def created(data: Subscription, when: str, **fields) -> Event:
    """The event of a new subscription."""
    return event(data, when, rank=CREATED, **fields)


def changed(data: Subscription, when: str, before: Subscription | None = None, **fields) -> Event:
    """The event of a changed subscription; `before` is what the processor says was there until then."""
    return event(data, when, before=before and json.encode(before), **fields)


def but(data: Data, **fields) -> Data:
    """The same data with some fields replaced."""
    return structs.replace(data, **fields)


def invoice(status: str = "open", amount_due: int = 10_000, when: str = "2025-11-13", **fields) -> Invoice:
    """An invoice of `cus_1` in dollars, made at `when`."""
    fields = {
        "invoice_id": "in_1",
        "customer_id": "cus_1",
        "currency": "usd",
        "created_at": at(when),
        **fields,
    }
    if status == "paid":
        fields = {"amount_paid": amount_due, "amount_remaining": 0, "paid_at": at(when), **fields}
    return Invoice(status=status, amount_due=amount_due, **fields)


def payment(amount: int = 10_000, **fields) -> Payment:
    """A payment of `cus_1` in dollars that succeeded."""
    fields = {
        "payment_id": "pi_1",
        "status": "succeeded",
        "currency": "usd",
        "customer_id": "cus_1",
        **fields,
    }
    return Payment(amount=amount, **fields)


def refund(amount: int = 2_500, when: str = "2025-11-20", **fields) -> Refund:
    """A refund of `pi_1` that succeeded, made at `when`."""
    fields = {"refund_id": "re_1", "status": "succeeded", "currency": "usd", "payment_id": "pi_1", **fields}
    return Refund(amount=amount, created_at=at(when), **fields)


def dispute(status: str, amount: int = 10_000, **fields) -> Dispute:
    """A dispute over `pi_1`."""
    fields = {"dispute_id": "dp_1", "currency": "usd", "payment_id": "pi_1", **fields}
    return Dispute(status=status, amount=amount, **fields)


def settles(invoice_id: str = "in_1", payment_id: str = "pi_1") -> InvoicePayment:
    """That a payment settles an invoice."""
    return InvoicePayment(invoice_id=invoice_id, payment_id=payment_id)
