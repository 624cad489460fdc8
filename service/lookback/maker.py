"""Makes the files of lookbacks, one at a time, those of more than a few events by a process of their own.

Requests wait for a file for a limited time; the process goes on without them, and a later request finds the
file.
"""

import asyncio
import multiprocessing
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path

import structlog

from projections.work import TooMuchWork
from service.core.errors import Unavailable
from service.lookback.files import LookbackSpec
from service.lookback.make_file import (
    EXIT_TOO_MUCH_WORK,
    FEW_EVENTS,
    make_file,
    open_lookback_files,
    run_process,
)
from service.settings import Settings

_WAIT_SECONDS = 4.0  # for a file that is being made, in addition to the request's own timeout

log = structlog.get_logger()


class LookbackMaker:
    """Finds the files of lookbacks, or makes them. Close it, or the process that makes one goes on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files = open_lookback_files(settings)
        self._task: asyncio.Task[None] | None = None
        self._process: SpawnProcess | None = None
        self._closed = False
        self._refused: list[LookbackSpec] = []

    async def find_or_make(self, spec: LookbackSpec, timeout_ms: int) -> Path:
        """The path of the file. Raises Unavailable if it is not ready in time; it may be ready later.

        Raises TooMuchWork if it takes too much to make, and then for whatever holds the same events.
        """
        deadline = time.monotonic() + _WAIT_SECONDS + timeout_ms / 1000
        while (path := self._files.find(spec)) is None:
            if self._closed:
                raise Unavailable("the process is stopping")
            if any(spec.includes(refused) for refused in self._refused):
                raise TooMuchWork("the events of this range take too long to compare")
            task = self._task = self._task or self._start(spec)
            await asyncio.wait({task}, timeout=deadline - time.monotonic())
            if not task.done():
                raise Unavailable(f"what was known at position {spec.position} is being prepared")
            task.result()
        return path

    def stop(self) -> None:
        """End the process that makes a file; requests that wait for it fail, and no other is started."""
        self._closed = True
        if self._process:
            self._process.terminate()

    async def close(self) -> None:
        """Stop, and wait for the end of the process."""
        self.stop()
        if self._task:
            await asyncio.wait({self._task})

    def _start(self, spec: LookbackSpec) -> asyncio.Task[None]:
        task = asyncio.create_task(self._make(spec), name="lookback")
        # Its error counts as read even if no request waits for it any more.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _make(self, spec: LookbackSpec) -> None:
        """Make the file: of few events in a thread, of more in a process. Raises Unavailable if it fails."""
        try:
            if spec.position > FEW_EVENTS:
                await self._make_in_process(spec)
            else:
                await asyncio.to_thread(asyncio.run, make_file(self._settings, spec))
        except TooMuchWork:
            self._refused.append(spec)
            log.warning("lookback_refused", since=spec.since, position=spec.position)
        finally:
            self._task = None

    async def _make_in_process(self, spec: LookbackSpec) -> None:
        started = time.monotonic()
        context = multiprocessing.get_context("spawn")
        self._process = process = context.Process(target=run_process, args=(self._settings, spec))
        try:
            process.start()
            await _wait_for_end(process)
            if process.exitcode == EXIT_TOO_MUCH_WORK:
                raise TooMuchWork
            if process.exitcode:
                log.warning("lookback_failed", position=spec.position, exitcode=process.exitcode)
                raise Unavailable(f"what was known at position {spec.position} can't be prepared now")
            log.info("lookback_ready", position=spec.position, seconds=time.monotonic() - started)
        finally:
            self._process = None


async def _wait_for_end(process: SpawnProcess) -> None:
    """Wait for the end of a process, without a thread."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process.sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()
