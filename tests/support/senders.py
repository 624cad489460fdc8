"""Who posts: how deliveries look and how they are signed, by the specifications' words alone."""

import base64
import hmac
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import Any

from msgspec import Struct

Sign = Callable[[bytes, datetime, str, str], dict[str, str]]


class Sender(Struct, frozen=True, kw_only=True):
    """One endpoint's processor. `event(key, cents)` makes a body; another amount is other content."""

    name: str
    path: str
    processor: str
    secret: str
    sign: Sign
    event: Callable[[str, int], dict[str, Any]]
    unused: dict[str, Any]
    unreadable: dict[str, Any]


def sign_stripe(body: bytes, at: datetime, _message_id: str, secret: str) -> dict[str, str]:
    timestamp = int(at.timestamp())
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, sha256).hexdigest()
    return {"Stripe-Signature": f"t={timestamp},v1={digest}"}


def sign_standard(body: bytes, at: datetime, message_id: str, secret: str) -> dict[str, str]:
    timestamp = int(at.timestamp())
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def unsigned(_body: bytes, _at: datetime, _message_id: str, _secret: str) -> dict[str, str]:
    return {}


def secret(text: str) -> str:
    """A Standard Webhooks secret."""
    return f"whsec_{base64.b64encode(text.encode()).decode()}"


def stripe_event(kind: str, thing: dict[str, Any], *, event_id: str = "evt_1", **more: Any) -> dict[str, Any]:
    event = {"id": event_id, "object": "event", "api_version": "2025-03-31.basil", "created": 1763028000}
    return {**event, "type": kind, "data": {"object": thing}, "pending_webhooks": 2, **more}


def stripe_subscription(
    key: str,
    cents: int | str,
    interval: str = "month",
    every: int = 1,
    *,
    bills_at: int = 1763812800,  # 2025-11-22 12:00
    **more: Any,
) -> dict[str, Any]:
    price = {
        "id": f"price_{key}",
        "object": "price",
        "currency": "usd",
        "product": "prod_1",
        "billing_scheme": "per_unit",
        "recurring": {"interval": interval, "interval_count": every, "usage_type": "licensed"},
        "unit_amount_decimal": str(cents),
    }
    item = {"id": f"si_{key}", "object": "subscription_item", "quantity": 1, "price": price}
    return {
        "id": f"sub_{key}",
        "object": "subscription",
        "customer": f"cus_{key}",
        "status": "active",
        "currency": "usd",
        "created": 1763028000,
        "items": {"object": "list", "data": [{**item, "current_period_end": bills_at}]},
        "discounts": [],
        **more,
    }


def stripe_invoice(
    key: str, cents: int, at: datetime, lines: list[dict[str, Any]], *, customer: str, **more: Any
) -> dict[str, Any]:
    """An invoice that was made and paid at one moment."""
    moment = int(at.timestamp())
    return {
        "id": f"in_{key}",
        "object": "invoice",
        "customer": customer,
        "status": "paid",
        "currency": "usd",
        "created": moment,
        "amount_due": cents,
        "amount_paid": cents,
        "amount_remaining": 0,
        "status_transitions": {"finalized_at": moment, "paid_at": moment},
        "lines": {"object": "list", "data": lines},
        **more,
    }


def stripe_charge(key: str, cents: int, at: datetime, *, customer: str | None, **more: Any) -> dict[str, Any]:
    """A charge that succeeded."""
    return {
        "id": f"ch_{key}",
        "object": "charge",
        "customer": customer,
        "status": "succeeded",
        "captured": True,
        "currency": "usd",
        "created": int(at.timestamp()),
        "amount": cents,
        "amount_captured": cents,
        "amount_refunded": 0,
        **more,
    }


def stripe_refund(key: str, cents: int, at: datetime, **more: Any) -> dict[str, Any]:
    """A refund that succeeded; `charge` or `payment_intent` says of what."""
    refund = {"id": f"re_{key}", "object": "refund", "status": "succeeded", "currency": "usd"}
    return {**refund, "amount": cents, "created": int(at.timestamp()), **more}


def payment(key: str, cents: int, **more: Any) -> dict[str, Any]:
    """An MX Merchant notification."""
    return {
        "eventType": "PaymentSuccess",
        "merchantId": "1000000001",
        "id": key,
        "transactionDate": "Nov 13 2025 9:00AM",
        "totalAmount": f"{cents / 100:.2f}",
        "customer": "Avery Stone",
        **more,
    }


def subscription(
    key: str, cents: int | str, interval: str = "month", every: int = 1, **more: Any
) -> dict[str, Any]:
    """The data of `subscription.recorded`."""
    return {
        "subscription_id": f"sub-{key}",
        "customer_id": f"cust-{key}",
        "status": "active",
        "currency": "usd",
        "items": [{"interval": interval, "every": every, "unit_amount": str(cents)}],
        **more,
    }


def recorded(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "occurred_at": "2025-11-13T10:00:00Z", "data": data}


STRIPE = Sender(
    name="stripe",
    path="/webhooks/stripe",
    processor="stripe",
    secret="whsec_stripe_number_one",
    sign=sign_stripe,
    event=lambda key, cents: stripe_event(
        "customer.subscription.created", stripe_subscription("1", cents), event_id=f"evt_{key}"
    ),
    unused=stripe_event("price.updated", {"id": "price_1", "object": "price"}, event_id="evt_unused"),
    unreadable=stripe_event("customer.subscription.created", {"id": "sub_1", "object": "subscription"}),
)
MX = Sender(
    name="mxmerchant, by a relay",
    path="/webhooks/mxmerchant",
    processor="mxmerchant",
    secret=secret("the relay's own secret"),
    sign=sign_standard,
    event=payment,
    unused={"eventType": "BatchClosed", "merchantId": "1000000001", "id": "7"},
    unreadable=payment("8", 100, totalAmount="a lot"),
)
MX_TOKEN = Sender(
    name="mxmerchant, by token",
    path="/webhooks/mxmerchant/an-unguessable-token",
    processor="mxmerchant",
    secret="an-unguessable-token",
    sign=unsigned,
    event=payment,
    unused=MX.unused,
    unreadable=MX.unreadable,
)
STANDARD = Sender(
    name="standard",
    path="/webhooks/standard/acme",
    processor="standard.acme",
    secret=secret("the in-house biller's"),
    sign=sign_standard,
    event=lambda key, cents: recorded("subscription.recorded", subscription(key, cents)),
    unused=recorded("cart.abandoned", {}),
    unreadable=recorded("subscription.recorded", {"subscription_id": "sub-1"}),
)
SENDERS = (STRIPE, MX, MX_TOKEN, STANDARD)
SIGNING = (STRIPE, MX, STANDARD)
