"""Reads that wait for the books: one poll of the database for all of them."""

import asyncio
import time

import structlog

from service.books.store import BookStore
from service.core.errors import Behind, Unavailable
from service.web.bounds import LOOK_SECONDS, with_timeout

_POLL_SECONDS = 0.01

log = structlog.get_logger()


class Progress:
    """How far the books are, looked at for as long as anybody waits."""

    def __init__(self, store: BookStore) -> None:
        self._store = store
        self._waiting: dict[asyncio.Future[None], tuple[int, float]] = {}
        self._task: asyncio.Task[None] | None = None

    async def reach(self, position: int, timeout_ms: int) -> None:
        """Wait until every book holds `position`; raises Behind if that takes longer than `timeout_ms`.

        Raises Unavailable if the books can't be read.
        """
        if not position:
            return
        reached = asyncio.get_running_loop().create_future()
        self._waiting[reached] = position, time.monotonic() + timeout_ms / 1000
        if self._task is None:
            self._task = asyncio.create_task(self._poll(), name="progress")
        try:
            await reached
        finally:
            del self._waiting[reached]

    def hurry(self, seconds: float) -> None:
        """Let nobody wait for longer than this: the process is stopping."""
        latest = time.monotonic() + seconds
        for reached, (position, deadline) in self._waiting.items():
            self._waiting[reached] = position, min(deadline, latest)

    async def _poll(self) -> None:
        try:
            while self._waiting:
                self._tell(await with_timeout(LOOK_SECONDS, self._look()))
                await asyncio.sleep(_POLL_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            log.warning("store_unavailable", error=type(error).__name__)
            for reached in self._waiting:
                _fail(reached, Unavailable("the books can't be read now"))
        finally:
            self._task = None

    async def _look(self) -> int:
        return (await self._store.read(self._store.positions)).position

    def _tell(self, at: int) -> None:
        now = time.monotonic()
        for reached, (position, deadline) in self._waiting.items():
            if at >= position and not reached.done():
                reached.set_result(None)
            elif now >= deadline:
                _fail(reached, Behind(f"the books hold position {at}, not yet {position}"))


def _fail(reached: asyncio.Future[None], error: Exception) -> None:
    if not reached.done():
        reached.set_exception(error)
