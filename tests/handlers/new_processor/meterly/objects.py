"""Meterly's objects in the ledger's words."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from service.core.events import Invoice, Item, Payment, Subscription


def bill(payload: dict[str, Any]) -> Invoice:
    """An open bill."""
    return Invoice(
        invoice_id=payload["bill"],
        status="open",
        currency="usd",
        amount_due=payload["cents"],
        customer_id=payload["customer"],
        created_at=datetime.fromisoformat(payload["at"]),
    )


def receipt(payload: dict[str, Any]) -> Payment:
    """A payment of a bill."""
    return Payment(
        payment_id=payload["receipt"],
        status="succeeded",
        currency="usd",
        amount=payload["cents"],
        customer_id=payload["customer"],
        invoice_id=payload["bill"],
    )


def contract(payload: dict[str, Any]) -> Subscription:
    """A contract with a price a month."""
    return Subscription(
        subscription_id=payload["contract"],
        customer_id=payload["customer"],
        status=payload["status"],
        currency="usd",
        items=(Item(interval="month", every=1, unit_amount=Decimal(payload["cents"])),),
    )
