"""What one web process has under way at once, and for how long: a burst costs answers, never the process."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from service.core.errors import Busy
from service.web.metrics import Metrics

T = TypeVar("T")


class Bound:
    """So many requests of a kind at once, and so many bytes of their bodies; any more are refused."""

    def __init__(self, metrics: Metrics, kind: str, requests: int, size: int = 0) -> None:
        self._kind = kind
        self._requests_left = requests
        self._bytes_left = size
        self._in_flight = metrics.in_flight.labels(kind)
        self._refused = metrics.refused.labels(kind)

    @contextmanager
    def one(self, size: int = 0) -> Iterator[None]:
        """A request, and `size` bytes, until the block ends. Raises Busy where there is no room for it."""
        if not self._requests_left or size > self._bytes_left:
            self._refused.inc()
            raise Busy(f"too many {self._kind} requests are under way")
        self._requests_left -= 1
        self._bytes_left -= size
        self._in_flight.inc()
        try:
            yield
        finally:
            self._requests_left += 1
            self._bytes_left += size
            self._in_flight.dec()


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; raises TimeoutError if that takes longer, whatever `work` does then.

    `asyncio.timeout` would wait until what it cancels has ended, and a connection that hangs doesn't.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_heard)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


def _heard(task: asyncio.Future[Any]) -> None:
    """An error that comes too late for anyone is nothing to warn of."""
    if not task.cancelled():
        task.exception()
