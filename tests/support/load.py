"""Webhooks without end, and what the ledger holds of them."""

import asyncio
import random
from pathlib import Path

import httpx

from service.bootstrap import open_ledger
from service.settings import load
from tests.support.processes import signed, subscription_event

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


async def positions(data_dir: Path) -> dict[str, int]:
    """Where each event of a ledger is, by its id."""
    ledger = open_ledger(load(data_dir=data_dir))
    found: dict[str, int] = {}
    async with ledger.reading() as reader:
        while rows := await reader.rows(len(found), 1_000):
            found |= {row["event_id"]: row["position"] for row in rows}
    await ledger.close()
    return found
