"""The demo's requests: a CSV of next bills as signed Stripe webhooks, and MX Merchant contract records."""

import csv
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct, json
from standardwebhooks import Webhook
from stripe import WebhookSignature

from service.core.cadence import add_months

HERE = Path(__file__).parent
EVENT_PREFIX = "evt_demo"  # of the ids of all events that Stripe sends here
STRIPE_ACCOUNT = "acct_1DaybookDemo"
STRIPE_SECRET = "whsec_the_demo_signs_its_own_posts"  # noqa: S105 - the demo signs its own posts
MXMERCHANT_SECRET = "whsec_ZGVtby1teG1lcmNoYW50LXNlY3JldA=="  # noqa: S105
_SUBSCRIBED_AT = datetime(2025, 11, 12, 9, tzinfo=UTC)


class Post(Struct, frozen=True, kw_only=True):
    """One request: its path, its bytes, and the headers that sign them."""

    path: str
    body: bytes
    headers: dict[str, str]


def stripe_posts() -> Iterator[Post]:
    """One `customer.subscription.created` for each line of `november_2025.csv`."""
    with open(HERE / "november_2025.csv", newline="") as lines:
        for number, line in enumerate(csv.DictReader(lines), start=1):
            body = json.encode(_subscription_created(number, line))
            header = WebhookSignature.generate_signature_header(
                body.decode(), STRIPE_SECRET, int(time.time())
            )
            yield Post(path="/webhooks/stripe", body=body, headers={"Stripe-Signature": header})


def mxmerchant_post() -> Post:
    """The contract records of `mx_contracts.json`, signed as by a relay."""
    body = (HERE / "mx_contracts.json").read_bytes()
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_demo_contracts",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(MXMERCHANT_SECRET).sign("msg_demo_contracts", now, body.decode()),
    }
    return Post(path="/webhooks/mxmerchant", body=body, headers=headers)


def _subscription_created(number: int, line: dict[str, str]) -> dict[str, Any]:
    """A Stripe event in the shape of API version 2025-03-31.basil."""
    bills_at = datetime.fromisoformat(line["next_bill_date"]).replace(hour=12, tzinfo=UTC)
    interval, every = line["interval"], int(line["every"])
    months = {"month": every, "year": 12 * every}.get(interval, 0)
    started_at = datetime.combine(add_months(bills_at, -months, bills_at.day), bills_at.timetz())
    item = {
        "id": f"si_demo{number:04d}",
        "object": "subscription_item",
        "quantity": 1,
        "current_period_start": int(started_at.timestamp()),
        "current_period_end": int(bills_at.timestamp()),
        "price": {
            "id": f"price_demo{number:04d}",
            "object": "price",
            "billing_scheme": "per_unit",
            "currency": "usd",
            "product": "prod_demo",
            "recurring": {"interval": interval, "interval_count": every, "usage_type": "licensed"},
            "type": "recurring",
            "unit_amount": int(line["amount_cents"]),
            "unit_amount_decimal": line["amount_cents"],
        },
    }
    subscription = {
        "id": f"sub_demo{number:04d}",
        "object": "subscription",
        "customer": line["customer_id"],
        "status": "active",
        "currency": "usd",
        "billing_cycle_anchor": int(bills_at.timestamp()),
        "cancel_at_period_end": False,
        "collection_method": "charge_automatically",
        "created": int(_SUBSCRIBED_AT.timestamp()),
        "discounts": [],
        "items": {"object": "list", "data": [item], "has_more": False},
        "livemode": True,
    }
    return {
        "id": f"{EVENT_PREFIX}{number:04d}",
        "object": "event",
        "account": STRIPE_ACCOUNT,
        "api_version": "2025-03-31.basil",
        "created": int(_SUBSCRIBED_AT.timestamp()),
        "data": {"object": subscription},
        "livemode": True,
        "pending_webhooks": 1,
        "type": "customer.subscription.created",
    }
