"""Advances the books in one task, at each wake-up and at intervals."""

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
from service.reads.snapshots import precompute
from service.storage.tasks import run_safely

_UNWOKEN_SECONDS = 15.0  # without a wake-up for so long, the task advances by itself: Redis may hang
_RETRY_SECONDS = 0.5
_BEHIND_SECONDS = 0.1  # how often the worker that makes the snapshots checks whether the others are done
_REST_FACTOR = 10  # snapshots are made again after a rest of so many times as long as making them took

log = structlog.get_logger()


class Advancer:
    """Advances the books in one task of its own; jobs only wake it.

    A wake-up during a run causes another run. The work does not run in arq's jobs, since a job's timeout
    would leave its thread running.
    """

    def __init__(
        self,
        engine: Engine,
        store: BookStore,
        today: Callable[[], date],
        options: ReadOptions = DEFAULT_OPTIONS,
        unwoken_seconds: float = _UNWOKEN_SECONDS,
    ) -> None:
        self._engine = engine
        self._store = store
        self._today = today
        self._options = options
        self._unwoken_seconds = unwoken_seconds
        self._wake_up = asyncio.Event()
        self._stopped = False
        self._snapshots: asyncio.Task[None] | None = None  # while they are made
        self._snapshots_after = 0.0

    async def wake(self) -> None:
        """Request a run; returns at once."""
        self._wake_up.set()

    def stop(self) -> None:
        """Stop after the present transaction."""
        self._stopped = True
        self._wake_up.set()

    async def run(self) -> None:
        """Advance now, at each wake-up and at intervals, until stopped."""
        while not self._stopped:
            self._wake_up.clear()
            await run_safely(self._advance)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake_up.wait(), self._unwoken_seconds)
        if self._snapshots:
            await self._snapshots

    async def _advance(self) -> None:
        try:
            while not self._stopped and (advanced := await self._engine.advance()):
                log.debug("advanced", events=advanced)
        except Overtaken:  # another worker has just taken a partition; the leases will soon show it
            self._advance_again(_BEHIND_SECONDS)
            return
        except (
            SQLAlchemyError,
            OSError,
        ):  # a store is away, or a step was too large
            self._advance_again(_RETRY_SECONDS)
            raise
        if self._engine.is_leader and not self._snapshots and perf_counter() >= self._snapshots_after:
            self._snapshots = asyncio.create_task(run_safely(self._make_snapshots))

    async def _make_snapshots(self) -> None:
        """Make the snapshots, while events that come meanwhile are taken in."""
        started = perf_counter()
        try:
            if await self._engine.is_behind():  # other workers, which don't report their end, are at work
                self._advance_again(_BEHIND_SECONDS)
                started = perf_counter()
            elif not self._stopped:
                await precompute(self._store, self._today(), self._options)
        finally:  # also after a failure, which takes as long
            self._snapshots_after = perf_counter() + _REST_FACTOR * (perf_counter() - started)
            self._snapshots = None

    def _advance_again(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._wake_up.set)
