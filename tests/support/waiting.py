"""How tests wait: on a condition, until it holds, and no shorter than a busy machine needs."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

# Only a hang takes so long: fifteen times what the slowest wait takes on a calm machine.
PATIENCE_SECONDS = 240.0

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str) -> T:
    """The first value of `condition` that is true; AssertionError if none ever is.

    It is looked at ever more rarely, as a look may cost some milliseconds of whatever is waited for.
    """
    began = time.monotonic()
    while not (found := condition()):
        waited = time.monotonic() - began
        if waited > PATIENCE_SECONDS:
            raise AssertionError(f"not within {PATIENCE_SECONDS} s: {what}")
        time.sleep(min(max(0.02, waited / 10), 0.1))
    return found


async def eventually(condition: Callable[[], T], what: str) -> T:
    """`wait_until`, in a thread: the loop goes on meanwhile."""
    return await asyncio.to_thread(wait_until, condition, what)
