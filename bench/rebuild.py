"""A rebuild beside live books, under a steady load of webhooks and of reads that wait for them.

`python -m bench rebuild`, by environment variables: EVENTS in the ledger (100,000); RATE of webhooks a
second, each read back (20); BENCH_DATA, a directory that keeps the ledger and its books to be measured again;
BENCH_POSTGRES=1, to measure on PostgreSQL.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from msgspec import Struct, json

from bench import load
from bench.cluster import process, quantile, wait_ready
from bench.dataset import append
from bench.ledgers import NOW
from bench.lives import events, lives
from service.books.engine import Engine
from service.books.store import BookStore
from service.bootstrap import open_books, open_ledger, prepare
from service.core.progress import no_progress
from service.ledger.append import read_head
from service.ledger.store import Ledger
from service.rebuild import builds
from service.rebuild.cutover import RebuildResult
from service.rebuild.fill import fill_books
from service.settings import Settings
from service.settings import load as load_settings
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.valkey import ValkeyServer

T = TypeVar("T")
Row = dict[str, str]

EVENTS = int(os.environ.get("EVENTS", "100000"))
RATE = float(os.environ.get("RATE", "20"))
SAMPLE = min(20_000, EVENTS)
BEFORE_SECONDS = 15.0
_EVENTS_PER_CUSTOMER = 20  # of a customer
_FIRST_NUMBER = 10**8  # beyond the numbers of the lives
_READ_PATH = "/api/v1/mrr?at_least={}&timeout_ms=20000"


class Load(Struct):
    """The seconds of each webhook and read, and the errors of those not answered with 200."""

    posted: list[float] = []
    read: list[float] = []
    failed: list[str] = []

    def row(self, label: str) -> Row:
        read, posted = sorted(self.read), sorted(self.posted)
        return {
            "what": label,
            "webhooks": f"{len(posted):,}",
            "webhook p99 ms": f"{quantile(posted, 0.99) * 1_000:.0f}",
            "read p50 ms": f"{quantile(read, 0.5) * 1_000:.0f}",
            "read p99 ms": f"{quantile(read, 0.99) * 1_000:.0f}",
            "longest": f"{read[-1] * 1_000:.0f}",
            "not answered": str(len(self.failed)),
        }


def measure_tables() -> Iterator[tuple[str, list[Row]]]:
    """Every table as (title, rows)."""
    with ExitStack() as stack:
        directory = Path(os.environ.get("BENCH_DATA") or stack.enter_context(TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        server = stack.enter_context(PostgresServer()) if os.environ.get("BENCH_POSTGRES") else None
        settings = load_settings(data_dir=directory, database_url=server and server.new_database())
        rates = asyncio.run(_prepare_books(settings))
        rebuild, seconds, loads, lost = asyncio.run(_under_load(settings, stack))
        rates["the rebuild, under load: built, caught up, compared, live"] = (
            rebuild.position / seconds,
            seconds,
        )
    base = next(iter(rates.values()))[0]
    yield (
        f"RebuildResult of {rebuild.position:,} events (load {os.getloadavg()[0]:.1f})",
        [
            {
                "what": label,
                "seconds": f"{took:,.0f}",
                "events/s": f"{rate:,.0f}",
                "ratio": f"{rate / base:.2f}",
            }
            for label, (rate, took) in rates.items()
        ],
    )
    equal = all(book.digest == book.live_digest for book in rebuild.books)
    same = "equal" if equal else "DIFFERENT"
    yield (
        f"Meanwhile (digests {same}, live: {rebuild.live}, webhooks lost: {lost})",
        [load_.row(label) for label, load_ in loads.items()],
    )


async def _prepare_books(settings: Settings) -> dict[str, tuple[float, float]]:
    """Build the ledger and live books. Returns rates of the engine and a build as (events/s, seconds)."""
    prepare(settings)
    ledger, store = open_ledger(settings), open_books(settings)
    all_events = events(lives(EVENTS // _EVENTS_PER_CUSTOMER + 100))
    await append(ledger, islice(all_events, (await ledger.read(read_head)).position, EVENTS))
    rates = {f"the engine, {SAMPLE:,} events (baseline)": await _engine_rate(ledger, store)}
    if (await store.read(store.positions)).position == 0:
        started = time.perf_counter()
        await fill_books(settings, ledger, store, EVENTS)
        seconds = time.perf_counter() - started
        rates["built by key, nothing else to do"] = (EVENTS / seconds, seconds)
    await Engine(ledger, store, lambda: NOW).catch_up()
    await store.close()
    await ledger.close()
    return rates


async def _engine_rate(ledger: Ledger, store: BookStore) -> tuple[float, float]:
    new_build = store.with_builds(await store.write(partial(builds.start_builds, store=store)))
    started = time.perf_counter()
    done = await Engine(ledger, new_build, lambda: NOW).catch_up(until=SAMPLE)
    seconds = time.perf_counter() - started
    await builds.prune(store, no_progress)
    return done / seconds, seconds


async def _under_load(
    settings: Settings, stack: ExitStack
) -> tuple[RebuildResult, float, dict[str, Load], int]:
    """The rebuild, its seconds, the clients' loads before and meanwhile, and the number of lost webhooks."""
    valkey = ValkeyServer(data_dir=settings.data_dir / "valkey")
    stack.callback(valkey.terminate)
    valkey.start()
    port = free_port()
    environment = {
        "DAYBOOK_DATA_DIR": str(settings.data_dir),
        "DAYBOOK_REDIS_URL": valkey.connection_url,
        "DAYBOOK_PORT": str(port),
        "DAYBOOK_STRIPE_WEBHOOK_SECRETS": load.SECRET,
        **({"DAYBOOK_DATABASE_URL": settings.database_url} if settings.database_url else {}),
    }
    for name in ("web", "worker"):
        stack.enter_context(process(["-m", "service.cli", name], environment))
    await asyncio.to_thread(wait_ready, port)
    ledger = open_ledger(settings)
    first = (await ledger.read(read_head)).position
    loads = {"before": Load(), "meanwhile": Load()}
    await _with_load(port, loads["before"], asyncio.sleep(BEFORE_SECONDS), first)
    started = time.perf_counter()
    rebuilding = asyncio.to_thread(_rebuild, environment)
    rebuild = await _with_load(port, loads["meanwhile"], rebuilding, first + 10**6)
    seconds = time.perf_counter() - started
    missing = (
        first + sum(len(load_.posted) for load_ in loads.values()) - (await ledger.read(read_head)).position
    )
    await ledger.close()
    return json.decode(rebuild, type=RebuildResult), seconds, loads, missing


def _rebuild(environment: dict[str, str]) -> bytes:
    command = [sys.executable, "-m", "service.cli", "rebuild", "--json"]
    return subprocess.run(
        command, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE
    ).stdout


async def _with_load(port: int, load_: Load, work: Awaitable[T], first: int) -> T:
    """The result of `work`; until then, send webhooks at a steady rate, each read back once it is answered.

    A slow webhook delays no other: each is sent when it is due, on a free connection.
    """
    ended = asyncio.ensure_future(work)
    clients = _Clients(port, load_)
    requests = set()
    due = time.perf_counter()
    for number in count(first):
        if ended.done():
            break
        requests.add(asyncio.create_task(clients.post_and_read(_FIRST_NUMBER + number)))
        due += 1 / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await asyncio.gather(*requests)
    clients.close()
    return await ended


class _Clients:
    """Connections, as many as are needed at the same time."""

    def __init__(self, port: int, load_: Load) -> None:
        self._port = port
        self._into = load_
        self._free: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()

    async def post_and_read(self, number: int) -> None:
        # The connection that was idle longest, since the server closes idle ones after some seconds.
        streams = (
            self._free.popleft() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        )
        try:
            started = time.perf_counter()
            answer = await load.ask(*streams, load.requests(1, first=number)[0])
            self._into.posted.append(time.perf_counter() - started)
            position = json.decode(answer)["position"]
            started = time.perf_counter()
            body = await load.ask(
                *streams, f"GET {_READ_PATH.format(position)} HTTP/1.1\r\nHost: b\r\n\r\n".encode()
            )
            self._into.read.append(time.perf_counter() - started)
            if json.decode(body)["meta"]["position"] < position:
                self._into.failed.append(f"{position} is not in the answer")
        except (load.Unavailable, RuntimeError, OSError, EOFError) as error:
            self._into.failed.append(repr(error))
            streams[1].close()
        else:
            self._free.append(streams)
