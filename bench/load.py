"""A load of pre-signed webhooks on loopback: plain sockets, so that the sender is not what is measured."""

import asyncio
import time
from collections.abc import Sequence

from msgspec import json
from stripe import WebhookSignature

SECRET = "whsec_bench"


def requests(count: int, path: str = "/webhooks/stripe") -> list[bytes]:
    """`count` whole HTTP requests, each a new Stripe subscription event of about 2 kB."""
    return [_request(path, _event(number)) for number in range(count)]


async def send(port: int, prepared: Sequence[bytes], connections: int) -> float:
    """Send them all over keep-alive connections; seconds. Raises if one is not answered 200."""
    waiting = iter(prepared)
    started = time.perf_counter()
    await asyncio.gather(*(_sender(port, waiting) for _ in range(connections)))
    return time.perf_counter() - started


async def _sender(port: int, waiting) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in waiting:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError((head + body).decode())
    writer.close()
    await writer.wait_closed()


def _request(path: str, body: bytes) -> bytes:
    signature = WebhookSignature.generate_signature_header(body.decode(), SECRET, int(time.time()))
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Stripe-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def _event(number: int) -> bytes:
    item = {
        "id": f"si_{number}",
        "object": "subscription_item",
        "quantity": 1,
        "current_period_start": 1_762_000_000,
        "current_period_end": 1_764_600_000,
        "price": {
            "id": f"price_{number % 50}",
            "object": "price",
            "billing_scheme": "per_unit",
            "currency": "usd",
            "product": "prod_bench",
            "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
            "type": "recurring",
            "unit_amount": 4_900,
            "unit_amount_decimal": "4900",
        },
    }
    subscription = {
        "id": f"sub_{number}",
        "object": "subscription",
        "customer": f"cus_{number}",
        "status": "active",
        "currency": "usd",
        "items": {"object": "list", "data": [item], "has_more": False},
        "discounts": [],
        "metadata": {"filler": "x" * 1_000},
    }
    return json.encode(
        {
            "id": f"evt_{number}",
            "object": "event",
            "api_version": "2025-03-31.basil",
            "created": 1_762_000_000 + number,
            "data": {"object": subscription},
            "pending_webhooks": 1,
            "type": "customer.subscription.created",
        }
    )
