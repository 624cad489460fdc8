"""Webhooks over HTTP to several processes on one machine, to their figures in a read.

Everything shares the machine: whoever sends, PostgreSQL, Valkey, web processes and workers. So each part's
CPU is counted, too: what limits throughput here is their sum.
"""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from msgspec import Struct

from bench import load
from bench.costs import analyze, cpu_between, cpu_seconds, postmaster
from tests.ports import free_port
from tests.postgres import PostgresServer
from tests.valkey import ValkeyServer

CONNECTIONS = 64
COUNT = 3_000  # webhooks before the workers start, and again while they run
SAMPLES = 160  # webhooks of which each is read back
READERS = 4
READS = 200
START_SECONDS = 60.0


class Case(Struct, frozen=True, kw_only=True):
    """So many processes; `sharing` web processes have one port."""

    name: str
    webs: int
    workers: int
    postgres: bool = True
    sharing: bool = False


CASES = (
    Case(name="SQLite, 1 web, 1 worker", webs=1, workers=1, postgres=False),
    Case(name="PostgreSQL, 1 web, 1 worker", webs=1, workers=1),
    Case(name="PostgreSQL, 2 webs on one port, 2 workers", webs=2, workers=2, sharing=True),
    Case(name="PostgreSQL, 2 webs on two ports, 2 workers", webs=2, workers=2),
)


class Phase(Struct, frozen=True, kw_only=True):
    """A stretch of a run: what was done in it, and the CPU seconds of each part."""

    count: int
    seconds: float
    cpu: dict[str, float]
    each: Sequence[float] = ()

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def busy(self) -> float:
        """Cores that were kept busy by our own processes."""
        return sum(self.cpu.values()) / self.seconds

    def cpu_each(self, part: str) -> float:
        return self.cpu.get(part, 0.0) / self.count


class Measured(Struct, frozen=True, kw_only=True):
    """What one case gave: webhooks alone, books behind, both at once, and from a 200 to its figure."""

    case: Case
    ingest: Phase
    behind: Phase
    fresh: Phase
    fresh_events: float  # through the books, a second, until they had all of `fresh`
    freshness: Sequence[float]
    reads: Phase  # of MRR, one after another


def stores_nothing() -> Phase:
    """The baseline: the same server and routing, which verifies and decodes."""
    port = free_port()
    with process(["-m", "bench.baseline", str(port)], {}) as pid:
        _wait_open(port)
        return asyncio.run(_ingest([port], load.requests(COUNT), {"web": [pid]}))


def measure(case: Case, server: PostgresServer) -> Measured:
    """All of one case, from empty stores; every process has ended when it returns."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        valkey = ValkeyServer(port=free_port(), data_dir=directory / "valkey")
        stack.callback(valkey.terminate)
        valkey.start()
        settings = {
            "DAYBOOK_DATA_DIR": str(directory),
            "DAYBOOK_REDIS_URL": valkey.connection_url,
            "DAYBOOK_STRIPE_WEBHOOK_SECRETS": load.SECRET,
            **({"DAYBOOK_DATABASE_URL": server.new_database()} if case.postgres else {}),
        }
        ports = [free_port() for _ in range(1 if case.sharing else case.webs)]
        command = ["-m", "service.cli", "web", *(["--workers", str(case.webs)] if case.sharing else [])]
        parts = {
            "web": [
                stack.enter_context(process(command, {**settings, "DAYBOOK_PORT": str(port)}))
                for port in ports
            ],
            "PostgreSQL": [postmaster(server)] if case.postgres else [],
        }
        for port in ports:
            wait_ready(port)
        asyncio.run(load.send(ports, load.requests(CONNECTIONS), CONNECTIONS))
        at = CONNECTIONS
        ingest = asyncio.run(_ingest(ports, load.requests(COUNT, first=at), parts))
        at += COUNT
        parts["worker"] = [
            stack.enter_context(process(["-m", "service.cli", "worker"], settings))
            for _ in range(case.workers)
        ]
        behind = _behind(ports[0], at, parts)
        if case.postgres:
            analyze(server, settings["DAYBOOK_DATABASE_URL"])
        fresh = asyncio.run(_ingest(ports, load.requests(COUNT, first=at), parts))
        at += COUNT
        started = time.perf_counter()
        _wait_for(lambda: _lag(ports[0]) == 0, "the books have caught up")
        seconds = fresh.seconds + time.perf_counter() - started
        freshness = asyncio.run(_freshness(ports, load.requests(SAMPLES, first=at)))
        return Measured(
            case=case,
            ingest=ingest,
            behind=behind,
            fresh=fresh,
            fresh_events=COUNT / seconds,
            freshness=freshness,
            reads=asyncio.run(_reads(ports[0], parts)),
        )


async def _ingest(ports: Sequence[int], prepared: Sequence[bytes], parts: dict[str, list[int]]) -> Phase:
    before = _cpu(parts)
    sent = await load.send(ports, prepared, CONNECTIONS)
    cpu = _used(before, _cpu(parts))
    return Phase(count=len(prepared), seconds=sent.seconds, cpu=cpu, each=sent.each)


def _behind(port: int, end: int, parts: dict[str, list[int]]) -> Phase:
    """From the first batch that the workers took in, so that their start does not count."""
    lag = end
    while lag == end:  # the first batch may be all that one look sees: a start that is late
        time.sleep(0.01)
        lag = _lag(port)
    first, started, before = lag, time.perf_counter(), _cpu(parts)
    _wait_for(lambda: _lag(port) == 0, "the books have caught up")
    cpu = _used(before, _cpu(parts))
    return Phase(count=max(1, first), seconds=time.perf_counter() - started, cpu=cpu)


async def _freshness(ports: Sequence[int], prepared: Sequence[bytes]) -> list[float]:
    """From each webhook's 200 until a read that waits for it is answered; a few at a time."""
    chance = random.Random(1)
    waiting = iter(prepared)

    async def reader(port: int) -> list[float]:
        streams = await asyncio.open_connection("127.0.0.1", port)
        each = []
        for request in waiting:
            position = json.loads(await load.ask(*streams, request))["position"]
            started = time.perf_counter()
            path = f"/api/v1/mrr?at_least={position}&timeout_ms=10000"
            await load.ask(*streams, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            each.append(time.perf_counter() - started)
            await asyncio.sleep(chance.uniform(0, 0.1))
        streams[1].close()
        return each

    found = await asyncio.gather(*(reader(ports[n % len(ports)]) for n in range(READERS)))
    return sorted(chain.from_iterable(found))


async def _reads(port: int, parts: dict[str, list[int]]) -> Phase:
    """MRR as it stands, when nothing else is asked."""
    streams = await asyncio.open_connection("127.0.0.1", port)
    before, each = _cpu(parts), []
    for _ in range(READS):
        started = time.perf_counter()
        await load.ask(*streams, b"GET /api/v1/mrr HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        each.append(time.perf_counter() - started)
    streams[1].close()
    cpu = _used(before, _cpu(parts))
    return Phase(count=READS, seconds=sum(each), cpu=cpu, each=sorted(each))


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _used(before: dict[str, dict[int, float]], after: dict[str, dict[int, float]]) -> dict[str, float]:
    return {name: cpu_between(before[name], seconds) for name, seconds in after.items()}


def _cpu(parts: dict[str, list[int]]) -> dict[str, dict[int, float]]:
    """CPU seconds so far by part and process. A web process's main thread is its event loop; the rest are
    its stores'."""
    found = {"sender": {0: time.process_time()}}
    for name, pids in parts.items():
        if name == "web":
            threads = [_threads(pid) for pid in pids]
            found["web"] = {pid: loop for pid, (loop, _) in zip(pids, threads, strict=True)}
            found["its store threads"] = {pid: others for pid, (_, others) in zip(pids, threads, strict=True)}
        elif pids:
            found[name] = {pid: seconds for root in pids for pid, seconds in cpu_seconds(root).items()}
    return found


def _threads(pid: int) -> tuple[float, float]:
    """CPU seconds of the main threads of a process and its children, and of all other threads."""
    loops = others = 0.0
    family = psutil.Process(pid)
    for process in (family, *family.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            for thread in process.threads():
                seconds = thread.user_time + thread.system_time
                loops, others = (
                    (loops + seconds, others) if thread.id == process.pid else (loops, others + seconds)
                )
    return loops, others


@contextmanager
def process(command: Sequence[str], settings: dict[str, str]) -> Iterator[int]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DAYBOOK_")}
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**environment, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(port: int) -> None:
    _wait_for(lambda: _ready(port) is not None, f"port {port} is ready")


def _wait_open(port: int) -> None:
    def is_open() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
        return False

    _wait_for(is_open, f"port {port} is open")


def _lag(port: int) -> int:
    """How many events the book that is furthest behind lacks."""
    found = _ready(port)
    assert found is not None
    return max(found["lag_events"].values())


def _ready(port: int) -> dict | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


def _wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)
