"""The worker: arq runs the work, and does not carry it. A job says "look"; the ledger says at what.

Losing every key in Redis loses nothing: a cron sweep looks too, and so does every start. When Redis
goes, arq's worker ends; it is started again until told to stop, and looks in between.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import date, datetime
from time import perf_counter
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from arq import cron, func
from arq.cron import CronJob
from arq.typing import WorkerCoroutine
from arq.worker import Worker
from redis.exceptions import RedisError

from projections.book import Rules
from service.books.engine import Engine, Overtaken
from service.books.snapshots import drop_stale, forget, make_ready
from service.books.store import BookStore
from service.ledger.store import Ledger
from service.nudge import QUEUE, deserialize, redis_settings, serialize
from service.poller import Poller
from service.prepare import prepare
from service.settings import Settings

SWEEP_SECONDS = 5
_ALONE_SECONDS = 15.0  # how long without any wake-up until the runner looks by itself: Redis may hang
_POLL_SECONDS = 0.02  # how often arq looks into its queue: the freshness of a quiet system
_RESTART_SECONDS = 0.5
_QUIET = 10  # snapshots are made again after this many times what making them took

log = structlog.get_logger()


class Advancer:
    """Advances the books in one task of its own; jobs only wake it.

    A wake-up during a run makes it look again. The task is not arq's: a job has a timeout, and what it
    would cut off is a thread that goes on.
    """

    def __init__(
        self,
        engine: Engine,
        store: BookStore,
        today: Callable[[], date],
        alone_seconds: float = _ALONE_SECONDS,
    ) -> None:
        self._engine = engine
        self._store = store
        self._today = today
        self._alone_seconds = alone_seconds
        self._wanted = asyncio.Event()
        self._stopped = False
        self._ready_after = 0.0

    async def wake(self) -> None:
        """Have the books brought to the ledger's end; returns at once."""
        self._wanted.set()

    def stop(self) -> None:
        """End the run between two transactions."""
        self._stopped = True
        self._wanted.set()

    async def run(self) -> None:
        """Look now, at each wake-up, and now and then, until stopped."""
        while not self._stopped:
            self._wanted.clear()
            await _safely(self._look)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._alone_seconds)

    async def _look(self) -> None:
        try:
            while not self._stopped and (advanced := await self._engine.advance()):
                log.debug("advanced", events=advanced)
        except Overtaken:
            self._wanted.set()
            return
        if perf_counter() >= self._ready_after and not self._stopped:
            started = perf_counter()
            await make_ready(self._store, self._today())
            self._ready_after = perf_counter() + _QUIET * (perf_counter() - started)


async def work(settings: Settings, clock: Callable[[], datetime]) -> None:
    """Run until SIGTERM or SIGINT. Needs `redis_url`; raises nothing that a restart would mend."""
    prepare(settings)
    rules = Rules(reporting_tz=settings.reporting_tz, weeks_per_month=settings.weeks_per_month)
    zone = ZoneInfo(settings.reporting_tz)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        ledger, store = Ledger(settings.data_dir), BookStore(settings.data_dir, rules)
        stack.push_async_callback(ledger.close)
        stack.push_async_callback(store.close)
        await store.register()
        await forget(store)  # what another version left ready
        engine = Engine(ledger, store, clock, settled=drop_stale)
        advancer = Advancer(engine, store, lambda: clock().astimezone(zone).date())
        crons = [_sweep(advancer)]
        if settings.polls_mxmerchant:
            poller = Poller(settings, ledger, clock)
            stack.push_async_callback(poller.close)
            crons += _polls(poller)
        await serve_jobs(settings.redis_url or "", advancer, crons, stopping)


async def serve_jobs(
    redis_url: str, advancer: Advancer, crons: Sequence[CronJob], stopping: asyncio.Event
) -> None:
    """Run the advancer and arq's worker until `stopping`; arq's is started again when Redis goes."""
    advancing = asyncio.create_task(advancer.run(), name="advancer")
    stop = asyncio.create_task(stopping.wait())
    while not stopping.is_set():
        await advancer.wake()
        worker = _arq_worker(redis_url, advancer, crons)
        running = asyncio.create_task(worker.async_run())
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await _without_redis(running)
        await _without_redis(worker.close())
        await asyncio.wait({stop}, timeout=_RESTART_SECONDS)
    advancer.stop()
    await advancing


def _arq_worker(redis_url: str, advancer: Advancer, crons: Sequence[CronJob]) -> Worker:
    return Worker(
        functions=[func(_job(advancer.wake), name="advance", keep_result=0)],
        cron_jobs=crons,
        redis_settings=redis_settings(redis_url),
        queue_name=QUEUE,
        handle_signals=False,
        poll_delay=_POLL_SECONDS,
        max_jobs=20,
        keep_result=0,
        log_results=False,
        job_serializer=serialize,
        job_deserializer=deserialize,
        health_check_key="daybook:worker",
        health_check_interval=10,
    )


def _sweep(advancer: Advancer) -> CronJob:
    """Look every few seconds whether or not anybody said so; it also makes a new day's snapshots."""
    seconds = set(range(0, 60, SWEEP_SECONDS))
    return cron(_job(advancer.wake), name="daybook:sweep", second=seconds, keep_result=0)


def _polls(poller: Poller) -> list[CronJob]:
    """Contracts at the start and every five minutes, confirmations twice a minute."""
    minutes = set(range(0, 60, 5))
    contracts, confirm = _job(poller.contracts), _job(poller.confirmations)
    return [
        cron(
            contracts,
            name="daybook:contracts",
            minute=minutes,
            timeout=240,
            keep_result=0,
            run_at_startup=True,
        ),
        cron(confirm, name="daybook:confirm", second={0, 30}, timeout=60, keep_result=0),
    ]


def _job(work_once: Callable[[], Awaitable[Any]]) -> WorkerCoroutine:
    async def job(ctx: dict[Any, Any]) -> None:  # noqa: ARG001 - the name that arq gives it
        await _safely(work_once)

    return job


async def _safely(work_once: Callable[[], Awaitable[Any]]) -> None:
    """Run a piece of work. What fails is logged, and tried again later: nothing else may stop for it."""
    try:
        await work_once()
    except Exception as error:
        log.exception("work_failed", error=type(error).__name__, work=getattr(work_once, "__qualname__", ""))


async def _without_redis(work_once: Awaitable[Any]) -> None:
    """Wait for work that ends with an error when Redis is away; that is no news, and nothing is lost."""
    try:
        await work_once
    except (RedisError, OSError) as error:
        log.warning("redis_lost", error=type(error).__name__)
