"""Reads that are kept, over 32 connections, beside Starlette that sends the same bytes from memory.

`python -m bench kept`. A ratio is that of the CPU which the server needs for a request, since the sender and
other work on the machine limit the rate.
"""

import asyncio
import os
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.cluster import process, quantile, wait_open, wait_ready
from bench.load import SECRET, Sent, ask, requests, send
from bench.starvation import CONTRACTS, fill
from tests.support.ports import free_port

CONNECTIONS = 32
COUNT = 4_000  # of answers of a few KiB; fewer of large ones
_BYTES = 100 << 20  # of all answers to one measurement
WEBHOOKS = 3_000
SENDERS = 64
READS = {
    "mrr": "/api/v1/mrr?today=2026-01-09",
    "month-detail": "/api/v1/revenue/month-detail?year=2026&month=1&today=2026-01-09",
    "quarterly-forecast": "/api/v1/revenue/quarterly-forecast?today=2026-01-09",
}

os.environ.setdefault("DAYBOOK_MASTER_KEY", b64encode(os.urandom(32)).decode())


def measure_tables() -> Iterator[tuple[str, list[dict[str, str]]]]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        asyncio.run(fill(directory))
        port = free_port()
        settings = {
            "DAYBOOK_MASTER_KEY": os.environ["DAYBOOK_MASTER_KEY"],
            "DAYBOOK_DATA_DIR": name,
            "DAYBOOK_PORT": str(port),
            "DAYBOOK_STRIPE_WEBHOOK_SECRETS": SECRET,
        }
        web = stack.enter_context(process(["-m", "service.cli", "web"], settings))
        wait_ready(port)
        title = f"Kept reads of {CONTRACTS:,} daily contracts, {CONNECTIONS} connections"
        yield title, [_compare(what, path, port, web, directory) for what, path in READS.items()]
        stack.enter_context(process(["-m", "service.cli", "worker"], settings))
        yield "Beside as many webhooks as come through", asyncio.run(_beside_ingest(port))


def _compare(what: str, path: str, port: int, web: int, directory: Path) -> dict[str, str]:
    """The first of its kind, and then many: by Daybook, and by Starlette from memory."""
    started = time.perf_counter()
    body = asyncio.run(_ask_once(port, path))
    first = time.perf_counter() - started
    (directory / "body").write_bytes(body)
    count = min(COUNT, _BYTES // len(body))
    kept = _measure(port, path, web, count)
    bare_port = free_port()
    with process(["-m", "bench.kept", str(bare_port), str(directory / "body")], {}) as bare:
        wait_open(bare_port)
        from_memory = _measure(bare_port, path, bare, count)
    return {
        "what": f"{what}, {len(body) / 1024:,.0f} KiB",
        "the first, ms": f"{first * 1_000:,.0f}",
        "then, reads/s": f"{count / kept[0].seconds:,.0f}",
        "Starlette, reads/s": f"{count / from_memory[0].seconds:,.0f}",
        "CPU of one, µs": f"{kept[1] * 1e6:,.0f}",
        "Starlette, µs": f"{from_memory[1] * 1e6:,.0f}",
        "ratio": f"{from_memory[1] / kept[1]:.2f}",
    }


def _measure(port: int, path: str, pid: int, count: int) -> tuple[Sent, float]:
    """What was sent, and the server's CPU seconds for each."""
    asyncio.run(send([port], [_request(path)] * CONNECTIONS, CONNECTIONS))
    before = _cpu(pid)
    sent = asyncio.run(send([port], [_request(path)] * count, CONNECTIONS))
    return sent, (_cpu(pid) - before) / count


async def _beside_ingest(port: int) -> list[dict[str, str]]:
    """The latencies of each read while webhooks come in, and its books with them."""
    rows = []
    for number, (what, path) in enumerate(READS.items()):
        latencies: list[float] = []
        readers = [asyncio.create_task(_read_on(port, path, latencies)) for _ in range(CONNECTIONS)]
        sent = await send([port], requests(WEBHOOKS, first=number * WEBHOOKS), SENDERS)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        latencies.sort()
        rows.append(
            {
                "what": what,
                "reads/s": f"{len(latencies) / sent.seconds:,.0f}",
                "p50 ms": f"{quantile(latencies, 0.5) * 1_000:.1f}",
                "p99 ms": f"{quantile(latencies, 0.99) * 1_000:.1f}",
                "webhooks/s": f"{WEBHOOKS / sent.seconds:,.0f}",
                "their p99 ms": f"{quantile(sent.latencies, 0.99) * 1_000:.1f}",
            }
        )
    return rows


async def _read_on(port: int, path: str, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        while True:
            started = time.perf_counter()
            await ask(reader, writer, _request(path))
            latencies.append(time.perf_counter() - started)


async def _ask_once(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        return await ask(reader, writer, _request(path))


def _request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _from_memory(body: bytes) -> Starlette:
    async def answer(_request: Request) -> Response:
        return Response(body, media_type="application/json")

    return Starlette(routes=[Route(path.partition("?")[0], answer) for path in READS.values()])


if __name__ == "__main__":
    app = _from_memory(Path(sys.argv[2]).read_bytes())
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, server_header=False)
