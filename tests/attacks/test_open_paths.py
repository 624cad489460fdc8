"""Paths that anybody may ask, as often as they like: many at once cost as much as one."""

import asyncio

import pytest

from tests.support.running import Daybook


async def test_many_who_ask_whether_it_is_ready_share_one_look(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, looks = daybook.state.write_probe.check, 0

    async def counted() -> None:
        nonlocal looks
        looks += 1
        await check()

    monkeypatch.setattr(daybook.state.write_probe, "check", counted)

    answers = await asyncio.gather(*(daybook.http.get("/readyz") for _ in range(50)))

    assert {answer.status_code for answer in answers} == {200}
    assert looks == 1
    assert (await daybook.http.get("/readyz")).status_code == 200
    assert looks == 2
