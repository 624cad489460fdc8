"""Webhooks a second, answered when they are on disk, against the same app that stores nothing."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench import load

COUNT = 6_000
CONNECTIONS = 64


async def measure() -> list[dict[str, str]]:
    """Baseline and Daybook in turns, the best of three each."""
    rates: dict[str, list[float]] = {"stores nothing": [], "Daybook, synchronous=FULL": []}
    for _ in range(3):
        prepared = await asyncio.to_thread(load.requests, COUNT)
        with tempfile.TemporaryDirectory() as directory:
            for name, command in (
                ("stores nothing", ["-m", "bench.baseline"]),
                ("Daybook, synchronous=FULL", ["-m", "service.cli", "web"]),
            ):
                with _server(command, directory) as port:
                    await load.send([port], prepared[:64], CONNECTIONS)
                    sent = await load.send([port], prepared[64:], CONNECTIONS)
                    rates[name].append((COUNT - 64) / sent.seconds)
    base = max(rates["stores nothing"])
    return [
        {"what": name, "webhooks/s": f"{max(values):,.0f}", "ratio": f"{max(values) / base:.2f}"}
        for name, values in rates.items()
    ]


@contextmanager
def _server(command: list[str], directory: str) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "DAYBOOK_DATA_DIR": directory,
        "DAYBOOK_PORT": str(port),
        "DAYBOOK_STRIPE_WEBHOOK_SECRETS": load.SECRET,
    }
    process = subprocess.Popen(
        [sys.executable, *command, *([str(port)] if "baseline" in command[1] else [])],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(port)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server did not start")
