"""Killed hard at random moments under load: nothing that was answered is lost, and the books agree."""

import asyncio
import random
import signal
from pathlib import Path

import httpx
import pytest

from service.bootstrap import open_ledger
from service.settings import load
from service.verify import verify_all
from tests.processes.daybook import Daybook, signed, subscription_event
from tests.waiting import eventually

KILLS = 50
SENDERS = 4


class Load:
    """Senders that post without end, each event until it is answered 200, and some of them again."""

    def __init__(self, url: str, seed: int) -> None:
        self.answered: dict[str, int] = {}
        self._url = url
        self._random = random.Random(seed)
        self._next = 0
        self._stopped = False

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=30) as client:
            await asyncio.gather(*(self._send(client) for _ in range(SENDERS)))

    def stop(self) -> None:
        self._stopped = True

    async def _send(self, client: httpx.AsyncClient) -> None:
        while not self._stopped:
            number = self._next = self._next + 1
            if self._random.random() < 0.2:
                number = self._random.randint(1, number)  # delivered again
            event_id, body = subscription_event(number)
            while not self._stopped:
                try:
                    answer = await client.post(
                        "/webhooks/standard/biller", content=body, headers=signed(event_id, body)
                    )
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    position = answer.json()["position"]
                    assert self.answered.setdefault(event_id, position) == position
                    break


@pytest.mark.timeout(1_800)
async def test_fifty_kills_lose_nothing_that_was_answered(daybook: Daybook) -> None:
    # given a web process and a worker under load
    daybook.start("web")
    daybook.start("worker")
    daybook.wait_ready()
    load = Load(daybook.url, seed=1)
    sending = asyncio.create_task(load.run())

    # when either is killed fifty times, at random moments, and started again
    chance = random.Random(2)
    for _ in range(KILLS):
        name = chance.choice(("web", "worker"))
        await asyncio.to_thread(daybook.kill, name, signal.SIGKILL)
        daybook.start(name)
        await asyncio.to_thread(daybook.wait_ready)
        await asyncio.sleep(chance.uniform(0.0, 0.6))
    await eventually(lambda: len(load.answered) > 100, "more than a hundred events are answered")
    load.stop()
    await sending
    await eventually(daybook.caught_up, "the books reach the ledger's end")

    # then every answered position holds its event, the chain is whole, the books equal a replay
    assert await positions(daybook.data_dir) | load.answered == await positions(daybook.data_dir)
    settings = load_settings(daybook)
    assert any("unbroken" in line for line in (await verify_all(settings)).lines())


async def positions(data_dir: Path) -> dict[str, int]:
    ledger = open_ledger(load(data_dir=data_dir))
    found: dict[str, int] = {}
    async with ledger.reading() as reader:
        while rows := await reader.rows(len(found), 1_000):
            found |= {row["event_id"]: row["position"] for row in rows}
    await ledger.close()
    return found


def load_settings(daybook: Daybook):
    return load(data_dir=daybook.data_dir)
