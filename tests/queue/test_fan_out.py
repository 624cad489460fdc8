"""One worker takes a job; every worker looks."""

from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from service.worker import main
from tests.queue.workers import Woken, arrives, has_begun, nudging, ready, working
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually


async def test_a_nudge_wakes_every_worker(server: ValkeyServer, losses: Callable[[], list[str]]) -> None:
    url = server.connection_url
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(working(url)) for _ in range(4)]
        nudger = await stack.enter_async_context(nudging(url))
        await ready(server.client, workers=4)

        for position in range(1, 11):
            await arrives(nudger, position, *workers)

        assert losses() == []


class Sweeping:
    """What a sweep wakes: the worker itself, for as many sweeps of all workers as are `left`."""

    left = 0

    def __init__(self, woken: Woken) -> None:
        self._woken = woken

    async def wake(self) -> None:
        if not Sweeping.left:
            raise RuntimeError  # the sweep ends here, and tells nobody
        Sweeping.left -= 1
        await self._woken.wake()


async def test_a_sweep_wakes_every_worker(
    server: ValkeyServer, losses: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "SWEEP_SECONDS", 1)

    def crons(woken: Woken) -> list:
        return [main._sweep_cron(Sweeping(woken))]

    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(working(server.connection_url, crons=crons)) for _ in "123"
        ]
        await ready(server.client, workers=3)
        await has_begun(*workers)
        before = [woken.times for woken in workers]
        Sweeping.left = 3
        await eventually(
            lambda: all(w.times >= times + 3 for w, times in zip(workers, before, strict=True)),
            "each of three sweeps wakes every worker",
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
