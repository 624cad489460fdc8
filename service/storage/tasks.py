"""Background tasks: work that is tried again later, and tasks that end when they are asked to."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

_AGAIN_SECONDS = 0.1

log = structlog.get_logger()


async def safely(work_once: Callable[[], Awaitable[Any]]) -> None:
    """Run a piece of work. A failure is logged, and does not stop the caller, who tries again later."""
    name = getattr(getattr(work_once, "func", work_once), "__qualname__", "")  # a partial's is its function's
    try:
        await work_once()
    except (SQLAlchemyError, OSError) as error:
        log.warning("store_unavailable", error=type(error).__name__, work=name)
    except Exception as error:
        log.exception("work_failed", error=type(error).__name__, work=name)


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended; its error is raised.

    Cancelling once is not enough: redis-py sends through `asyncio.wait_for`, and that of Python 3.11
    swallows a cancellation that comes at the moment it is done.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_SECONDS)
    if not task.cancelled():
        task.result()
