"""Counted work: what takes too long is told by what it reads, so that every replay finds the same.

A time would differ from machine to machine, and with it the books.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from service.core.errors import DaybookError
from service.core.events import Subscription

MAX_STEPS = 250_000  # of one fold; a step is a discount or an item at one moment, or a pair that is compared


class TooMuchWork(DaybookError):
    """A fold, or several of them together, would take more steps than those of any real history."""


class Work:
    """Counts the steps of one fold; and for a work that encloses it, if there is one."""

    def __init__(self, most: int = MAX_STEPS) -> None:
        self._left = most
        self._enclosing = _enclosing.get()

    def add(self, steps: int) -> None:
        """Count steps before they are done. Raises TooMuchWork beyond the bound."""
        self._left -= steps
        if self._left < 0:
            raise TooMuchWork("a fold would take too many steps")
        if self._enclosing:
            self._enclosing.add(steps)

    @contextmanager
    def enclosing(self) -> Iterator[None]:
        """Within the block, the steps of all folds count for this work, too."""
        before = _enclosing.set(self)
        try:
            yield
        finally:
            _enclosing.reset(before)


_enclosing: ContextVar[Work | None] = ContextVar("enclosing", default=None)


def size_of(data: Subscription) -> int:
    """The steps that it takes to price a contract once: its items and discounts."""
    return 1 + len(data.discounts) + sum(1 + len(item.discounts) for item in data.items)
