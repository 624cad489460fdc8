"""Group commit: deliveries that arrive while one transaction runs go into the next, and share its fsync."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from service.core.errors import DaybookError, LostEvents, Unavailable
from service.ledger.draft import Incoming, Outcome
from service.ledger.store import Ledger
from service.storage.time_limit import TimeLimit

_BATCH = 256
_BATCH_BYTES = 8 << 20  # roughly: each body is in memory a second time while it is sealed and written
_COMMIT_SECONDS = 5.5  # for a commit: longer than a database's own limits, shorter than a process has to stop
_CLOSE_SECONDS = 1.0  # for the last commit, when the process stops
_MAX_WAITING = 4_096  # deliveries in memory; further ones are refused, and the processor tries again
_MAX_WAITING_BYTES = 64 << 20  # the same by their size

log = structlog.get_logger()


class Writer:
    """The one writer of a process. `committed(position)` is called after each commit."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], datetime],
        committed: Callable[[int], None],
        batch: int = _BATCH,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._committed = committed
        self._batch = batch
        self._queue: asyncio.Queue[tuple[Incoming, asyncio.Future[Outcome]]] = asyncio.Queue(_MAX_WAITING)
        self._bytes = 0
        self._failure: str | None = None
        self._commit_time = TimeLimit(_COMMIT_SECONDS)
        self._task = asyncio.create_task(self._run(), name="ledger-writer")

    async def append(self, incoming: Incoming) -> Outcome:
        """Append one delivery; return when it is on disk.

        Raises Unavailable if it is not, or if that is not known in time: then it may still be written, and is
        a duplicate when it comes again.
        """
        if self._queue.full() or self._bytes > _MAX_WAITING_BYTES:
            raise Unavailable("too many deliveries are waiting for the ledger")
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._bytes += len(incoming.body)
        self._queue.put_nowait((incoming, answer))
        try:
            with self._commit_time.wait():
                return await answer
        except TimeoutError:
            raise Unavailable("the ledger takes too long to write") from None

    async def close(self) -> None:
        """Write the waiting deliveries, if the ledger can be written; then stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._queue.join()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            batch = [await self._queue.get()]
            size = len(batch[0][0].body)
            while len(batch) < self._batch and size < _BATCH_BYTES and not self._queue.empty():
                batch.append(self._queue.get_nowait())
                size += len(batch[-1][0].body)
            await self._write(batch)
            for incoming, _ in batch:
                self._bytes -= len(incoming.body)
                self._queue.task_done()

    async def _write(self, batch: list[tuple[Incoming, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await self._ledger.append([incoming for incoming, _ in batch], self._clock())
        except Exception as error:  # whatever it is, the waiting requests get an answer
            if (reason := _reason(error)) is None:
                log.exception("ledger_unavailable", deliveries=len(batch), error=type(error).__name__)
            else:
                self._note_failure(reason, deliveries=len(batch), error=type(error).__name__)
            if len(batch) > 1 and _is_delivery_error(error):
                for entry in batch:  # one delivery that can't be written does not keep out the rest
                    await self._write([entry])
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(
                        error
                        if isinstance(error, LostEvents)
                        else Unavailable("the ledger can't be written now")
                    )
            return
        self._note_success()
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if not answer.done():  # the request may have gone away; its event is written all the same
                answer.set_result(outcome)
        self._committed(max((outcome.end for outcome in outcomes), default=0))

    def _note_failure(self, reason: str, **fields: Any) -> None:
        """One line for failures that are alike, until a commit succeeds."""
        if reason != self._failure:
            log.error("ledger_unavailable", reason=reason, **fields)
        self._failure = reason

    def _note_success(self) -> None:
        if self._failure:
            log.info("ledger_available")
        self._failure = None


def _reason(error: Exception) -> str | None:
    """Why a store can't be used, in one line and without any value; None for an error that should not be."""
    if isinstance(error, DaybookError):
        return str(error)
    if isinstance(error, DBAPIError) and error.orig is not None and not _is_delivery_error(error):
        return next(iter(str(error.orig).splitlines()), type(error).__name__)
    return type(error).__name__ if isinstance(error, SQLAlchemyError | OSError) else None


def _is_delivery_error(error: Exception) -> bool:
    """Whether the content of a delivery caused the error, rather than a database that can't be written.

    On PostgreSQL the error code's class shows it: 22 for data, 23 for a constraint, 54 for a limit.
    """
    if isinstance(error, DBAPIError) and error.orig is not None:
        return str(getattr(error.orig, "sqlstate", ""))[:2] in ("22", "23", "54")
    return not isinstance(error, SQLAlchemyError | OSError)
