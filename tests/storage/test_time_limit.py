"""One timer for many waits: each ends in its own time, and nothing else is taken for that."""

import asyncio

import pytest

from service.storage.time_limit import TimeLimit
from tests.support.waiting import PATIENCE_SECONDS


async def wait_for(limit: TimeLimit, event: asyncio.Event) -> str:
    try:
        with limit.wait():
            await event.wait()
    except TimeoutError:
        return "too late"
    return "in time"


async def test_what_takes_too_long_ends_and_what_does_not_goes_on():
    limit, soon, never = TimeLimit(0.05), asyncio.Event(), asyncio.Event()
    waits = [asyncio.create_task(wait_for(limit, event)) for event in (never, soon, never)]
    await asyncio.sleep(0)
    soon.set()
    assert await asyncio.gather(*waits) == ["too late", "in time", "too late"]
    assert await wait_for(limit, never) == "too late"  # the timer begins anew
    assert not limit._waits
    assert limit._timer is None


async def test_a_task_that_is_cancelled_is_not_taken_for_late():
    limit = TimeLimit(PATIENCE_SECONDS)
    task = asyncio.create_task(wait_for(limit, asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not limit._waits


async def test_a_task_that_is_cancelled_when_its_time_is_over_stays_cancelled():
    limit = TimeLimit(0.01)
    task = asyncio.create_task(wait_for(limit, asyncio.Event()))
    await asyncio.sleep(0)
    (wait,) = limit._waits
    wait.end()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_within_the_wait_is_that_error():
    with pytest.raises(KeyError), TimeLimit(PATIENCE_SECONDS).wait():
        raise KeyError
