"""What one web process has under way at once, and for how long: a burst costs answers, never the process."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from service.core.errors import Busy
from service.web.metrics import Metrics

T = TypeVar("T")

LOOK_SECONDS = 5.0  # for a look at the stores: who probes or scrapes often waits for no more than 10


class Limiter:
    """So many requests of a kind at once, and so many bytes of their bodies; any more are refused."""

    def __init__(self, metrics: Metrics, kind: str, requests: int, size: int = 0) -> None:
        self._kind = kind
        self._requests_left = requests
        self._bytes_left = size
        self._in_flight = metrics.in_flight.labels(kind)
        self._refused = metrics.refused.labels(kind)

    @contextmanager
    def slot(self) -> Iterator[Callable[[int], None]]:
        """A request until the block ends, and what takes room for bytes of it as they come, until then too.

        Both raise Busy where there is no room.
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
