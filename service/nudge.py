"""The nudge: after a commit, an arq job says "look", never "here is an event".

Its id carries the position, since `enqueue_job` does nothing while a job of the same id is queued or
running: an event committed during a run would wait for the sweep. One nudge is under way at a time,
and commits that gather meanwhile share the next, so a slow Redis costs freshness and nothing else.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import structlog
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.exceptions import RedisError

from service.core.errors import SettingsError

QUEUE = "daybook:queue"
_RETRY_SECONDS = 0.5

serialize: Callable[[dict[str, Any]], bytes] = msgspec.msgpack.encode
deserialize: Callable[[bytes], dict[str, Any]] = msgspec.msgpack.decode  # never pickle: Redis is shared

log = structlog.get_logger()


def redis_settings(url: str) -> RedisSettings:
    """Arq's settings for a URL; short timeouts, since a caller here can always try again."""
    try:
        settings = RedisSettings.from_dsn(url)
    except (RuntimeError, ValueError) as error:
        raise SettingsError(
            "DAYBOOK_REDIS_URL may hold: redis://, rediss:// or unix:// and an address"
        ) from error
    settings.conn_retries = 0
    return settings


class Nudger:
    """Sends nudges from one task; `nudge` never waits and never fails."""

    def __init__(self, url: str, failed: Callable[[], None]) -> None:
        self._url = url
        self._failed = failed
        self._position = 0
        self._wanted = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="nudger")

    def nudge(self, position: int) -> None:
        """Ask for the books to be advanced to `position` at least."""
        self._position = max(self._position, position)
        self._wanted.set()

    async def close(self) -> None:
        """Stop; a nudge not sent is made good by the worker's sweep."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        redis: ArqRedis | None = None
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                try:
                    redis = redis or await _connect(self._url)
                    await redis.enqueue_job("advance", _job_id=f"daybook:advance:{self._position}")
                except (RedisError, OSError) as error:
                    log.warning("nudge_failed", error=type(error).__name__, position=self._position)
                    self._failed()
                    self._wanted.set()
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            if redis:
                await redis.aclose()


async def _connect(url: str) -> ArqRedis:
    return await create_pool(redis_settings(url), default_queue_name=QUEUE, job_serializer=serialize)
