"""Background tasks: work that is tried again after a failure, and tasks that end when they are cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.storage.damage import damage

_RETRY_SECONDS = 0.1

log = structlog.get_logger()


async def run_safely(work: Callable[[], Awaitable[Any]]) -> None:
    """Run `work`. A failure is logged, and does not stop the caller, who tries again later."""
    name = getattr(getattr(work, "func", work), "__qualname__", "")  # of a partial: its function's
    try:
        await work()
    except (SQLAlchemyError, OSError) as error:
        log.warning("store_unavailable", error=type(error).__name__, work=name, **damage(error))
    except Exception as error:
        log.exception("work_failed", error=type(error).__name__, work=name)


async def cancel_and_wait(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended; raise its error.

    Cancelling once is not enough: redis-py sends through `asyncio.wait_for`, which in Python 3.11 swallows
    a cancellation that comes at the moment when it is done.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_RETRY_SECONDS)
    if not task.cancelled():
        task.result()
