"""A Redis that hangs, or goes: nothing waits for it, and what was to be told is told afterwards."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from redis.exceptions import TimeoutError  # noqa: A004 - it is what redis-py raises

from service.queue import client
from service.queue.nudge import connect
from service.storage.tasks import cancel_and_wait
from tests.queue.workers import arrives, nudging, ready, working
from tests.support.ports import free_port
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE_SECONDS, eventually


@pytest.fixture(autouse=True)
def _short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.5)


@contextmanager
def hanging(server: ValkeyServer) -> Iterator[None]:
    """The server accepts connections and answers nothing."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


async def test_a_nudge_that_hangs_fails_and_the_next_arrives(server: ValkeyServer) -> None:
    failures: list[None] = []
    async with (
        working(server.connection_url) as woken,
        nudging(server.connection_url, failed=lambda: failures.append(None)) as nudger,
    ):
        await ready(server.client)
        await arrives(nudger, 1, woken)
        with hanging(server):
            nudger.nudge(2)
            await eventually(lambda: failures, "the nudge fails")

        await ready(server.client)
        await arrives(nudger, 3, woken)


async def test_a_worker_looks_by_itself_while_redis_hangs(server: ValkeyServer) -> None:
    async with working(server.connection_url) as woken, nudging(server.connection_url) as nudger:
        await ready(server.client)
        with hanging(server):
            before = woken.times
            await eventually(lambda: woken.times > before + 1, "it looks twice")
        await ready(server.client)
        await arrives(nudger, 1, woken)


async def test_a_worker_ends_when_told_to_while_redis_hangs(server: ValkeyServer) -> None:
    async with working(server.connection_url):
        await ready(server.client)
        server.pause()


async def test_a_worker_looks_by_itself_while_redis_is_away() -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    async with working(url) as woken, nudging(url) as nudger:
        await eventually(lambda: woken.times >= 4, "it looks by itself")

        nudger.nudge(1)
        with ValkeyServer(port=port) as server:
            await ready(server.client)
            await arrives(nudger, 2, woken)


async def test_a_pipeline_whose_server_hangs_keeps_no_connection(server: ValkeyServer) -> None:
    async with connect(server.connection_url, "daybook") as redis:
        pipe = redis.pipeline(transaction=True)
        await pipe.watch("a")
        with hanging(server), pytest.raises(TimeoutError):
            await pipe.reset()

        assert pipe.connection is None
        assert await redis.exists("a") == 0  # on another connection


async def test_a_task_that_misses_a_cancellation_ends_all_the_same() -> None:
    began = asyncio.Event()

    async def miss_one() -> None:
        with suppress(asyncio.CancelledError):
            began.set()
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = asyncio.create_task(miss_one())
    await began.wait()
    await asyncio.wait_for(cancel_and_wait(task), PATIENCE_SECONDS)

    assert task.cancelled()
