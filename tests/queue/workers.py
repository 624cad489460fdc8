"""Workers without books: what is woken here counts, and what it would look at is tested elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import valkey
from arq.cron import CronJob

from service.queue.nudge import Nudger, connect
from service.worker.main import serve_jobs
from tests.queue.servers import eventually


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
        await asyncio.wait_for(task, 30)


@asynccontextmanager
async def nudging(url: str, prefix: str = "daybook") -> AsyncIterator[Nudger]:
    nudger = Nudger(connect(url, prefix), lambda: None)
    yield nudger
    await nudger.close()


async def ready(admin: Callable[[], valkey.Valkey], workers: int = 1, prefix: str = "daybook") -> None:
    """Wait until the queue is polled and so many listen; from here on nothing wakes but nudges and sweeps."""

    def all_there() -> bool:
        try:
            with admin() as client:
                ((_, listeners),) = client.pubsub_numsub(f"{prefix}:look")
                return listeners == workers and bool(client.exists(f"{prefix}:worker"))
        except valkey.ValkeyError:
            return False

    await eventually(all_there, f"{workers} workers are there")
    await asyncio.sleep(0)  # the listeners' tasks read what came with the subscription


async def arrives(nudger: Nudger, position: int, *workers: Woken) -> None:
    """Nudge, and wait until all of these have looked."""
    before = [woken.times for woken in workers]
    nudger.nudge(position)
    await eventually(
        lambda: all(woken.times > times for woken, times in zip(workers, before, strict=True)),
        f"nudge {position} wakes {len(workers)} workers",
    )
