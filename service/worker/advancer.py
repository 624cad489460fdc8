"""Advancing the books in one task: woken by whoever knows of something new, and now and then by itself."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from time import perf_counter

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.books.engine import Engine, Overtaken
from service.books.store import BookStore
from service.books.view import DEFAULT_OPTIONS, ReadOptions
from service.reads.snapshots import make_ready
from service.storage.tasks import run_safely

_ALONE_SECONDS = 15.0  # how long without any wake-up until the runner looks by itself: Redis may hang
_AGAIN_SECONDS = 0.5
_BEHIND_SECONDS = 0.1  # how often a worker that makes the snapshots looks whether the others are done
_QUIET = 10  # snapshots are made again after this many times what making them took

log = structlog.get_logger()


class Advancer:
    """Advances the books in one task of its own; jobs only wake it.

    A wake-up during a run makes it look again. The task is not arq's: a job has a timeout, and what it
    would cut off is a thread that goes on.
    """

    def __init__(
        self,
        engine: Engine,
        store: BookStore,
        today: Callable[[], date],
        options: ReadOptions = DEFAULT_OPTIONS,
        alone_seconds: float = _ALONE_SECONDS,
    ) -> None:
        self._engine = engine
        self._store = store
        self._today = today
        self._options = options
        self._alone_seconds = alone_seconds
        self._wanted = asyncio.Event()
        self._stopped = False
        self._ready_after = 0.0

    async def wake(self) -> None:
        """Have the books brought to the ledger's end; returns at once."""
        self._wanted.set()

    def stop(self) -> None:
        """End the run between two transactions."""
        self._stopped = True
        self._wanted.set()

    async def run(self) -> None:
        """Look now, at each wake-up, and now and then, until stopped."""
        while not self._stopped:
            self._wanted.clear()
            await run_safely(self._look)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._alone_seconds)

    async def _look(self) -> None:
        try:
            while not self._stopped and (advanced := await self._engine.advance()):
                log.debug("advanced", events=advanced)
        except Overtaken:  # by one that has just taken a partition, of which this one will hear soon
            self._look_again(_BEHIND_SECONDS)
            return
        except (SQLAlchemyError, OSError):  # a store is away, or a step was too much: the next is smaller
            self._look_again(_AGAIN_SECONDS)
            raise
        if self._engine.is_leader and perf_counter() >= self._ready_after and not self._stopped:
            started = perf_counter()
            if await self._engine.is_behind():  # others are at work, and say nothing when they are done
                self._look_again(_BEHIND_SECONDS)
                return
            try:
                await make_ready(self._store, self._today(), self._options)
            finally:  # what fails takes long, too
                self._ready_after = perf_counter() + _QUIET * (perf_counter() - started)

    def _look_again(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._wanted.set)
