"""Progress of long work, for whoever shows it: a bar on a terminal, a watchdog, or nobody."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Advance = Callable[[int], None]  # called with how much more has been done
Progress = Callable[
    [str, int | None], AbstractContextManager[Advance]
]  # of work: its name and, if known, size


def no_advance(_count: int) -> None:
    """Nobody is shown what has been done."""


def no_progress(_work: str, _size: int | None) -> AbstractContextManager[Advance]:
    """No progress is shown."""
    return nullcontext(no_advance)
