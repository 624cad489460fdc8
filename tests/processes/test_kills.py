"""Killed hard at random moments under load: nothing that was answered is lost, and the books agree.

More of them: `TEST_EFFORT=5 pytest tests/processes/test_kills.py`.
"""

import asyncio
import random
import signal

import pytest

from service.settings import load
from service.verify import verify_all
from tests.support.effort import times
from tests.support.load import Load, positions
from tests.support.processes import DaybookProcesses
from tests.support.waiting import eventually

KILLS = times(10)


@pytest.mark.timeout(1_800)
async def test_kills_lose_nothing_that_was_answered(processes: DaybookProcesses) -> None:
    # given a web process and a worker under load
    processes.start("web")
    processes.start("worker")
    processes.wait_ready()
    load = Load(processes.url, seed=1)
    sending = asyncio.create_task(load.run())

    # when either is killed many times, at random moments, and started again
    chance = random.Random(2)
    for _ in range(KILLS):
        name = chance.choice(("web", "worker"))
        await asyncio.to_thread(processes.kill, name, signal.SIGKILL)
        processes.start(name)
        await asyncio.to_thread(processes.wait_ready)
        await asyncio.sleep(chance.uniform(0.0, 0.6))
    await eventually(lambda: len(load.answered) > 100, "more than a hundred events are answered")
    load.stop()
    await sending
    await eventually(processes.caught_up, "the books reach the ledger's end")

    # then every answered position holds its event, the chain is whole, the books equal a replay
    assert await positions(processes.data_dir) | load.answered == await positions(processes.data_dir)
    settings = load_settings(processes)
    assert any("unbroken" in line for line in (await verify_all(settings)).lines())


def load_settings(daybook: DaybookProcesses):
    return load(data_dir=daybook.data_dir)
