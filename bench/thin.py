"""Measures thin events over HTTP: from the 200 to the figure of what each names, beside snapshot events.

The stand-in of Stripe's API answers at once: a real one adds its own time. All processes share the machine.
"""

import os
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from msgspec import json

from bench.rows import quantile
from tests.support.processes import NO_TLS, DaybookProcesses
from tests.support.senders import STRIPE
from tests.support.stripe_api import KEY, StripeApi, serve, subscription, thin_event
from tests.support.valkey import ValkeyServer

SAMPLES = 100
_POLL_SECONDS = 0.005

Row = dict[str, str]


def measure_tables() -> Iterator[tuple[str, list[Row]]]:
    """One table: both kinds of events, each followed by the next once its figure is in a read."""
    os.environ.setdefault("DAYBOOK_MASTER_KEY", b64encode(os.urandom(32)).decode())
    with (
        TemporaryDirectory() as directory,
        ValkeyServer() as valkey,
        serve(StripeApi()) as api,
        DaybookProcesses(Path(directory), valkey.connection_url) as daybook,
    ):
        daybook.environment |= {
            "DAYBOOK_STRIPE_WEBHOOK_SECRETS": STRIPE.secret,
            "DAYBOOK_STRIPE_API_KEY": KEY,
            "DAYBOOK_STRIPE_API_URL": api.url,
        }
        daybook.start("web")
        daybook.start("worker")
        daybook.wait_ready()
        with httpx.Client(base_url=daybook.url, timeout=60, verify=NO_TLS) as http:
            snapshots = sorted(_measure(http, api, number, thin=False) for number in range(SAMPLES))
            thins = sorted(_measure(http, api, number, thin=True) for number in range(SAMPLES, 2 * SAMPLES))
    rows = [_row("snapshot events", snapshots, snapshots), _row("thin events", thins, snapshots)]
    yield "From a 200 to its figure in a read, one after another", rows


def _measure(http: httpx.Client, api: StripeApi, number: int, *, thin: bool) -> float:
    """The seconds from the 200 until the contract that begins is counted."""
    now = datetime.now(UTC)
    snapshot = api.shop.happens("customer.subscription.created", subscription(number), int(now.timestamp()))
    body = json.encode(thin_event(number, snapshot) if thin else snapshot)
    answer = http.post("/webhooks/stripe", content=body, headers=STRIPE.sign(body, now, "", STRIPE.secret))
    answer.raise_for_status()
    answered = time.perf_counter()
    while _contracts(http) <= number:
        time.sleep(_POLL_SECONDS)
    return time.perf_counter() - answered


def _contracts(http: httpx.Client) -> int:
    document: dict[str, Any] = http.get("/api/v1/mrr").json()
    return int(document["active_contracts"])


def _row(name: str, seconds: Sequence[float], baseline: Sequence[float]) -> Row:
    middle = quantile(seconds, 0.5)
    return {
        "what": name,
        "p50 ms": f"{middle * 1000:,.0f}",
        "p99 ms": f"{quantile(seconds, 0.99) * 1000:,.0f}",
        "ratio": f"{middle / quantile(baseline, 0.5):.2f}",
    }
