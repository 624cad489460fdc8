"""A model of many processes: web processes, the turn to append, PostgreSQL, and workers by partition.

Pure and seeded: no clock and no I/O. Its parameters were measured by `costs` and `cluster` in the same run,
or are stated below. It shows the part that would saturate first. Its assumptions are that costs do not grow
with the number of processes, that partitions are equally busy, and that the network takes no time.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Generator, Sequence

from msgspec import Struct

from service.books.tables import PARTITIONS

COMMIT = 256  # deliveries in one commit of a web process, at most: as in service/ledger/writer.py
STEP = 1_000  # events in a step of a worker that is behind: fewer than it may take
_SLICE_SECONDS = 0.001  # how long a process keeps a core that others want
_WAKE_SECONDS = 0.002  # until a message wakes a worker, at most


class CostLine(Struct, frozen=True):
    """Seconds for a batch: a constant part, and a part for each of its events."""

    batch: float
    event: float

    def at(self, size: float) -> float:
        return self.batch + self.event * size


def line_through(sizes: Sequence[int], seconds: Sequence[float]) -> CostLine:
    """The least squares of relative errors: small batches count as much as large ones."""
    weights = [1 / s for s in seconds]
    a, b, c = (sum(w * w * n**power for w, n in zip(weights, sizes, strict=True)) for power in (0, 1, 2))
    d, e = (sum(w * n**power for w, n in zip(weights, sizes, strict=True)) for power in (0, 1))
    per_event = (a * e - b * d) / (a * c - b * b)
    return CostLine(batch=max(0.0, (d - b * per_event) / a), event=max(0.0, per_event))


class Parameters(Struct, frozen=True, kw_only=True):
    """The cost of one event in each part, in seconds of CPU, or of waiting for a disk."""

    web: float  # a webhook: received, verified, translated, answered
    append_web: CostLine  # an append: the web process's share
    append_postgres: CostLine  # and PostgreSQL's
    disk: float  # a commit that waits for the disk
    fold_worker: CostLine  # a worker's transaction over the events in its own partitions
    fold_postgres: CostLine
    pass_over: float  # an event in a partition of another, which it reads all the same
    sender: float = 0.0  # who sends, where it runs on the same machine


class Layout(Struct, frozen=True, kw_only=True):
    """Numbers of processes and cores. Without `shared_cores`, each process and PostgreSQL have their own."""

    webs: int
    workers: int
    postgres_cores: int = 8
    shared_cores: int = 0


class Outcome(Struct, frozen=True, kw_only=True):
    """The outcome of a run: seconds, webhooks a second, and the share of time that each part was busy."""

    throughput: float
    folded: float  # events a second through the books
    latency: Sequence[float]
    lag: Sequence[float]  # from a commit until the books hold it
    busy: dict[str, float]


class Simulation:
    """Time, and tasks that wait: generators that yield seconds to wait, or a `Queue` to be served by."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Task]] = []
        self._number = 0

    def start(self, task: "Task") -> None:
        self.at(self.now, task)

    def at(self, moment: float, task: "Task") -> None:
        self._number += 1
        heapq.heappush(self._events, (moment, self._number, task))

    def run(self, done: Callable[[], bool]) -> None:
        """Until `done`, or nothing is left to happen."""
        while self._events and not done():
            self.now, _, task = heapq.heappop(self._events)
            self._step(task)

    def _step(self, task: "Task") -> None:
        for request in task:
            if isinstance(request, float):
                self.at(self.now + request, task)
                return
            if not request.join(task):
                return


Task = Generator["float | Servers", None, None]


class Servers:
    """A number of servers with one queue, first come, first served."""

    def __init__(self, simulation: Simulation, count: int) -> None:
        self.count = count
        self._simulation = simulation
        self._free = count
        self._waiting: deque[Task] = deque()
        self._busy_seconds = 0.0
        self._since = 0.0

    def join(self, task: Task) -> bool:
        """Whether a server is free for the task; if not, the task continues when one is."""
        if self._free:
            self._account()
            self._free -= 1
            return True
        self._waiting.append(task)
        return False

    def leave(self) -> None:
        """Free a server, for the first waiting task."""
        if self._waiting:
            self._simulation.start(self._waiting.popleft())
        else:
            self._account()
            self._free += 1

    def utilisation(self) -> float:
        """The share of all servers' time, so far, in which they were held."""
        self._account()
        return self._busy_seconds / (self.count * self._simulation.now) if self._simulation.now else 0.0

    def _account(self) -> None:
        self._busy_seconds += (self.count - self._free) * (self._simulation.now - self._since)
        self._since = self._simulation.now


class Cores(Servers):
    """Cores that processes share: the process that has used least goes first, as in the operating system."""

    def __init__(self, simulation: Simulation, count: int) -> None:
        super().__init__(simulation, count)
        self._used_seconds: dict[Servers, float] = {}  # CPU seconds of each process, as the queue counts them
        self._least = 0.0
        self._queue: list[tuple[float, int, Task]] = []
        self._joined = 0
        self.asking: Servers = self  # whose task joins next

    def join(self, task: Task) -> bool:
        used = self._used_seconds[self.asking] = max(self._used_seconds.get(self.asking, 0.0), self._least)
        if super().join(task):
            return True
        self._waiting.pop()
        self._joined += 1
        heapq.heappush(self._queue, (used, self._joined, task))
        return False

    def leave(self) -> None:
        if self._queue:
            self._least, _, task = heapq.heappop(self._queue)
            self._waiting.append(task)
        super().leave()

    def spend(self, process: Servers, seconds: float) -> None:
        self._used_seconds[process] = self._used_seconds.get(process, 0.0) + seconds


def capacities(parameters: Parameters, layout: Layout) -> dict[str, float]:
    """The events a second that each part can process alone, in full batches; the lowest is the limit."""
    p, share = parameters, 1 / max(1, layout.workers)
    append_web, append_postgres = (line.at(COMMIT) / COMMIT for line in (p.append_web, p.append_postgres))
    fold = p.fold_worker.at(STEP * share) / STEP + p.pass_over * (1 - share)
    fold_postgres = p.fold_postgres.at(STEP * share) / STEP
    postgres = append_postgres + layout.workers * fold_postgres
    rates = {
        "web": layout.webs / (p.web + append_web),
        "turn": 1 / (append_web + append_postgres + p.disk / COMMIT),
        "PostgreSQL": layout.postgres_cores / postgres,
    }
    if layout.workers:
        rates["worker"] = 1 / (fold + fold_postgres)
    if layout.shared_cores:
        cpu = p.sender + p.web + append_web + postgres + layout.workers * fold
        rates["cores"] = layout.shared_cores / cpu
    return rates


def simulate(
    parameters: Parameters,
    layout: Layout,
    *,
    per_second: float = 0.0,
    connections: int = 0,
    count: int = 5_000,
    seed: int = 1,
) -> Outcome:
    """Simulate webhooks that arrive at random, `per_second`, or over connections that each wait for a 200."""
    return _Run(parameters, layout, seed).outcome(per_second, connections, count)


class _Run:
    def __init__(self, parameters: Parameters, layout: Layout, seed: int) -> None:
        self._p = parameters
        self._chance = random.Random(seed)
        self._simulation = simulation = Simulation()
        self._shared = Cores(simulation, layout.shared_cores) if layout.shared_cores else None
        self._postgres = Servers(simulation, layout.postgres_cores)
        self._turn = Servers(simulation, 1)
        self._senders = Servers(simulation, 1)
        self._webs = [Servers(simulation, 1) for _ in range(layout.webs)]
        self._queues: list[deque[tuple[float, Servers]]] = [deque() for _ in range(layout.webs)]
        self._writing = [False] * layout.webs
        self._workers = [Servers(simulation, 1) for _ in range(layout.workers)]
        self._commits: list[float] = []  # when each event was committed, by position
        self._folded = [0] * layout.workers
        self._lag: list[float] = []
        self._latency: list[float] = []
        self._arrived = 0

    def outcome(self, per_second: float, connections: int, count: int) -> Outcome:
        if connections:
            for n in range(connections):
                self._simulation.start(self._connection(n % len(self._webs), count))
        else:
            self._simulation.start(self._arrivals(per_second, count))
        for n in range(len(self._workers)):
            self._simulation.start(self._work(n, count))
        self._simulation.run(lambda: len(self._latency) >= count)
        seconds, folded, busy = self._simulation.now, min(self._folded, default=0), self._busy()
        self._simulation.run(lambda: min(self._folded, default=count) >= count)
        return Outcome(
            throughput=count / seconds,
            folded=folded / seconds,
            latency=sorted(self._latency),
            lag=sorted(self._lag),
            busy=busy,
        )

    def _busy(self) -> dict[str, float]:
        busy = {
            "web": max(server.utilisation() for server in self._webs),
            "turn": self._turn.utilisation(),
            "PostgreSQL": self._postgres.utilisation(),
        }
        if self._workers:
            busy["worker"] = max(server.utilisation() for server in self._workers)
        if self._shared:
            busy["cores"] = self._shared.utilisation()
        return busy

    # Who sends

    def _arrivals(self, per_second: float, count: int) -> Task:
        for n in range(count):
            yield self._chance.expovariate(per_second)
            self._simulation.start(self._webhook(n % len(self._webs)))

    def _connection(self, web: int, count: int) -> Task:
        while self._arrived < count:
            self._arrived += 1
            yield from self._webhook(web)

    # What a webhook is

    def _webhook(self, web: int) -> Task:
        if self._p.sender:
            yield from self._compute(self._senders, self._p.sender)
        arrived_at = self._simulation.now
        yield from self._compute(self._webs[web], self._p.web)
        committed = Servers(self._simulation, 1)
        committed.join(_nobody())  # held until it is committed
        self._queues[web].append((arrived_at, committed))
        if not self._writing[web]:
            self._writing[web] = True
            self._simulation.start(self._write(web))
        yield committed
        self._latency.append(self._simulation.now - arrived_at)

    def _write(self, web: int) -> Task:
        """A web process's writer: group commit, one turn at a time."""
        queue = self._queues[web]
        while queue:
            batch = [queue.popleft() for _ in range(min(COMMIT, len(queue)))]
            yield self._turn
            yield from self._compute(self._webs[web], self._p.append_web.at(len(batch)))
            yield from self._compute(self._postgres, self._p.append_postgres.at(len(batch)))
            yield self._p.disk
            self._commits += [self._simulation.now] * len(batch)
            self._turn.leave()
            for _, committed in batch:
                committed.leave()
        self._writing[web] = False

    # What a worker does

    def _work(self, worker: int, count: int) -> Task:
        """Fold the new events in the worker's share of the partitions; read the others only."""
        share = len(range(worker, PARTITIONS, len(self._workers))) / PARTITIONS
        while self._folded[worker] < count:
            new = min(STEP, len(self._commits) - self._folded[worker])
            if not new:
                yield self._chance.uniform(0.0, _WAKE_SECONDS)
                continue
            cost = self._p.fold_worker.at(new * share) + self._p.pass_over * new * (1 - share)
            yield from self._compute(self._workers[worker], cost)
            yield from self._compute(self._postgres, self._p.fold_postgres.at(new * share))
            start = self._folded[worker]
            self._folded[worker] += new
            if worker == 0:
                self._lag += [self._simulation.now - at for at in self._commits[start : start + new]]

    def _compute(self, servers: Servers, seconds: float) -> Task:
        """Keep a process busy, and a shared core, if any: in slices, as the system schedules them."""
        yield servers
        if self._shared is None:
            yield seconds
        else:
            for piece in _slices(seconds):
                self._shared.asking = servers
                yield self._shared
                yield piece
                self._shared.spend(servers, piece)
                self._shared.leave()
        servers.leave()


def _slices(seconds: float) -> list[float]:
    whole = int(seconds / _SLICE_SECONDS)
    return [_SLICE_SECONDS] * whole + [seconds - whole * _SLICE_SECONDS]


def _nobody() -> Task:
    yield 0.0
