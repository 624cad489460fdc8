"""The nudge: an arq job, enqueued after a commit, that wakes a worker. It carries no event.

"advance" wakes the workers to advance the books, "fetch" one of them to fetch what thin events name.

Its id contains the position, since `enqueue_job` does nothing while a job of the same id is queued or
running: an event committed during a run would have to wait for the sweep. One nudge is sent at a time, and
the commits made meanwhile share the next one, so that a slow Redis delays the books and nothing else.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from service.queue.client import Client, connection_pool
from service.storage.tasks import cancel_and_wait

QUEUE = "queue"
ADVANCE, FETCH = "advance", "fetch"
_RETRY_SECONDS = 0.5

serialize: Callable[[dict[str, Any]], bytes] = msgspec.msgpack.encode
deserialize: Callable[[bytes], dict[str, Any]] = msgspec.msgpack.decode  # not pickle: Redis may be shared

log = structlog.get_logger()


def connect(url: str, prefix: str) -> ArqRedis:
    """Arq's client, which connects when it is used; `aclose` closes its connections too."""
    redis = Client(connection_pool(url, prefix), default_queue_name=QUEUE, job_serializer=serialize)
    redis.auto_close_connection_pool = True
    return redis


async def nudge_once(url: str, prefix: str, position: int) -> None:
    """Request once that the books are advanced; if Redis is away, the worker's sweep advances them."""
    redis = connect(url, prefix)
    with suppress(RedisError, OSError):
        await _enqueue(redis, ADVANCE, position)
    with suppress(RedisError, OSError):
        await redis.aclose()


async def _enqueue(redis: ArqRedis, job: str, position: int) -> None:
    await redis.enqueue_job(job, _job_id=f"{job}:{position}")


class Nudger:
    """Sends nudges from one task; `nudge` never waits and never fails. The client is closed with it."""

    def __init__(self, redis: ArqRedis, on_failure: Callable[[], None], job: str = ADVANCE) -> None:
        self._redis = redis
        self._job = job
        self._on_failure = on_failure
        self._position = 0
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
                await _enqueue(self._redis, self._job, self._position)
            except (RedisError, OSError) as error:
                log.warning("nudge_failed", error=type(error).__name__, position=self._position)
                self._on_failure()
                self._is_requested.set()
                await asyncio.sleep(_RETRY_SECONDS)
