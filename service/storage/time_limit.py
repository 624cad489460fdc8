"""A limit on the time of many short waits, with one timer for all of them."""

import asyncio


class TimeLimit:
    """As `asyncio.timeout`, for waits that may all last equally long.

    To set a timer for each and to cancel it takes longer than most of these waits.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waits: dict[_Wait, float] = {}  # until when; the first to end is first
        self._timer: asyncio.TimerHandle | None = None

    def wait(self) -> "_Wait":
        """A `with` block around what the task waits for; it raises TimeoutError when the time is over."""
        return _Wait(self)

    def add(self, wait: "_Wait") -> None:
        """A wait begins."""
        loop = asyncio.get_running_loop()
        self._waits[wait] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._end_overdue)

    def remove(self, wait: "_Wait") -> None:
        """A wait has ended."""
        self._waits.pop(wait, None)

    def _end_overdue(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        while self._waits:
            wait, until = next(iter(self._waits.items()))
            if until > loop.time():
                self._timer = loop.call_at(until, self._end_overdue)
                return
            del self._waits[wait]
            wait.end()


class _Wait:
    """One wait of one task."""

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self._is_over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs in a coroutine
        self._task, self._cancelling = task, task.cancelling()
        self._limit.add(self)

    def end(self) -> None:
        """Its time is over."""
        self._is_over = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._limit.remove(self)
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
