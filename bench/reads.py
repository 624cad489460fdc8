"""Reads that the worker keeps ready, beside a server that sends the same bytes from memory."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from msgspec import json

from bench import load
from bench.dataset import books_of, ledger_of, with_books
from bench.processes import process, wait_open, web
from bench.rows import Row, Sizes, quantile
from service.clock import utc_now
from service.reads.snapshots import precompute
from tests.support.ports import free_port

CONNECTIONS = 32
_PLAIN_TIMES = 10  # as many reads of the baseline, which is soon done
PATHS = (
    "/api/v1/mrr",
    "/api/v1/revenue/current-month",
    "/api/v1/revenue/monthly-totals",
    "/api/payment/analytics/dashboard",
)


def rows(sizes: Sizes, directory: Path) -> Iterator[Row]:
    settings = ledger_of(directory, sizes.events)
    books_of(settings, sizes.events)
    asyncio.run(with_books(settings, lambda store: precompute(store, utc_now().date())))
    port, plain_port, bodies = free_port(), free_port(), directory / "bodies.json"
    with ExitStack() as stack:
        stack.enter_context(web(port, {"DAYBOOK_DATA_DIR": str(settings.data_dir)}))
        bodies.write_bytes(json.encode(asyncio.run(_answers(port))))
        stack.enter_context(process(["-m", "bench.baseline", str(plain_port), str(bodies)], {}))
        wait_open(plain_port)
        yield Row(
            key="kept reads",
            name=f"reads whose answers are kept, {CONNECTIONS} connections",
            units=("reads/s", "ms, p99"),
            measure=partial(_read, port, sizes.reads),
            baseline=partial(_read, plain_port, _PLAIN_TIMES * sizes.reads),
            against="the same server, which sends the same bytes from memory",
        )


async def _answers(port: int) -> dict[str, str]:
    streams = await asyncio.open_connection("127.0.0.1", port)
    answers = {path: (await load.get(*streams, path)).decode() for path in PATHS}
    streams[1].close()
    return answers


def _read(port: int, count: int) -> tuple[float, float]:
    requests = list(islice(cycle(map(load.read_request, PATHS)), count))
    sent = asyncio.run(load.send([port], requests, CONNECTIONS))
    return count / sent.seconds, quantile(sent.latencies, 0.99) * 1e3
