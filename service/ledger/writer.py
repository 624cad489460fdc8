"""Group commit: what gathers while one transaction runs goes into the next, and shares its fsync."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from service.core.errors import Unavailable
from service.ledger.draft import Incoming, Outcome
from service.ledger.store import Ledger

_BATCH = 256
_BATCH_BYTES = 8 << 20  # about: each body stands in memory once more while it is sealed and written
_WAIT_SECONDS = 5.5  # for a commit: a store's own limits say first what is wrong, a stop comes after it
_CLOSE_SECONDS = 1.0  # for the last commit, when the process stops
_WAITING = 4_096  # deliveries in memory; more are refused, and the processor tries again
_WAITING_BYTES = 64 << 20  # the same by their size

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
        self._queue: asyncio.Queue[tuple[Incoming, asyncio.Future[Outcome]]] = asyncio.Queue(_WAITING)
        self._bytes = 0
        self._task = asyncio.create_task(self._run(), name="ledger-writer")

    async def append(self, incoming: Incoming) -> Outcome:
        """Keep one delivery; returns when it is on disk.

        Raises Unavailable when it is not, or not known in time to be: then it may be kept later, and is
        a duplicate when it comes again.
        """
        if self._queue.full() or self._bytes > _WAITING_BYTES:
            raise Unavailable("too many deliveries are waiting for the ledger")
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._bytes += len(incoming.body)
        self._queue.put_nowait((incoming, answer))
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                return await answer
        except TimeoutError:
            raise Unavailable("the ledger takes too long to write") from None

    async def close(self) -> None:
        """Write what waits, if the ledger lets us; then stop."""
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
        except Exception as error:  # whatever it is, those who wait are told
            log.exception("ledger_unavailable", deliveries=len(batch), error=type(error).__name__)
            if len(batch) > 1 and _is_of_a_delivery(error):
                for one in batch:  # a delivery that can't be written does not keep out the others
                    await self._write([one])
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(Unavailable("the ledger can't be written now"))
            return
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if not answer.done():  # the request may have gone away; its event is kept all the same
                answer.set_result(outcome)
        self._committed(max((outcome.position or 0 for outcome in outcomes), default=0))


def _is_of_a_delivery(error: Exception) -> bool:
    """Whether it comes of what a delivery holds, rather than of a store that can't write.

    PostgreSQL says so by the class of its code: data, a constraint, a limit.
    """
    if isinstance(error, DBAPIError) and error.orig is not None:
        return str(getattr(error.orig, "sqlstate", ""))[:2] in ("22", "23", "54")
    return not isinstance(error, SQLAlchemyError | OSError)
