"""Limits on the concurrent requests of a web process, and on their time, against bursts."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from service.core.errors import Busy
from service.web.prometheus import Metrics

T = TypeVar("T")

LOOK_SECONDS = 5.0  # for a look at the stores: probes and scrapers often wait for 10 s at most


class Limiter:
    """Limits the concurrent requests of a kind, and the bytes of their bodies; it refuses any more."""

    def __init__(self, metrics: Metrics, kind: str, requests: int, size: int = 0) -> None:
        self._kind = kind
        self._requests_left = requests
        self._bytes_left = size
        self._in_flight = metrics.in_flight.labels(kind)
        self._refused = metrics.refused.labels(kind)

    @contextmanager
    def slot(self) -> Iterator[Callable[[int], None]]:
        """Holds a place for a request until the block ends. Yields a function to reserve bytes for its body.

        Both raise Busy if there is no room.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if size > self._bytes_left:
                raise self._busy()
            self._bytes_left -= size
            taken += size

        if not self._requests_left:
            raise self._busy()
        self._requests_left -= 1
        self._in_flight.inc()
        try:
            yield take
        finally:
            self._requests_left += 1
            self._bytes_left += taken
            self._in_flight.dec()

    def _busy(self) -> Busy:
        self._refused.inc()
        return Busy(f"too many {self._kind} requests are under way")


async def with_timeout(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; raises TimeoutError as soon as the time is over, even if `work` hangs.

    `asyncio.timeout` would wait for the cancelled work to end, which a hanging connection never does.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_retrieve_exception)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


def _retrieve_exception(task: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a task that nobody waits for any more, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
