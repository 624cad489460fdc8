"""Who sends: each delivery to any web process until one says 200, as a processor would."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import httpx
from msgspec import Struct

from tests.storm.traffic import Delivery, Traffic
from tests.support.waiting import PATIENCE_SECONDS

SENDERS = 32
TIMEOUT_SECONDS = 4.0  # in the storm; some answers come later, and what they were for is sent again
TWICE = 0.05  # the share of deliveries that are sent to two web processes at once


class Answer(Struct, frozen=True, kw_only=True):
    """A 200: where the event is, and whether it was there before."""

    position: int
    duplicate: bool = False
    conflict: bool = False


class Senders:
    """Senders beside each other. What they were answered is kept by the event's cause."""

    def __init__(self, traffic: Traffic, urls: Sequence[str], seed: int, per_second: float) -> None:
        self.answers: dict[str, list[Answer]] = defaultdict(list)
        self.statuses: Counter[str] = Counter()
        self.odd: list[str] = []  # answers that no processor should ever see
        self.highest = 0
        self._traffic = traffic
        self._urls = urls
        self._chance = random.Random(f"senders {seed}")
        self._pause = SENDERS / per_second
        self._stopped = False

    async def run(self) -> None:
        """Send until stopped; then until everything that was begun is answered."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        async with (
            httpx.AsyncClient(limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(SENDERS):
                group.create_task(self._send(client))

    def stop(self) -> None:
        self._stopped = True

    async def _send(self, client: httpx.AsyncClient) -> None:
        while not self._stopped:
            delivery = self._traffic.next()
            copies = 2 if self._chance.random() < TWICE else 1
            await asyncio.gather(*(self._deliver(client, delivery) for _ in range(copies)))
            await asyncio.sleep(self._chance.expovariate(1 / self._pause))

    async def _deliver(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        answered = False
        while not answered:
            answered = await self._post(client, delivery)
            await asyncio.sleep(0 if answered else self._chance.uniform(0.02, 0.5))

    async def _post(self, client: httpx.AsyncClient, delivery: Delivery) -> bool:
        """Whether it was answered 200."""
        url = self._chance.choice(self._urls) + delivery.path
        try:
            patience = PATIENCE_SECONDS if self._stopped else TIMEOUT_SECONDS
            answer = await client.post(
                url, content=delivery.body, headers=delivery.headers(), timeout=patience
            )
        except httpx.TransportError as error:
            self.statuses[type(error).__name__] += 1
            return False
        self.statuses[str(answer.status_code)] += 1
        if answer.status_code == 200:
            self._note(delivery, answer)
            return True
        if answer.status_code != 503 or "retry-after" not in answer.headers:
            self.odd.append(f"{delivery.cause}: {answer.status_code} {answer.text[:300]}")
        return False

    def _note(self, delivery: Delivery, answer: httpx.Response) -> None:
        document = answer.json()
        if document.pop("received") is not True or document.get("quarantined"):
            self.odd.append(f"{delivery.cause}: {answer.text[:300]}")
            return
        self.answers[delivery.cause].append(Answer(**document))
        self.highest = max(self.highest, document["position"])
