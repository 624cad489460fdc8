"""Webhooks beside the dearest reads: p50 and p99 while eight clients ask for far forecasts.

`python -m bench starvation`. One merchant has 8,200 contracts that bill each day, each with an
amount and a time of its own.
"""

import asyncio
import os
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from bench.dataset import NOW, append, empty_books
from bench.load import SECRET, requests, send
from service.books.engine import Engine
from service.bootstrap import open_ledger, prepare
from service.core.events import Event, Item, Subscription
from service.settings import load
from tests.support.processes import DaybookProcesses

CONTRACTS = 8_200
WEBHOOKS, SENDERS, READERS = 1_200, 4, 8
READS = {
    "nothing": "",
    "/revenue/quarterly-forecast?quarters=20": "/api/v1/revenue/quarterly-forecast?quarters=20",
    "/revenue/annual-forecast, next year": "/api/v1/revenue/annual-forecast?year=2027",
    "/revenue/month-detail, next year": "/api/v1/revenue/month-detail?year=2027&month=5",
    "/upcoming of ten years": "/api/v1/upcoming?from=2026-01-01&to=2036-01-01",
    "/contracts, all": "/api/v1/contracts?format=csv",
    "/ledger/events, a long page": "/api/v1/ledger/events?limit=1000",
}


def daily_contracts() -> Iterator[Event]:
    for number in range(CONTRACTS):
        data = Subscription(
            subscription_id=f"sub_daily_{number}",
            customer_id=f"cus_{number}",
            status="active",
            currency="usd",
            next_bill_at=NOW + timedelta(days=1, seconds=number),
            items=(Item(interval="day", unit_amount=100 + number),),
        )
        yield Event(processor="stripe", event_id=f"evt_daily_{number}", occurred_at=NOW, data=data)


async def fill(directory: Path) -> None:
    settings = load(data_dir=directory)
    prepare(settings)
    ledger = open_ledger(settings)
    await append(ledger, daily_contracts())
    store = await empty_books(settings)
    await Engine(ledger, store, lambda: NOW).catch_up()
    await store.close()
    await ledger.close()


async def _read_on(port: int, path: str, seconds: list[float], statuses: dict[str, int]) -> None:
    """Ask again and again, over new connections, until cancelled."""
    while True:
        started = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        status = (await reader.read())[9:12].decode()
        writer.close()
        seconds.append(time.perf_counter() - started)
        statuses[status] = statuses.get(status, 0) + 1


async def _beside(port: int, what: str, path: str, first: int) -> dict[str, str]:
    seconds: list[float] = []
    statuses: dict[str, int] = {}
    readers = [
        asyncio.create_task(_read_on(port, path, seconds, statuses)) for _ in range(READERS if path else 0)
    ]
    await asyncio.sleep(1)
    sent = await send([port], requests(WEBHOOKS, first=first), SENDERS)
    for task in readers:
        task.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    seconds.sort()
    return {
        "what": what,
        "p50 ms": f"{sent.latencies[WEBHOOKS // 2] * 1_000:.1f}",
        "p99 ms": f"{sent.latencies[int(WEBHOOKS * 0.99)] * 1_000:.1f}",
        "webhooks/s": f"{WEBHOOKS / sent.seconds:,.0f}",
        "a read, p50 s": f"{seconds[len(seconds) // 2]:.2f}" if seconds else "",
        "answers": ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items())),
    }


def measure_tables() -> Iterator[tuple[str, list[dict[str, str]]]]:
    os.environ.setdefault("DAYBOOK_MASTER_KEY", b64encode(os.urandom(32)).decode())
    with tempfile.TemporaryDirectory() as directory, DaybookProcesses(Path(directory)) as daybook:
        asyncio.run(fill(Path(directory)))
        daybook.environment["DAYBOOK_STRIPE_WEBHOOK_SECRETS"] = SECRET
        daybook.start("web")
        daybook.wait_ready()
        rows = [
            asyncio.run(_beside(daybook.port, what, path, number * WEBHOOKS))
            for number, (what, path) in enumerate(READS.items())
        ]
    yield f"Webhooks beside {READERS} readers of {CONTRACTS:,} daily contracts", rows
