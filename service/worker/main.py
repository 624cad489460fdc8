"""The worker: arq runs the work, and does not carry it. A job says "look"; the ledger says at what.

One worker takes the job and tells the others on a channel. Losing every key in Redis loses nothing: a
cron sweep looks too, and so does every start. When Redis goes, arq's worker ends; it is started again
until told to stop, and looks in between.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import date, datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from arq import cron, func
from arq.connections import ArqRedis
from arq.cron import CronJob
from arq.typing import WorkerCoroutine
from arq.worker import Worker
from redis.exceptions import RedisError

from service.books.engine import Engine
from service.books.leases import ROUND_SECONDS, Leases
from service.bootstrap import open_books, open_leases, open_ledger, read_options
from service.processes.lifeline import STOP_SECONDS
from service.queue.nudge import QUEUE, connect, deserialize, serialize
from service.reads.snapshots import forget
from service.settings import Settings
from service.storage.tasks import end, safely
from service.sync.poll import Poller
from service.sync.reconcile.run import Nightly, Reconciliation
from service.worker.advancer import Advancer
from service.worker.trainer import keep_training

LOOK = "look"  # the channel on which the worker that took a job tells every worker
SWEEP_SECONDS = 5
_POLL_SECONDS = 0.02  # how often arq looks into its queue: the freshness of a quiet system
_RESTART_SECONDS = 0.5
_SILENT_SECONDS = 3.0 * SWEEP_SECONDS  # each sweep is told on the channel: longer, and it is dead

log = structlog.get_logger()


async def work(settings: Settings, clock: Callable[[], datetime]) -> None:
    """Run until SIGTERM or SIGINT. Needs `redis_url`; raises nothing that a restart would mend."""
    zone = ZoneInfo(settings.reporting_tz)
    stopping = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(_unheard)

    def stop() -> None:
        signal.alarm(STOP_SECONDS)  # should a store hang, the kernel ends us, and the leases run out
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    async with AsyncExitStack() as stack:
        ledger, store = open_ledger(settings), open_books(settings)
        stack.push_async_callback(ledger.close)
        stack.push_async_callback(store.close)
        await forget(store)  # what another version left ready
        leases = open_leases(settings)

        def today() -> date:
            return clock().astimezone(zone).date()

        engine = Engine(ledger, store, clock, leases)
        advancer = Advancer(engine, store, today, read_options(settings))
        stack.push_async_callback(end, asyncio.create_task(keep_training(engine, store, today)))
        if leases:
            stack.push_async_callback(_give_up, leases, asyncio.create_task(_hold(leases, advancer)))
        crons = [_sweep(advancer)]
        if settings.polls_mxmerchant:
            poller = Poller(settings, ledger, clock)
            stack.push_async_callback(poller.close)
            crons += _polls(poller)
        nightly = Nightly(settings, Reconciliation(settings, ledger, store, clock))
        stack.push_async_callback(nightly.close)
        if nightly.has_work:
            crons.append(_nightly(nightly))
        to_redis = partial(connect, settings.redis_url or "", settings.redis_prefix)
        await serve_jobs(to_redis, advancer, crons, stopping)


def _unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What arq leaves behind when Redis goes is no news: a task that nobody waits for."""
    if isinstance(context.get("exception"), RedisError):
        log.warning("redis_lost", error=context["message"])
    else:
        loop.default_exception_handler(context)


async def _hold(leases: Leases, advancer: Advancer) -> None:
    """Renew the leases for ever; look when there are others."""

    async def renew() -> None:
        if await leases.renew():
            await advancer.wake()

    while True:
        await safely(renew)
        await asyncio.sleep(ROUND_SECONDS)


async def _give_up(leases: Leases, holding: asyncio.Task[None]) -> None:
    """Let the others have the partitions at once."""
    await end(holding)
    await safely(leases.close)


async def serve_jobs(
    to_redis: Callable[[], ArqRedis], advancer: Advancer, crons: Sequence[CronJob], stopping: asyncio.Event
) -> None:
    """Run the advancer, the channel's listener and arq's worker until `stopping`.

    arq's worker is started again when Redis goes, with a client of its own: it closes the one it has.
    """
    advancing = asyncio.create_task(advancer.run(), name="advancer")
    listening = asyncio.create_task(_listen(to_redis, advancer), name="listener")
    stop = asyncio.create_task(stopping.wait())
    while not stopping.is_set():
        await advancer.wake()
        redis = to_redis()
        worker = _arq_worker(redis, advancer, crons)
        running = asyncio.create_task(worker.async_run())
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        await _without_redis(end(running))
        with suppress(RedisError, OSError, asyncio.CancelledError):  # that of the jobs it has just cancelled
            await worker.close()
        for job in worker.tasks.values():  # its close waits for none of them after the first that fails
            with suppress(RedisError, OSError, asyncio.CancelledError):
                await end(job)
        with suppress(RedisError, OSError):
            await redis.aclose()  # arq leaves it open where its own goodbye fails
        await asyncio.wait({stop}, timeout=_RESTART_SECONDS)
    await _without_redis(end(listening))
    advancer.stop()
    await advancing


async def _listen(to_redis: Callable[[], ArqRedis], advancer: Advancer) -> None:
    """Look whenever another worker was told to; for ever, on a new connection when Redis went."""
    while True:
        await _without_redis(_hear(to_redis, advancer))
        await asyncio.sleep(_RESTART_SECONDS)


async def _hear(to_redis: Callable[[], ArqRedis], advancer: Advancer) -> None:
    """Look at each message until none comes. The first says that we are subscribed: nothing is missed."""
    async with to_redis() as redis, redis.pubsub() as channel:
        await channel.subscribe(LOOK)
        while await channel.get_message(timeout=_SILENT_SECONDS):
            await advancer.wake()


def _arq_worker(redis: ArqRedis, advancer: Advancer, crons: Sequence[CronJob]) -> Worker:
    return Worker(
        functions=[func(_look(advancer), name="advance", keep_result=0)],
        cron_jobs=crons,
        redis_pool=redis,
        queue_name=QUEUE,
        handle_signals=False,
        poll_delay=_POLL_SECONDS,
        max_jobs=20,
        keep_result=0,
        log_results=False,
        job_serializer=serialize,
        job_deserializer=deserialize,
        health_check_key="worker",
        health_check_interval=10,
    )


def _sweep(advancer: Advancer) -> CronJob:
    """Look every few seconds whether or not anybody said so; it also makes a new day's snapshots."""
    seconds = set(range(0, 60, SWEEP_SECONDS))
    return cron(_look(advancer), name="sweep", second=seconds, keep_result=0)


def _look(advancer: Advancer) -> WorkerCoroutine:
    """Look, and tell every worker to: arq gives a job to one of them only."""

    async def look(ctx: dict[Any, Any]) -> None:
        await advancer.wake()
        await _without_redis(ctx["redis"].publish(LOOK, b""))

    return look


def _polls(poller: Poller) -> list[CronJob]:
    """Contracts at the start and every five minutes, confirmations twice a minute."""
    minutes = set(range(0, 60, 5))
    contracts, confirm = _job(poller.contracts), _job(poller.confirmations)
    return [
        cron(
            contracts,
            name="contracts",
            minute=minutes,
            timeout=240,
            keep_result=0,
            run_at_startup=True,
        ),
        cron(confirm, name="confirm", second={0, 30}, timeout=60, keep_result=0),
    ]


def _nightly(nightly: Nightly) -> CronJob:
    """Reconcile in the small hours; the worker that gets the job leads this."""
    return cron(_job(nightly.start), name="reconcile", hour={3}, minute={17}, timeout=60, keep_result=0)


def _job(work_once: Callable[[], Awaitable[Any]]) -> WorkerCoroutine:
    async def job(ctx: dict[Any, Any]) -> None:  # noqa: ARG001 - the name that arq gives it
        await safely(work_once)

    return job


async def _without_redis(work_once: Awaitable[Any]) -> None:
    """Wait for work that ends with an error when Redis is away; that is no news, and nothing is lost."""
    try:
        await work_once
    except (RedisError, OSError) as error:
        log.warning("redis_lost", error=type(error).__name__)
