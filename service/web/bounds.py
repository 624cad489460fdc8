"""Limits on the concurrent requests of a web process, shared by clients, and on their time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect, Request

from service.core.errors import Busy
from service.web.prometheus import Metrics
from service.web.room import Room

T = TypeVar("T")

LOOK_SECONDS = 5.0  # for a look at the stores: probes and scrapers often wait for 10 s at most


class Limiter:
    """Limits the concurrent requests of a kind, and the bytes of their bodies; it refuses any more.

    Clients share both, so that none takes all of it.
    """

    def __init__(self, metrics: Metrics, kind: str, requests: int, size: int = 0) -> None:
        self._kind = kind.replace("_", " ")
        self._requests = Room(requests)
        self._bytes = Room(size)
        self._in_flight = metrics.in_flight.labels(kind)
        self._refused = metrics.refused.labels(kind)

    def slot(self, client: str) -> "Slot":
        """A place for a client's request within a `with` block. To enter it raises Busy if there is none."""
        return Slot(self, client)

    def take(self, client: str) -> None:
        """Take a place. Raises Busy."""
        if not self._requests.take(client):
            raise self._busy()
        self._in_flight.inc()

    def give_back(self, client: str, size: int) -> None:
        """Give back a place, and the bytes that were reserved for its body."""
        self._requests.give_back(client)
        if size:
            self._bytes.give_back(client, size)
        self._in_flight.dec()

    def reserve(self, client: str, size: int) -> None:
        """Reserve bytes for a body. Raises Busy."""
        if not self._bytes.take(client, size):
            raise self._busy()

    def _busy(self) -> Busy:
        self._refused.inc()
        return Busy(f"too many {self._kind} requests are under way")


class Slot:
    """A client's place until its block ends, and the bytes of its body."""

    __slots__ = ("_client", "_limiter", "_size")

    def __init__(self, limiter: Limiter, client: str) -> None:
        self._limiter = limiter
        self._client = client
        self._size = 0

    def __enter__(self) -> "Slot":
        self._limiter.take(self._client)
        return self

    def reserve(self, size: int) -> None:
        """Reserve bytes for the body. Raises Busy."""
        self._limiter.reserve(self._client, size)
        self._size += size

    def __exit__(self, *_: object) -> None:
        self._limiter.give_back(self._client, self._size)


class SharedWork(Generic[T]):
    """Work whose result is the same for all: who asks for it while it is under way gets that result, too."""

    def __init__(self) -> None:
        self._task: asyncio.Future[T] | None = None

    async def result(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the work that is under way, or else of `work`."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(work())
            self._task.add_done_callback(_retrieve_exception)
        return await asyncio.shield(self._task)


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


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; raises ClientDisconnect as soon as the client has left, and cancels the work."""
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_leave(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        left.cancel()


async def _leave(request: Request) -> None:
    """Wait until the client leaves; for ever, if it sends a body, which nobody reads."""
    while (message := await request.receive())["type"] != "http.disconnect":
        if message.get("body"):
            await asyncio.Event().wait()


def _retrieve_exception(task: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a task that nobody waits for any more, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
