"""What a running Daybook takes: the time of its start, its memory, and the CPU of a worker at rest."""

import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from bench import load
from bench.ingest import send
from bench.processes import cpu_between, cpu_seconds, environment, family, memory_mb, wait_for, web
from bench.rows import Row, Sizes
from tests.support.ports import free_port

_SETTLED_SECONDS = 5  # after a start: what is done then is done
_STOP_SECONDS = 30
_MANY = 4  # times the webhooks of another row


def rows(sizes: Sizes, directory: Path) -> Iterator[Row]:
    home = directory / "run"
    _first_answer(home)  # makes its files
    yield Row(
        key="start",
        name="from `daybook run` to its first 200",
        units=("s",),
        measure=partial(_first_answer, home),
        baseline=_first_answer_of_imports,
        against="bare uvicorn, which imports what the web process does",
    )
    if sizes.load_seconds:
        yield Row(
            key="web memory",
            name=f"memory of a web process, at its start and after {_MANY * sizes.webhooks:,} webhooks",
            units=("MB, start", "MB, after"),
            measure=partial(_web_memory, directory / "memory", _MANY * sizes.webhooks),
        )
        yield Row(
            key="rest",
            name="`daybook run` at rest: memory of all its processes, Valkey's part, CPU of its worker",
            units=("MB", "MB, Valkey's", "ms of CPU a second"),
            measure=partial(_at_rest, home, sizes.load_seconds),
        )


def _first_answer(home: Path) -> tuple[float]:
    with _running(["-m", "service.cli", "run"], {"DAYBOOK_DATA_DIR": str(home)}) as (_, seconds):
        return (seconds,)


def _first_answer_of_imports() -> tuple[float]:
    port = str(free_port())
    command = ["-m", "bench.baseline", port, "imports"]
    with _running(command, {"DAYBOOK_PORT": port}) as (_, seconds):
        return (seconds,)


@contextmanager
def _running(command: Sequence[str], settings: dict[str, str]) -> Iterator[tuple[int, float]]:
    """The id of a process, and the seconds until it or its children answered."""
    settings = {"DAYBOOK_PORT": str(free_port()), **settings}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        env=environment(settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(partial(_is_healthy, settings["DAYBOOK_PORT"]), "the first answer")
        yield process.pid, time.perf_counter() - started
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_STOP_SECONDS)


def _is_healthy(port: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _web_memory(directory: Path, webhooks: int) -> tuple[float, float]:
    port = free_port()
    settings = {"DAYBOOK_DATA_DIR": str(directory), "DAYBOOK_STRIPE_WEBHOOK_SECRETS": load.SECRET}
    with web(port, settings) as pid:
        before = memory_mb(pid)
        send(port, webhooks, 32)
        return before, memory_mb(pid)


def _at_rest(home: Path, seconds: float) -> tuple[float, float, float]:
    with _running(["-m", "service.cli", "run"], {"DAYBOOK_DATA_DIR": str(home)}) as (pid, _):
        time.sleep(_SETTLED_SECONDS)
        valkey, worker = (
            next(process.pid for process in family(pid) if name in process.cmdline())
            for name in ("valkey", "worker")
        )
        before = cpu_seconds(worker)
        time.sleep(seconds)
        used = cpu_between(before, cpu_seconds(worker))
        return memory_mb(pid), memory_mb(valkey), used / seconds * 1e3
