"""The nudge: after a commit, a message that wakes all workers at once, and an arq job behind it.

"advance" wakes the workers to advance the books, "fetch" to fetch what thin events name. Neither message nor
job carries an event. A message reaches those who listen just then; the job is for when nobody does. There is
at most one job of a kind for each half second, and it is taken at the end of it, so it sees whatever was
committed meanwhile.

One nudge is sent at a time, and the commits made meanwhile share the next one: a slow Redis delays the books
and nothing else.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from service.queue.client import Client, connection_pool
from service.storage.tasks import cancel_and_wait

QUEUE = "queue"
ADVANCE, FETCH = "advance", "fetch"
CHANNELS = {ADVANCE: "look", FETCH: "fetch"}  # on which workers are woken for each job
_JOB_SECONDS = 0.5  # between two jobs of a kind
_RETRY_SECONDS = 0.5

serialize: Callable[[dict[str, Any]], bytes] = msgspec.msgpack.encode
deserialize: Callable[[bytes], dict[str, Any]] = msgspec.msgpack.decode  # not pickle: Redis may be shared

log = structlog.get_logger()


def connect(url: str, prefix: str) -> ArqRedis:
    """Arq's client, which connects when it is used; `aclose` closes its connections too."""
    redis = Client(connection_pool(url, prefix), default_queue_name=QUEUE, job_serializer=serialize)
    redis.auto_close_connection_pool = True
    return redis


async def nudge_once(url: str, prefix: str) -> None:
    """Request once that the books are advanced; if Redis is away, the worker's sweep advances them."""
    redis = connect(url, prefix)
    with suppress(RedisError, OSError):
        await wake_listeners(redis, ADVANCE)
        await _enqueue(redis, ADVANCE, _interval())
    with suppress(RedisError, OSError):
        await redis.aclose()


async def wake_listeners(redis: ArqRedis, job: str) -> None:
    """Wake every worker that listens."""
    await redis.publish(CHANNELS[job], b"")


def _interval() -> int:
    return int(time.time() / _JOB_SECONDS)


async def _enqueue(redis: ArqRedis, job: str, interval: int) -> None:
    """Enqueue the job that is taken at the end of the interval, if it is not there."""
    end = datetime.fromtimestamp((interval + 1) * _JOB_SECONDS, UTC)
    await redis.enqueue_job(job, _job_id=f"{job}:{interval}", _defer_until=end)


class Nudger:
    """Sends nudges from one task; `nudge` never waits and never fails. The client is closed with it."""

    def __init__(self, redis: ArqRedis, on_failure: Callable[[], None], job: str = ADVANCE) -> None:
        self._redis = redis
        self._job = job
        self._on_failure = on_failure
        self._position = 0
        self._interval = 0  # of the job that was enqueued last
        self._is_requested = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="nudger")

    def nudge(self, position: int) -> None:
        """Request the job, which then sees what is at `position` at least."""
        self._position = max(self._position, position)
        self._is_requested.set()

    async def close(self) -> None:
        """Stop; the worker's sweep replaces a nudge that was not sent."""
        await cancel_and_wait(self._task)
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    async def _run(self) -> None:
        while True:
            await self._is_requested.wait()
            self._is_requested.clear()
            try:
                await self._send()
            except (RedisError, OSError) as error:
                log.warning("nudge_failed", error=type(error).__name__, position=self._position)
                self._on_failure()
                self._is_requested.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _send(self) -> None:
        await wake_listeners(self._redis, self._job)
        if (interval := _interval()) != self._interval:
            await _enqueue(self._redis, self._job, interval)
            self._interval = interval
