"""Documents that can't be made ready hold up no event."""

import asyncio
from datetime import date
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service import advancer
from service.advancer import Advancer


class _Engine:
    """Has one event for each look, and leads."""

    leads = True

    def __init__(self) -> None:
        self.looked = asyncio.Event()
        self.left = 0

    async def advance(self) -> int:
        self.left, count = 0, self.left
        return count

    async def is_behind(self) -> bool:
        self.looked.set()
        return False


async def test_what_failed_to_be_made_ready_rests_as_what_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[date] = []

    async def make_ready(_store: Any, today: date, _options: Any) -> int:
        tried.append(today)
        await asyncio.sleep(0.05)
        raise OperationalError("SELECT", None, TimeoutError())

    monkeypatch.setattr(advancer, "make_ready", make_ready)
    engine = _Engine()
    running = Advancer(engine, object(), lambda: date(2026, 1, 1))  # type: ignore[arg-type]
    task = asyncio.create_task(running.run())
    for _ in range(5):
        engine.left = 1
        await running.wake()
        await asyncio.sleep(0.06)
    running.stop()
    await task

    assert len(tried) == 1
