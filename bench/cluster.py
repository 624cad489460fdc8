"""Measures webhooks over HTTP to several processes on one machine, until their figures are in a read.

The sender, PostgreSQL, Valkey, web processes and workers share the machine. So each part's CPU is counted,
too, since their sum limits throughput here.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from msgspec import Struct

from bench import load
from bench.costs import analyze, postmaster
from bench.processes import cpu_between, cpu_seconds, lag, process, wait_for, wait_open, wait_ready
from bench.rows import Row, Sizes
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.valkey import ValkeyServer

CONNECTIONS = 64
COUNT = 3_000  # webhooks before the workers start, and again while they run
READS = 200


class Case(Struct, frozen=True, kw_only=True):
    """The numbers of processes; web processes with `sharing` have one port."""

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
    """A phase of a run: its count of webhooks or events, its duration, and the CPU seconds of each part."""

    count: int
    seconds: float
    cpu: dict[str, float]
    latencies: Sequence[float] = ()

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def busy(self) -> float:
        """Cores that were kept busy by our own processes."""
        return sum(self.cpu.values()) / self.seconds

    def cpu_each(self, part: str) -> float:
        return self.cpu.get(part, 0.0) / self.count


class CaseResult(Struct, frozen=True, kw_only=True):
    """The result of a case: webhooks alone, books behind, both at once, and reads."""

    case: Case
    ingest: Phase
    behind: Phase
    fresh: Phase
    kept: Phase  # `fresh`, until the books have all of it
    reads: Phase  # of MRR, one after another


def rows(_sizes: Sizes, _directory: Path) -> Iterator[Row]:
    """Twice as many processes, from empty stores each time."""
    _, one, two, _ = CASES
    with PostgresServer(fsync=True) as server:
        yield Row(
            key="2 webs, 2 workers",
            name="2 web processes and 2 workers, PostgreSQL: webhooks until the books have them",
            units=("webhooks/s", "µs of CPU a webhook", "µs, the sender's beside it"),
            measure=lambda: _kept(measure(two, server)),
            baseline=lambda: _kept(measure(one, server)),
            against="1 web process and 1 worker",
            most_rounds=3,
        )


def _kept(result: CaseResult) -> tuple[float, ...]:
    sender = result.kept.cpu_each("sender")
    own = sum(result.kept.cpu.values()) / result.kept.count - sender
    return result.kept.rate, own * 1e6, sender * 1e6


def measure_baseline() -> Phase:
    """The baseline: the same server and routing, which verifies and decodes."""
    port = free_port()
    with process(["-m", "bench.baseline", str(port)], {}) as pid:
        wait_open(port)
        return asyncio.run(_ingest([port], load.requests(COUNT), {"web": [pid]}))


def measure(case: Case, server: PostgresServer) -> CaseResult:
    """Measure one case, from empty stores; every process has ended when it returns."""
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
        sent_count = CONNECTIONS
        ingest = asyncio.run(_ingest(ports, load.requests(COUNT, first=sent_count), parts))
        sent_count += COUNT
        parts["worker"] = [
            stack.enter_context(process(["-m", "service.cli", "worker"], settings))
            for _ in range(case.workers)
        ]
        behind = _behind(ports[0], sent_count, parts)
        if case.postgres:
            analyze(server, settings["DAYBOOK_DATABASE_URL"])
        prepared, before, started = load.requests(COUNT, first=sent_count), _cpu(parts), time.perf_counter()
        fresh = asyncio.run(_ingest(ports, prepared, parts))
        asyncio.run(_wait_kept(ports[0], sent_count + COUNT))
        kept = Phase(count=COUNT, seconds=time.perf_counter() - started, cpu=_used(before, _cpu(parts)))
        return CaseResult(
            case=case,
            ingest=ingest,
            behind=behind,
            fresh=fresh,
            kept=kept,
            reads=asyncio.run(_reads(ports[0], parts)),
        )


async def _ingest(ports: Sequence[int], prepared: Sequence[bytes], parts: dict[str, list[int]]) -> Phase:
    before = _cpu(parts)
    sent = await load.send(ports, prepared, CONNECTIONS)
    cpu = _used(before, _cpu(parts))
    return Phase(count=len(prepared), seconds=sent.seconds, cpu=cpu, latencies=sent.latencies)


async def _wait_kept(port: int, position: int) -> None:
    """Wait, by one read, until the books have the event at a position."""
    streams = await asyncio.open_connection("127.0.0.1", port)
    await load.get(*streams, f"/api/v1/mrr?at_least={position}&timeout_ms=30000")
    streams[1].close()


def _behind(port: int, end: int, parts: dict[str, list[int]]) -> Phase:
    """Measure from the first batch that the workers have processed, so that their start does not count."""
    first = end
    while first == end:  # the first batch may be all that one look sees: a start that is late
        time.sleep(0.01)
        first = lag(port)
    started, before = time.perf_counter(), _cpu(parts)
    wait_for(lambda: lag(port) == 0, "the books have caught up")
    cpu = _used(before, _cpu(parts))
    return Phase(count=max(1, first), seconds=time.perf_counter() - started, cpu=cpu)


async def _reads(port: int, parts: dict[str, list[int]]) -> Phase:
    """MRR as it stands, when nothing else is asked."""
    streams = await asyncio.open_connection("127.0.0.1", port)
    before, latencies = _cpu(parts), []
    for _ in range(READS):
        started = time.perf_counter()
        await load.get(*streams, "/api/v1/mrr")
        latencies.append(time.perf_counter() - started)
    streams[1].close()
    cpu = _used(before, _cpu(parts))
    return Phase(count=READS, seconds=sum(latencies), cpu=cpu, latencies=sorted(latencies))


def _used(before: dict[str, dict[int, float]], after: dict[str, dict[int, float]]) -> dict[str, float]:
    return {name: cpu_between(before[name], seconds) for name, seconds in after.items()}


def _cpu(parts: dict[str, list[int]]) -> dict[str, dict[int, float]]:
    """CPU seconds so far by part and process. A web process's main thread is its event loop; the rest are
    its stores'."""
    seconds_by_part = {"sender": {0: time.process_time()}}
    for name, pids in parts.items():
        if name == "web":
            threads = [_threads(pid) for pid in pids]
            seconds_by_part["web"] = {pid: loop for pid, (loop, _) in zip(pids, threads, strict=True)}
            seconds_by_part["its store threads"] = {
                pid: others for pid, (_, others) in zip(pids, threads, strict=True)
            }
        elif pids:
            seconds_by_part[name] = {
                pid: seconds for root in pids for pid, seconds in cpu_seconds(root).items()
            }
    return seconds_by_part


def _threads(pid: int) -> tuple[float, float]:
    """CPU seconds of the main threads of a process and its children, and of all other threads."""
    main_threads = other_threads = 0.0
    family = psutil.Process(pid)
    for each in (family, *family.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            for thread in each.threads():
                seconds = thread.user_time + thread.system_time
                main_threads, other_threads = (
                    (main_threads + seconds, other_threads)
                    if thread.id == each.pid
                    else (main_threads, other_threads + seconds)
                )
    return main_threads, other_threads
