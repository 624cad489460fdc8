"""Files of look-backs, each made by a process of its own, one at a time.

Requests wait for it as long as they may; it goes on without them, and whoever asks again finds its file.
"""

import asyncio
import multiprocessing
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path

import structlog

from service.core.errors import Unavailable
from service.lookback.build import files_of, run
from service.lookback.files import Wanted
from service.settings import Settings

_WAIT_SECONDS = 4.0  # for a file that is being made, besides what the request waits for the books

log = structlog.get_logger()


class LookBack:
    """The files of look-backs, found or made. Close it, or the process that makes one goes on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files = files_of(settings)
        self._making: asyncio.Task[None] | None = None
        self._process: SpawnProcess | None = None
        self._closed = False

    async def reach(self, wanted: Wanted, timeout_ms: int) -> Path:
        """The file; raises Unavailable if it is not there in time, and may be later."""
        deadline = time.monotonic() + _WAIT_SECONDS + timeout_ms / 1000
        while (path := self._files.find(wanted)) is None:
            if self._closed:
                raise Unavailable("the process is stopping")
            making = self._making = self._making or self._start(wanted)
            await asyncio.wait({making}, timeout=deadline - time.monotonic())
            if not making.done():
                raise Unavailable(f"what was known at position {wanted.position} is being prepared")
            making.result()
        return path

    def stop(self) -> None:
        """End what is being made, and let nobody wait for it any more."""
        self._closed = True
        if self._process:
            self._process.terminate()

    async def close(self) -> None:
        """Stop, and wait for it."""
        self.stop()
        if self._making:
            await asyncio.wait({self._making})

    def _start(self, wanted: Wanted) -> asyncio.Task[None]:
        making = asyncio.create_task(self._make(wanted), name="lookback")
        making.add_done_callback(lambda made: made.cancelled() or made.exception())  # it may be nobody's
        return making

    async def _make(self, wanted: Wanted) -> None:
        """Have a process make the file; raises Unavailable if it fails."""
        started = time.monotonic()
        context = multiprocessing.get_context("spawn")
        self._process = process = context.Process(target=run, args=(self._settings, wanted))
        try:
            process.start()
            await _ended(process)
            if process.exitcode:
                log.warning("lookback_failed", position=wanted.position, exitcode=process.exitcode)
                raise Unavailable(f"what was known at position {wanted.position} can't be prepared now")
            log.info("lookback_ready", position=wanted.position, seconds=time.monotonic() - started)
        finally:
            self._making = self._process = None


async def _ended(process: SpawnProcess) -> None:
    """Wait for a process without a thread."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process.sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()
