"""The worker. Messages and jobs only wake it; the events to work on are in the ledger.

A message wakes every worker at once. A job wakes the one that takes it, which wakes the others. Losing every
key in Redis loses no work, since a cron sweep and every start wake the worker, too. When Redis goes away,
arq's worker ends; it is started again until the process stops, and the books are advanced at each start.
"""

import asyncio
import signal
import sys
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

from handlers import PROCESSORS
from service.books.engine import Engine
from service.books.leases import RENEW_SECONDS, Leases
from service.books.witnesses import BooksPlace, WitnessKeeper, places, read_witnesses
from service.bootstrap import open_books, open_leases, open_ledger, read_options
from service.core.delivery import Processor
from service.ledger.store import Ledger
from service.ledger.witness import Guard
from service.processes.lifeline import STOP_SECONDS, worker_lock
from service.queue.nudge import (
    ADVANCE,
    CHANNELS,
    FETCH,
    QUEUE,
    Nudger,
    connect,
    deserialize,
    serialize,
    wake_listeners,
)
from service.reads.snapshots import remove_outdated
from service.settings import Settings
from service.storage.tasks import cancel_and_wait, run_safely
from service.sync.client import ApiClient, open_client
from service.sync.confirm import Confirmer
from service.sync.poll import Poller
from service.sync.reconcile.run import NightlyReconciliation, Reconciliation
from service.sync.thin_events import ThinFetcher
from service.worker.advancer import Advancer
from service.worker.trainer import keep_training

SWEEP_SECONDS = 5
FETCH_SWEEP_SECONDS = 10
_POLL_SECONDS = 0.25  # how often arq polls its queue: messages are quicker
_RESTART_SECONDS = 0.5
_SWITCH_SECONDS = 0.0005  # how long a thread that makes a snapshot may go on while new events wait for Python
# Each sweep sends a message; without one for longer, the connection is dead.
_MESSAGE_TIMEOUT_SECONDS = 3.0 * SWEEP_SECONDS

log = structlog.get_logger()


async def work(settings: Settings, clock: Callable[[], datetime]) -> None:
    """Run until SIGTERM or SIGINT. Needs `redis_url`. Raises no error that a restart would fix."""
    zone = ZoneInfo(settings.reporting_tz)
    stopping = asyncio.Event()
    sys.setswitchinterval(_SWITCH_SECONDS)
    asyncio.get_running_loop().set_exception_handler(_handle_unretrieved)

    def stop() -> None:
        signal.alarm(STOP_SECONDS)  # if a store hangs, the kernel kills the process, and the leases expire
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    async with AsyncExitStack() as stack:
        if not settings.database_url:
            stack.enter_context(worker_lock(settings.data_dir))
        store = open_books(settings)
        kept_at = [*places(settings), BooksPlace(store)]
        guard = Guard(partial(read_witnesses, kept_at))
        ledger = open_ledger(settings, guard)
        stack.push_async_callback(ledger.close)
        stack.push_async_callback(store.close)
        witnesses = WitnessKeeper(ledger, guard, kept_at)
        stack.push_async_callback(cancel_and_wait, asyncio.create_task(witnesses.run(), name="witnesses"))
        await remove_outdated(store)  # the snapshots of other versions
        leases = open_leases(settings)

        def today() -> date:
            return clock().astimezone(zone).date()

        engine = Engine(ledger, store, clock, leases)
        advancer = Advancer(engine, store, today, read_options(settings))
        stack.push_async_callback(cancel_and_wait, asyncio.create_task(keep_training(engine, store, today)))
        if leases:
            stack.push_async_callback(
                _release_leases, leases, asyncio.create_task(_renew_leases(leases, advancer))
            )
        connect_redis = partial(connect, settings.redis_url or "", settings.redis_prefix)
        nudger = Nudger(connect_redis(), lambda: None)
        stack.push_async_callback(nudger.close)
        crons, fetchers = [_sweep_cron(advancer)], []
        for processor in filter(settings.has_api, PROCESSORS):
            client = open_client(settings, processor)
            stack.push_async_callback(client.close)
            crons += _ask_crons(processor, client, ledger, clock)
            if processor.thin_events and client.api.events:
                fetcher = ThinFetcher(
                    processor,
                    processor.thin_events,
                    client.api.events,
                    client,
                    ledger,
                    clock,
                    settings,
                    nudger.nudge,
                )
                stack.push_async_callback(fetcher.close)
                crons.append(_fetch_cron(processor, fetcher))
                fetchers.append(fetcher)
        nightly = NightlyReconciliation(settings, Reconciliation(settings, ledger, store, clock))
        stack.push_async_callback(nightly.close)
        if nightly.has_work:
            crons.append(_reconcile_cron(nightly))
        await serve_jobs(connect_redis, advancer, crons, stopping, fetchers)


def _handle_unretrieved(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log a lost Redis in one line: arq leaves tasks that nobody awaits."""
    if isinstance(context.get("exception"), RedisError):
        log.warning("redis_lost", error=context["message"])
    else:
        loop.default_exception_handler(context)


async def _renew_leases(leases: Leases, advancer: Advancer) -> None:
    """Renew the leases for ever; wake the advancer when they have changed."""

    async def renew() -> None:
        if await leases.renew():
            await advancer.wake()

    while True:
        await run_safely(renew)
        await asyncio.sleep(RENEW_SECONDS)


async def _release_leases(leases: Leases, renewal: asyncio.Task[None]) -> None:
    """Release the partitions to the other workers at once."""
    await cancel_and_wait(renewal)
    await run_safely(leases.close)


async def serve_jobs(
    connect_redis: Callable[[], ArqRedis],
    advancer: Advancer,
    crons: Sequence[CronJob],
    stopping: asyncio.Event,
    fetchers: Sequence[ThinFetcher] = (),
) -> None:
    """Run the advancer, the channel's listener and arq's worker until `stopping`.

    arq's worker is started again when Redis goes away, with a new client, since it closes its own.
    """
    advancing = asyncio.create_task(advancer.run(), name="advancer")
    listening = asyncio.create_task(_listen(connect_redis, advancer, fetchers), name="listener")
    stop = asyncio.create_task(stopping.wait())
    while not stopping.is_set():
        await advancer.wake()
        redis = connect_redis()
        worker = _arq_worker(redis, advancer, fetchers, crons)
        running = asyncio.create_task(worker.async_run())
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        await _ignore_lost_redis(cancel_and_wait(running))
        with suppress(RedisError, OSError, asyncio.CancelledError):  # of its cancelled jobs
            await worker.close()
        for job in worker.tasks.values():  # its close waits for none of them after the first that fails
            with suppress(RedisError, OSError, asyncio.CancelledError):
                await cancel_and_wait(job)
        with suppress(RedisError, OSError):
            await redis.aclose()  # arq leaves it open if its own closing fails
        await asyncio.wait({stop}, timeout=_RESTART_SECONDS)
    await _ignore_lost_redis(cancel_and_wait(listening))
    advancer.stop()
    await advancing


async def _listen(
    connect_redis: Callable[[], ArqRedis], advancer: Advancer, fetchers: Sequence[ThinFetcher]
) -> None:
    """Wake the advancer and the fetchers at each message, for ever; reconnect when Redis went away."""
    while True:
        await _ignore_lost_redis(_wake_on_messages(connect_redis, advancer, fetchers))
        await asyncio.sleep(_RESTART_SECONDS)


async def _wake_on_messages(
    connect_redis: Callable[[], ArqRedis], advancer: Advancer, fetchers: Sequence[ThinFetcher]
) -> None:
    """Wake them at each message until none comes. The first ones confirm the subscriptions."""
    async with connect_redis() as redis, redis.pubsub() as channels:
        await channels.subscribe(*CHANNELS.values())
        while message := await channels.get_message(timeout=_MESSAGE_TIMEOUT_SECONDS):
            if message["channel"].endswith(CHANNELS[FETCH].encode()):
                _wake_fetchers(fetchers)
            else:
                await advancer.wake()


def _wake_fetchers(fetchers: Sequence[ThinFetcher]) -> None:
    """What one of them claims, no other one fetches, of this worker or another."""
    for fetcher in fetchers:
        fetcher.wake()


def _arq_worker(
    redis: ArqRedis, advancer: Advancer, fetchers: Sequence[ThinFetcher], crons: Sequence[CronJob]
) -> Worker:
    return Worker(
        functions=[
            func(_advance_job(advancer), name=ADVANCE, keep_result=0),
            func(_fetch_job(fetchers), name=FETCH, keep_result=0),
        ],
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


def _sweep_cron(advancer: Advancer) -> CronJob:
    """Wake every few seconds without a job, too. This also makes a new day's snapshots."""
    seconds = set(range(0, 60, SWEEP_SECONDS))
    return cron(_advance_job(advancer), name="sweep", second=seconds, keep_result=0)


def _advance_job(advancer: Advancer) -> WorkerCoroutine:
    """Wake every worker by a message, since arq gives a job to only one of them."""

    async def advance(ctx: dict[Any, Any]) -> None:
        await advancer.wake()
        await _ignore_lost_redis(wake_listeners(ctx["redis"], ADVANCE))

    return advance


def _fetch_job(fetchers: Sequence[ThinFetcher]) -> WorkerCoroutine:
    """Wake the fetchers of this worker."""

    async def fetch(ctx: dict[Any, Any]) -> None:  # noqa: ARG001 - the name that arq gives it
        _wake_fetchers(fetchers)

    return fetch


def _fetch_cron(processor: Processor, fetcher: ThinFetcher) -> CronJob:
    """Fetch what is due again, was left by a crash, or waited for an API."""
    seconds = set(range(0, 60, FETCH_SWEEP_SECONDS))
    name = f"fetch_{processor.name}"
    return cron(_job(fetcher.sweep), name=name, second=seconds, keep_result=0, run_at_startup=True)


def _ask_crons(
    processor: Processor, client: ApiClient, ledger: Ledger, clock: Callable[[], datetime]
) -> list[CronJob]:
    """Poll contracts at the start and every five minutes, confirmations twice a minute."""
    crons = []
    if contracts := client.api.contracts:
        poll = Poller(processor, contracts, client, ledger, clock).poll
        minutes = set(range(0, 60, 5))
        name = f"poll_{processor.name}"
        crons.append(
            cron(_job(poll), name=name, minute=minutes, timeout=240, keep_result=0, run_at_startup=True)
        )
    if confirmations := processor.confirmations:
        confirm = Confirmer(processor, confirmations, client, ledger, clock).confirm
        name = f"confirm_{processor.name}"
        crons.append(cron(_job(confirm), name=name, second={0, 30}, timeout=60, keep_result=0))
    return crons


def _reconcile_cron(nightly: NightlyReconciliation) -> CronJob:
    """Reconcile at night, in the worker that gets the job."""
    return cron(_job(nightly.start), name="reconcile", hour={3}, minute={17}, timeout=60, keep_result=0)


def _job(work_once: Callable[[], Awaitable[Any]]) -> WorkerCoroutine:
    async def job(ctx: dict[Any, Any]) -> None:  # noqa: ARG001 - the name that arq gives it
        await run_safely(work_once)

    return job


async def _ignore_lost_redis(work_once: Awaitable[Any]) -> None:
    """Wait for work; log an error of Redis, which loses nothing."""
    try:
        await work_once
    except (RedisError, OSError) as error:
        log.warning("redis_lost", error=type(error).__name__)
