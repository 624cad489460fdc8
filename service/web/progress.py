"""Lets reads wait until the books hold a position, with one task that looks for all of them."""

import asyncio
import time
from collections.abc import Hashable

import structlog

from service.books.store import BookStore
from service.core.errors import Behind, Unavailable
from service.storage.versions import Versions
from service.web.bounds import LOOK_SECONDS, with_timeout

log = structlog.get_logger()


class Progress:
    """Looks for the books' position after each change of the stores, as long as a read waits for it."""

    def __init__(self, store: BookStore, versions: Versions) -> None:
        self._store = store
        self._versions = versions
        self._waiters: dict[asyncio.Future[None], tuple[int, float]] = {}
        self._task: asyncio.Task[None] | None = None

    async def reach(self, position: int, timeout_ms: int) -> None:
        """Wait until every book holds `position`; raises Behind if that takes longer than `timeout_ms`.

        Raises Unavailable if the books can't be read.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = position, time.monotonic() + timeout_ms / 1000
        if self._task is None:
            self._task = asyncio.create_task(self._poll(), name="progress")
        try:
            await waiter
        finally:
            del self._waiters[waiter]

    def shorten_waits(self, seconds: float) -> None:
        """Limit the remaining wait of all reads, since the process is stopping."""
        latest_deadline = time.monotonic() + seconds
        for waiter, (position, deadline) in self._waiters.items():
            self._waiters[waiter] = position, min(deadline, latest_deadline)

    async def _poll(self) -> None:
        try:
            seen: Hashable = None
            position = 0
            while self._waiters:
                if (version := await self._versions.current()) != seen:
                    position = await with_timeout(LOOK_SECONDS, self._read_position())
                    seen = version
                self._resolve(position)
                await asyncio.sleep(self._versions.interval)
        except Exception as error:  # noqa: BLE001 - any error ends the waits
            log.warning("store_unavailable", error=type(error).__name__)
            for waiter in self._waiters:
                _fail(waiter, Unavailable("the books can't be read now"))
        finally:
            self._task = None

    async def _read_position(self) -> int:
        return (await self._store.read(self._store.positions)).position

    def _resolve(self, current: int) -> None:
        now = time.monotonic()
        for waiter, (position, deadline) in self._waiters.items():
            if current >= position and not waiter.done():
                waiter.set_result(None)
            elif now >= deadline:
                _fail(waiter, Behind(f"the books hold position {current}, not yet {position}"))


def _fail(waiter: asyncio.Future[None], error: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(error)
