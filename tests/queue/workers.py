"""Workers without books: what is woken here counts, and what it would look at is tested elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import valkey
from arq.cron import CronJob

from service.queue.nudge import Nudger, connect
from service.worker.main import serve_jobs
from tests.support.waiting import PATIENCE_SECONDS, eventually


class Woken:
    """Counts how often it was woken."""

    def __init__(self) -> None:
        self.times = 0
        self._stopped = asyncio.Event()

    async def wake(self) -> None:
        self.times += 1

    async def run(self) -> None:
        await self._stopped.wait()

    def stop(self) -> None:
        self._stopped.set()


@asynccontextmanager
async def working(
    url: str, prefix: str = "daybook", crons: Callable[[Woken], Sequence[CronJob]] = lambda _: ()
) -> AsyncIterator[Woken]:
    """A worker process' part that knows Redis."""
    woken, stopping = Woken(), asyncio.Event()
    task = asyncio.create_task(serve_jobs(partial(connect, url, prefix), woken, crons(woken), stopping))
    try:
        yield woken
    finally:
        stopping.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)


@asynccontextmanager
async def nudging(
    url: str, prefix: str = "daybook", failed: Callable[[], None] = lambda: None
) -> AsyncIterator[Nudger]:
    nudger = Nudger(connect(url, prefix), failed)
    try:
        yield nudger
    finally:
        await nudger.close()


async def ready(admin: Callable[[], valkey.Valkey], workers: int = 1, prefix: str = "daybook") -> None:
    """Wait until the queue is polled and so many listen: a nudge reaches them."""

    def all_there() -> bool:
        try:
            with admin() as client:
                ((_, listeners),) = client.pubsub_numsub(f"{prefix}:look")
                return listeners == workers and bool(client.exists(f"{prefix}:worker"))
        except valkey.ValkeyError:
            return False

    await eventually(all_there, f"{workers} workers are there")


async def has_begun(*workers: Woken) -> None:
    """Wait until they have looked at their start, and when they subscribed: then only others wake them."""
    await eventually(lambda: all(woken.times >= 2 for woken in workers), "they have looked twice")


async def arrives(nudger: Nudger, position: int, *workers: Woken) -> None:
    """Nudge, and wait until all of these have looked."""
    before = [woken.times for woken in workers]
    nudger.nudge(position)
    await eventually(
        lambda: all(woken.times > times for woken, times in zip(workers, before, strict=True)),
        f"nudge {position} wakes {len(workers)} workers",
    )
