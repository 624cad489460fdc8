"""Runs the demo: starts a Daybook of its own, posts webhooks, waits for the books, prints a report."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from service.core.errors import DaybookError
from service.demo import posts, report
from service.processes.lifeline import command_line

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


def show(data_dir: Path, wanted_port: int, *, stay: bool, console: Console) -> None:
    """The whole demo. Raises DaybookError if the service does not start or refuses a post."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop what was started
    signal.signal(signal.SIGINT, signal.default_int_handler)
    port = _free_port(wanted_port)
    with _service(data_dir, port) as process, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        _wait_ready(client, process, data_dir)
        _refuse_other_events(client, data_dir)
        position, count = _post_all(client)
        console.print(f"Posted {count} signed webhooks; the ledger is at position {position}.\n")
        report.print_november(client, position, console)
        if stay:
            report.print_urls(client, console)
            with suppress(KeyboardInterrupt):
                process.wait()


@contextmanager
def _service(data_dir: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`daybook run` on the demo's directory, its log in a file; stopped at the end."""
    data_dir.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DAYBOOK_")}
    environment = {
        **inherited,
        "DAYBOOK_DATA_DIR": str(data_dir.resolve()),
        "DAYBOOK_PORT": str(port),
        "DAYBOOK_STRIPE_WEBHOOK_SECRETS": posts.STRIPE_SECRET,
        "DAYBOOK_MXMERCHANT_WEBHOOK_SECRETS": posts.MXMERCHANT_SECRET,
    }
    if weeks := os.environ.get("DAYBOOK_WEEKS_PER_MONTH"):
        environment["DAYBOOK_WEEKS_PER_MONTH"] = weeks
    with open(data_dir / "daybook.log", "ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command_line("run"),
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches the demo alone, which then stops the service
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _free_port(wanted: int) -> int:
    """The port wanted, or any free one if it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise DaybookError("no port is free on 127.0.0.1")


def _wait_ready(client: httpx.Client, process: subprocess.Popen[bytes], data_dir: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if client.get("/readyz").status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise DaybookError(f"the service did not start; its log is {data_dir / 'daybook.log'}")


def _refuse_other_events(client: httpx.Client, data_dir: Path) -> None:
    """Raise DaybookError if the ledger was begun by anybody else: what is appended can't be taken back."""
    first = client.get("/api/v1/ledger/events", params={"limit": 1}).json()["events"]
    if first and not first[0]["event_id"].startswith(posts.EVENT_PREFIX):
        raise DaybookError(f"{data_dir} holds a ledger that is not the demo's; name another --data-dir")


def _post_all(client: httpx.Client) -> tuple[int, int]:
    position = count = 0
    for post in (*posts.stripe_posts(), posts.mxmerchant_post()):
        answer = client.post(
            post.path, content=post.body, headers={**post.headers, "Content-Type": "application/json"}
        )
        body: dict[str, Any] = answer.json()
        if answer.status_code != httpx.codes.OK or not body.get("position"):
            raise DaybookError(f"{post.path} answered {answer.status_code}: {body.get('detail', body)}")
        position, count = max(position, body["position"]), count + 1
    return position, count
