"""What goes wrong: processes killed, held still and restarted, at moments that a seed draws."""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

import httpx

from tests.storm.cluster import STOPPED, Cluster, Member

QUIET_SECONDS = (0.2, 5.0)  # between two things that go wrong
HELD_SECONDS = (0.1, 8.0)
DOWN_SECONDS = (0.0, 2.0)
LOOK_SECONDS = 0.1
VALKEY_LOST, POSTGRES_CRASHED = 0.15, 0.1  # how likely, each time that something goes wrong


class Chaos:
    """Blows to a cluster, several at a time. What was struck is whole again when `run` returns."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.blows: Counter[str] = Counter()
        self.slowest_stop_seconds = 0.0
        self.faults: list[str] = []  # members that ended though nobody struck them, or did not when asked to
        self._cluster = cluster
        self._chance = random.Random(f"chaos {seed}")
        self._struck: set[str] = set()
        self._began = time.monotonic()

    async def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            while (left := until - time.monotonic()) > 0:
                await asyncio.sleep(min(left, self._chance.uniform(*QUIET_SECONDS)))
                for name, blow in self._next_blows():
                    self._struck.add(name)
                    group.create_task(self._strike(name, blow))

    async def keep(self) -> None:
        """Until cancelled: start again what ended by itself, as a service manager would, and note it."""
        while True:
            for member in self._cluster.members:
                if member.name not in self._struck and not member.running:
                    if member.found_no_database:
                        self._tell(f"{member} found no database")
                    else:
                        self._fault(f"{member} ended by itself with {member.exit_code}")
                    member.start()
            await asyncio.sleep(LOOK_SECONDS)

    def _next_blows(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """To one member as a rule, sometimes to none or several at once; now and then to what all need."""
        chance, whole = (
            self._chance,
            [each for each in self._cluster.members if each.name not in self._struck],
        )
        blows: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        for member in chance.sample(whole, min(len(whole), chance.choice((0, 1, 1, 1, 1, 2, 3)))):
            way = chance.choice((self._kill, self._kill, self._hold, self._hold, self._stop))
            blows.append((member.name, lambda way=way, member=member: way(member)))
        if chance.random() < VALKEY_LOST and "valkey" not in self._struck:
            blows.append(("valkey", self._lose_valkey))
        if self._cluster.postgres and chance.random() < POSTGRES_CRASHED and "postgresql" not in self._struck:
            blows.append(("postgresql", self._crash_postgres))
        return blows

    async def _strike(self, name: str, blow: Callable[[], Awaitable[None]]) -> None:
        try:
            await blow()
        finally:
            self._struck.discard(name)

    async def _kill(self, member: Member) -> None:
        self._note("kill", member.name)
        await asyncio.to_thread(member.kill)
        await self._stay_down()
        member.start()

    async def _hold(self, member: Member) -> None:
        seconds = self._chance.uniform(*HELD_SECONDS)
        self._note("hold", f"{member} for {seconds:.1f} s")
        member.pause()
        await asyncio.sleep(seconds)
        member.resume()

    async def _stop(self, member: Member) -> None:
        self._note("stop", member.name)
        asked = time.monotonic()
        try:
            code = await asyncio.to_thread(member.stop)
        except AssertionError as error:
            self._fault(str(error))
        else:
            self.slowest_stop_seconds = max(self.slowest_stop_seconds, time.monotonic() - asked)
            if code not in STOPPED and not member.found_no_database:
                self._fault(f"{member} was told to stop and ended with {code}")
        await self._stay_down()
        member.start()

    async def _lose_valkey(self) -> None:
        self._note("lose", "every key in Valkey")
        await asyncio.to_thread(self._cluster.valkey.terminate)
        await self._stay_down()
        await asyncio.to_thread(self._cluster.valkey.start)

    async def _crash_postgres(self) -> None:
        assert self._cluster.postgres is not None
        self._note("crash", "PostgreSQL")
        await asyncio.to_thread(self._cluster.postgres.stop, "immediate")
        await self._stay_down()
        await asyncio.to_thread(self._cluster.postgres.start)
        self._tell("PostgreSQL is up again")

    async def _stay_down(self) -> None:
        await asyncio.sleep(self._chance.uniform(*DOWN_SECONDS))

    def _note(self, blow: str, what: str) -> None:
        self.blows[blow] += 1
        self._tell(f"{blow} {what}")

    def _fault(self, what: str) -> None:
        self.faults.append(what)
        self._tell(what)

    def _tell(self, what: str) -> None:
        """Into the storm's own log, beside the members'."""
        with open(self._cluster.directory / "storm.log", "a") as log:
            log.write(f"{datetime.now(UTC).isoformat()} {time.monotonic() - self._began:7.2f} {what}\n")


class Watch:
    """Looks how far the books are behind what was answered, and for how long."""

    def __init__(self, cluster: Cluster, answered: Callable[[], int]) -> None:
        self.longest_seconds = 0.0
        self._cluster = cluster
        self._answered = answered
        self._awaited: deque[tuple[float, int]] = (
            deque()
        )  # when a position was answered; not yet in the books

    async def run(self) -> None:
        """Until cancelled."""
        async with (
            httpx.AsyncClient(timeout=2 * HELD_SECONDS[1]) as client,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._mark())
            for web in self._cluster.webs:
                group.create_task(self._look(client, web.url))

    async def _mark(self) -> None:
        while True:
            position = self._answered()
            if position and (not self._awaited or self._awaited[-1][1] < position):
                self._awaited.append((time.monotonic(), position))
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, client: httpx.AsyncClient, url: str) -> None:
        while True:
            with suppress(httpx.TransportError):
                answer = await client.get(f"{url}/readyz")
                if answer.status_code == 200:
                    self._held(**answer.json())
            await asyncio.sleep(LOOK_SECONDS)

    def _held(self, *, position: int, lag_events: dict[str, int], **_: object) -> None:
        """Every book has reached a position."""
        reached = position - max(lag_events.values(), default=position)
        while self._awaited and self._awaited[0][1] <= reached:
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - self._awaited.popleft()[0])
