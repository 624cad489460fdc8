"""Processes that are measured: started, waited for, and what they and their children use."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import Any

import psutil

START_SECONDS = 60.0
_SHOWN_LOG = 2_000  # characters


def environment(settings: dict[str, str]) -> dict[str, str]:
    """The environment variables of a process with these settings, and this process's master key, if any."""
    kept = {name for name in os.environ if not name.startswith("DAYBOOK_") or name == "DAYBOOK_MASTER_KEY"}
    return {name: os.environ[name] for name in kept} | settings


@contextmanager
def process(command: Sequence[str], settings: dict[str, str]) -> Iterator[int]:
    """The id of a process that runs until the block ends. An error of the block shows the process's log."""
    with TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *command], env=environment(settings), stdout=log, stderr=log
        )
        try:
            yield process.pid
        except Exception as error:
            log.seek(0)
            error.add_note(log.read().decode()[-_SHOWN_LOG:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def web(port: int, settings: dict[str, str]) -> Iterator[int]:
    """The id of a web process of Daybook that answers."""
    with process(["-m", "service.cli", "web"], settings | {"DAYBOOK_PORT": str(port)}) as pid:
        wait_ready(port)
        yield pid


def wait_ready(port: int) -> None:
    wait_for(lambda: ready(port) is not None, f"port {port} is ready")


def wait_open(port: int) -> None:
    def is_open() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
        return False

    wait_for(is_open, f"port {port} is open")


def lag(port: int) -> int:
    """How many events the book that is furthest behind lacks."""
    answer = ready(port)
    assert answer is not None
    return max(answer["lag_events"].values())


def ready(port: int) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


def wait_for(condition: Callable[[], bool], description: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(description)
        time.sleep(0.01)


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu_seconds(pid: int) -> dict[int, float]:
    """The CPU seconds of a process and its children so far, by process id."""
    seconds_by_pid = {}
    for process in family(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds_by_pid[process.pid] = times.user + times.system
    return seconds_by_pid


def cpu_between(before: dict[int, float], after: dict[int, float]) -> float:
    """The CPU seconds used between two measurements, without processes that ended meanwhile."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def memory_mb(pid: int) -> float:
    """The memory of a process and its children; what several share counts once (PSS)."""
    return sum(process.memory_full_info().pss for process in family(pid)) / 1e6


def resident_mb(pid: int) -> float:
    """The memory of a process and its children; what they share counts in each of them (RSS)."""
    total = 0
    for process in family(pid):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 1e6


def run_and_watch(command: Sequence[str]) -> tuple[bytes, float]:
    """What a command prints, and the highest resident memory of it with its children, seen every 20 ms."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE) as child:
        peak = 0.0
        while child.poll() is None:
            peak = max(peak, resident_mb(child.pid))
            time.sleep(0.02)
        assert child.stdout is not None
        printed = child.stdout.read()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return printed, peak
