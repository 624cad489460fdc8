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
from sqlalchemy.exc import SQLAlchemyError

from projections.book import Rules
from service.books.engine import Engine, Overtaken
from service.books.snapshots import drop_stale, make_ready
from service.books.store import BookStore
from service.core.errors import Unavailable
from service.ledger.store import Ledger
from service.nudge import QUEUE, deserialize, redis_settings, serialize
from service.poller import Poller
from service.prepare import prepare
from service.settings import Settings

SWEEP_SECONDS = 5
_POLL_SECONDS = 0.02  # how often arq looks into its queue: the freshness of a quiet system
_RESTART_SECONDS = 0.5
_JOB_SECONDS = 60  # a run that takes longer is cut between two transactions, and the next one goes on
_QUIET = 10  # snapshots are made again after this many times what making them took

log = structlog.get_logger()


class Advancer:
    """Advances the books, one run at a time; a wake-up during a run makes it look again."""

    def __init__(self, engine: Engine, store: BookStore, today: Callable[[], date]) -> None:
        self._engine = engine
        self._store = store
        self._today = today
        self._wanted = False
        self._running = False
        self._ready_after = 0.0

    async def advance(self) -> None:
        """Bring the books to the ledger's end; at once if a run is under way, which will look again."""
        self._wanted = True
        if self._running:
            return
        self._running = True
        try:
            while self._wanted:
                self._wanted = False
                await self._look()
        finally:
            self._running = False

    async def _look(self) -> None:
        try:
            advanced = await self._engine.catch_up()
        except Overtaken:
            self._wanted = True
            return
        if advanced:
            log.debug("advanced", events=advanced)
        if perf_counter() >= self._ready_after:
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
    """Run arq's worker until `stopping`; it ends whenever Redis goes, and is started again."""
    while not stopping.is_set():
        await _safely(advancer.advance)
        worker = _arq_worker(redis_url, advancer, crons)
        running = asyncio.create_task(worker.async_run())
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await _without_redis(running)
        await _without_redis(worker.close())
        if not stopping.is_set():
            await asyncio.wait({stop}, timeout=_RESTART_SECONDS)
        stop.cancel()


def _arq_worker(redis_url: str, advancer: Advancer, crons: Sequence[CronJob]) -> Worker:
    return Worker(
        functions=[func(_job(advancer.advance), name="advance", keep_result=0)],
        cron_jobs=crons,
        redis_settings=redis_settings(redis_url),
        queue_name=QUEUE,
        handle_signals=False,
        poll_delay=_POLL_SECONDS,
        job_timeout=_JOB_SECONDS,
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
    return cron(_job(advancer.advance), name="daybook:sweep", second=seconds, keep_result=0)


def _polls(poller: Poller) -> list[CronJob]:
    every_five = set(range(0, 60, 5))
    return [
        cron(_job(poller.contracts), name="daybook:contracts", minute=every_five, timeout=240, keep_result=0),
        cron(_job(poller.confirmations), name="daybook:confirm", second={0, 30}, timeout=60, keep_result=0),
    ]


def _job(work_once: Callable[[], Awaitable[Any]]) -> WorkerCoroutine:
    async def job(ctx: dict[Any, Any]) -> None:  # noqa: ARG001 - the name that arq gives it
        await _safely(work_once)

    return job


async def _safely(work_once: Callable[[], Awaitable[Any]]) -> None:
    """Run a piece of work; a store or a processor that is away is logged, and the next cron tries again."""
    try:
        await work_once()
    except (SQLAlchemyError, OSError, Unavailable) as error:
        log.warning("work_failed", error=type(error).__name__, work=getattr(work_once, "__qualname__", ""))


async def _without_redis(work_once: Awaitable[Any]) -> None:
    """Wait for work that ends with an error when Redis is away; that is no news, and nothing is lost."""
    try:
        await work_once
    except (RedisError, OSError) as error:
        log.warning("redis_lost", error=type(error).__name__)
