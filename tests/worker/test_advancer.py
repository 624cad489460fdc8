"""Documents that can't be made ready hold up no event."""

import asyncio
from datetime import date
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service.worker import advancer
from service.worker.advancer import Advancer


class _Engine:
    """Leads, has nothing left to do, and says that it was asked."""

    is_leader = True

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def advance(self) -> int:
        self.asked.set()
        return 0

    async def is_behind(self) -> bool:
        return False


async def test_documents_that_failed_are_made_again_after_the_same_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, tried = [0.0], []

    async def precompute(_store: Any, today: date, _options: Any) -> int:
        tried.append(today)
        now[0] += 1.0  # so long it took
        raise OperationalError("SELECT", None, TimeoutError())

    monkeypatch.setattr(advancer, "precompute", precompute)
    monkeypatch.setattr(advancer, "perf_counter", lambda: now[0])
    engine = _Engine()
    running = Advancer(engine, object(), lambda: date(2026, 1, 1))  # type: ignore[arg-type]
    task = asyncio.create_task(running.run())

    async def look() -> None:
        engine.asked.clear()
        await running.wake()
        await engine.asked.wait()
        for _ in range(10):  # until the documents have failed, if they are made
            await asyncio.sleep(0)

    for _ in range(5):
        await look()
    assert len(tried) == 1
    now[0] += 11.0
    await look()
    running.stop()
    await task
    assert len(tried) == 2


async def test_events_that_come_while_documents_are_made_do_not_wait_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def precompute(_store: Any, _today: date, _options: Any) -> int:
        begun.set()
        await go_on.wait()
        return 1

    monkeypatch.setattr(advancer, "precompute", precompute)
    engine = _Engine()
    running = Advancer(engine, object(), lambda: date(2026, 1, 1))  # type: ignore[arg-type]
    task = asyncio.create_task(running.run())
    await begun.wait()

    engine.asked.clear()
    await running.wake()
    await engine.asked.wait()

    running.stop()
    go_on.set()
    await task
    assert running._snapshots is None
