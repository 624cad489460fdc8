"""Real processes of a Daybook on a data directory: started, killed, asked over HTTP."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from msgspec import json
from standardwebhooks import Webhook

from tests.support import preloaded
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

SECRET = "whsec_dGVzdC1zZWNyZXQtb2YtYS1iaWxsZXI="
# For `verify`: without it each call reads all certificates that the system trusts, for 20 ms of computing.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def start_python(
    module: str, *arguments: str, environment: Mapping[str, str], directory: Path, output: BinaryIO
) -> subprocess.Popen[bytes]:
    """Start a module by `python -m`. What it prints goes to `output`."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, env=environment, cwd=directory, stdout=output, stderr=output)


class DaybookProcesses:
    """The processes by name; each can be killed and started again."""

    def __init__(self, data_dir: Path, redis_url: str | None = None) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DAYBOOK_")}
        self.environment = {
            **clean,
            "DAYBOOK_MASTER_KEY": os.environ["DAYBOOK_MASTER_KEY"],
            "DAYBOOK_DATA_DIR": str(data_dir),
            "DAYBOOK_PORT": str(self.port),
            "DAYBOOK_STANDARD_WEBHOOK_SECRETS": f"biller={SECRET}",
            **({"DAYBOOK_REDIS_URL": redis_url} if redis_url else {}),
        }
        self.processes: dict[str, subprocess.Popen[bytes] | preloaded.Process] = {}

    def __enter__(self) -> "DaybookProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, *arguments: str) -> None:
        """Start a command by a fork, but for `run`: it starts its processes itself, as people start it."""
        begin = start_python if name == "run" else preloaded.start
        with open(self.data_dir / f"{name}.log", "ab") as log:
            self.processes[name] = begin(
                *("service.cli", name, *arguments),
                environment=self.environment,
                directory=self.data_dir,
                output=log,
            )

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a process; of a run also those that it started, which may answer until they notice."""
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(PATIENCE_SECONDS)
        if name == "run":
            wait_until(lambda: not self.listens(), "the web process is gone")

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(PATIENCE_SECONDS)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def ready(self) -> dict[str, Any] | None:
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=30, verify=NO_TLS)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None

    def wait_ready(self) -> None:
        """Wait until the web process answers. Raises AssertionError at once if a process has ended."""

        def is_ready() -> bool:
            ended = {name: process.poll() for name, process in self.processes.items()}
            assert set(ended.values()) == {None}, f"{ended}, see {self.data_dir}"
            return self.ready() is not None

        wait_until(is_ready, "the web process is ready")

    def caught_up(self, position: int | None = None) -> bool:
        """Whether the books hold all that the ledger holds, and that is up to this position."""
        found = self.ready()
        if not found or position not in {None, found["position"]}:
            return False
        return bool(found["lag_events"]) and not any(found["lag_events"].values())


def subscription_event(number: int, amount: int = 1_000, status: str = "active") -> tuple[str, bytes]:
    """An event id and a body in the in-house format; ten subscriptions take turns."""
    key = number % 10
    moment = f"2026-01-{1 + number // 1440 % 28:02d}T{number // 60 % 24:02d}:{number % 60:02d}:00Z"
    body = {
        "type": "subscription.recorded",
        "occurred_at": moment,
        "data": {
            "subscription_id": f"sub_{key}",
            "customer_id": f"cus_{key % 5}",
            "status": status,
            "currency": "usd",
            "items": [{"interval": "month", "unit_amount": str(amount + number)}],
            "next_bill_on": "2026-12-01",
        },
    }
    return f"evt_{number}", json.encode(body)


def signed(event_id: str, body: bytes) -> dict[str, str]:
    """The headers of a Standard Webhook, signed now."""
    now = datetime.now(UTC)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(event_id, now, body.decode()),
        "content-type": "application/json",
    }


def post(daybook: DaybookProcesses, number: int) -> httpx.Response:
    """Post an event of `subscription_event`."""
    event_id, body = subscription_event(number)
    return httpx.post(
        f"{daybook.url}/webhooks/standard/biller",
        content=body,
        headers=signed(event_id, body),
        timeout=PATIENCE_SECONDS,
        verify=NO_TLS,
    )
