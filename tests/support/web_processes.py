"""A web command of any number of processes, and raw connections to it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.support.preloaded import Process
from tests.support.processes import DaybookProcesses, signed, subscription_event
from tests.support.waiting import PATIENCE_SECONDS, wait_until

PATH = "/webhooks/standard/biller"
# A connection for each request, so that any of the processes may answer it.
_HTTP = httpx.Client(timeout=PATIENCE_SECONDS, limits=httpx.Limits(max_keepalive_connections=0))


def start(daybook: DaybookProcesses, workers: int) -> Process:
    """The command, once it says that it listens."""
    log = daybook.data_dir / "web.log"
    daybook.start("web", "--workers", str(workers))
    command = daybook.processes["web"]
    wait_until(lambda: command.poll() is not None or "Daybook listens on" in log.read_text(), "it listens")
    assert command.poll() is None, log.read_text()
    return command


def post(daybook: DaybookProcesses, number: int) -> httpx.Response:
    """An event over a connection of its own."""
    event_id, body = subscription_event(number)
    return _HTTP.post(f"{daybook.url}{PATH}", content=body, headers=signed(event_id, body))


def scraped(daybook: DaybookProcesses) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of the metrics, by its name and labels."""
    families = text_string_to_metric_families(_HTTP.get(f"{daybook.url}/metrics").text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def serving(command: Process) -> list[psutil.Process]:
    """The living processes that answer: the command's children, but for the tracker of multiprocessing."""
    found = []
    for child in psutil.Process(command.pid).children():
        with suppress(psutil.NoSuchProcess):  # a zombie, too
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child)
    return found


@contextmanager
def connected(daybook: DaybookProcesses) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", daybook.port), timeout=PATIENCE_SECONDS) as connection:
        yield connection


def request(number: int, length: int = 0) -> tuple[bytes, bytes]:
    """The head and the body of a webhook, at least `length` bytes long."""
    event_id, body = subscription_event(number)
    body = body.ljust(length)
    headers = {**signed(event_id, body), "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode(), body


def answer(connection: socket.socket) -> bytes:
    """All that comes, to the end of the connection."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def ended(processes: list[Any]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)
