"""Milliseconds a read, through the whole app, with 5,000 contracts in the books."""

import time

import httpx

from bench.engine import COUNT, SUBSCRIPTIONS
from bench.ledgers import NOW, bench_ledger, lives
from service.books.engine import Engine
from service.reads.snapshots import precompute
from service.settings import load
from service.web.app import create_app

TIMES = 60
PATHS = (
    "/healthz",
    "/api/v1/mrr",
    "/api/v1/mrr?today=2025-01-10",
    "/api/v1/revenue/current-month",
    "/api/v1/revenue/monthly-totals",
    "/api/v1/mrr/movements",
    "/api/v1/revenue/quarterly-forecast",
    "/api/v1/upcoming?from=2025-02-01&to=2025-02-03",
    "/api/v1/contracts?limit=100",
    "/api/v1/ledger/events/5",
)


async def measure() -> list[dict[str, str]]:
    async with bench_ledger() as bench:
        await bench.append(lives(COUNT, SUBSCRIPTIONS))
        store = await bench.store()
        await Engine(bench.ledger, store, lambda: NOW).catch_up()
        await precompute(store, NOW.date())
        await store.close()
        app = create_app(load(data_dir=bench.directory), lambda: NOW)
        rows = []
        async with app.router.lifespan_context(app) as state:
            transport = httpx.ASGITransport(_with_state(app, state))
            async with httpx.AsyncClient(transport=transport, base_url="http://bench") as client:
                base = None
                for path in PATHS:
                    middle, high = await _times(client, path)
                    base = base or middle
                    rows.append(
                        {
                            "what": path,
                            "p50 ms": f"{middle:.1f}",
                            "p99 ms": f"{high:.1f}",
                            "ratio": f"{middle / base:.0f}",
                        }
                    )
    return rows


def _with_state(app, state):
    async def call(scope, receive, send):
        await app({**scope, "state": dict(state)}, receive, send)

    return call


async def _times(client: httpx.AsyncClient, path: str) -> tuple[float, float]:
    milliseconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        answer = await client.get(path)
        milliseconds.append((time.perf_counter() - started) * 1_000)
        assert answer.status_code == 200, answer.text
    milliseconds.sort()
    return milliseconds[TIMES // 2], milliseconds[int(TIMES * 0.99)]
