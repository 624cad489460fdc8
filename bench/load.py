"""A load of pre-signed webhooks on loopback, over plain sockets, so that the sender costs little."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

from msgspec import Struct, json
from stripe import WebhookSignature

SECRET = "whsec_of_the_measurements"
_RETRY_SECONDS = 0.1
_MAX_ATTEMPTS = 50


class Sent(Struct, frozen=True, kw_only=True):
    """The duration of sending all requests, and the latency of each, sorted."""

    seconds: float
    latencies: list[float]


def requests(count: int, path: str = "/webhooks/stripe", first: int = 0) -> list[bytes]:
    """`count` whole HTTP requests, each a new Stripe subscription event of about 2 kB."""
    return [_request(path, event(number)) for number in range(first, first + count)]


class Unavailable(Exception):
    """The answer was 503: a processor tries again."""


async def send(ports: Sequence[int], prepared: Sequence[bytes], connections: int) -> Sent:
    """Send all requests over keep-alive connections to the ports in turn. Retries after 503; else raises."""
    remaining = iter(prepared)
    started = time.perf_counter()
    latencies = await asyncio.gather(*(_sender(ports[n % len(ports)], remaining) for n in range(connections)))
    return Sent(seconds=time.perf_counter() - started, latencies=sorted(chain.from_iterable(latencies)))


async def _sender(port: int, remaining) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    latencies = []
    for request in remaining:
        started = time.perf_counter()
        await _send_until_accepted(reader, writer, request)
        latencies.append(time.perf_counter() - started)
    writer.close()
    await writer.wait_closed()
    return latencies


async def _send_until_accepted(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> None:
    """Send a request as a processor does: again after a 503, up to a limit."""
    for _ in range(_MAX_ATTEMPTS):
        with suppress(Unavailable):
            await ask(reader, writer, request)
            return
        await asyncio.sleep(_RETRY_SECONDS)
    raise Unavailable


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """One request on an open connection; the body of its 200. Raises Unavailable."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    if head.startswith(b"HTTP/1.1 503"):
        raise Unavailable
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError((head + body).decode())
    return body


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bytes:
    """The body of a read's 200. Raises Unavailable."""
    return await ask(reader, writer, read_request(path))


def read_request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def _request(path: str, body: bytes) -> bytes:
    signature = WebhookSignature.generate_signature_header(body.decode(), SECRET, int(time.time()))
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Stripe-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def event(number: int) -> bytes:
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
