"""Webhooks a second, each answered when it is on disk, beside the same server that stores nothing."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

from bench import load
from bench.processes import process, wait_open, web
from bench.rows import Row, Sizes, quantile
from tests.support.ports import free_port

CONNECTIONS = (32, 64)
_numbers = count()  # of events; none is sent twice


def rows(sizes: Sizes, directory: Path) -> Iterator[Row]:
    settings = {"DAYBOOK_DATA_DIR": str(directory / "ingest"), "DAYBOOK_STRIPE_WEBHOOK_SECRETS": load.SECRET}
    port, plain_port = free_port(), free_port()
    with ExitStack() as stack:
        stack.enter_context(web(port, settings))
        stack.enter_context(process(["-m", "bench.baseline", str(plain_port)], {}))
        wait_open(plain_port)
        for connections in CONNECTIONS:
            yield Row(
                key=f"webhooks, {connections} connections",
                name=f"webhooks on disk (SQLite, `synchronous=FULL`), {connections} connections",
                units=("webhooks/s", "ms, p99"),
                measure=partial(send, port, sizes.webhooks, connections),
                baseline=partial(send, plain_port, sizes.webhooks, connections),
                against="the same server, which verifies and decodes, and stores nothing",
            )


def send(port: int, webhooks: int, connections: int) -> tuple[float, float]:
    """Webhooks a second, and the milliseconds in which 99 of 100 are answered."""
    first = next(_numbers) * webhooks
    prepared = load.requests(webhooks, first=first)
    sent = asyncio.run(load.send([port], prepared, connections))
    return webhooks / sent.seconds, quantile(sent.latencies, 0.99) * 1e3
