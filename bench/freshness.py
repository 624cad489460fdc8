"""How soon a webhook that is answered is in a read that waits for it, under a steady load."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

from msgspec import Struct, json

from bench import load
from bench.processes import process, web
from bench.rows import Row, Sizes, quantile
from tests.support.ports import free_port
from tests.support.valkey import ValkeyServer

T = TypeVar("T")

RATES = (20, 200)  # webhooks a second
_READ_PATH = "/api/v1/mrr?at_least={}&timeout_ms=20000"
_numbers = count(10**8)  # of events, beyond those of any ledger


class Load(Struct):
    """The seconds of each webhook and read, and the errors of those not answered with 200."""

    posted: list[float] = []
    read: list[float] = []
    failed: list[str] = []


def rows(sizes: Sizes, directory: Path) -> Iterator[Row]:
    with daybook(directory / "freshness") as port:
        for rate in RATES:
            yield Row(
                key=f"readable at {rate}",
                name=f"from a webhook's 200 to its figure in a read, at {rate} a second",
                units=("ms, p50", "ms, p99", "ms, p99 of the webhook", "not answered"),
                measure=lambda rate=rate: _measure(port, rate, sizes.load_seconds),
            )


@contextmanager
def daybook(directory: Path, settings: dict[str, str] | None = None) -> Iterator[int]:
    """The port of a Daybook with one web process and one worker on this directory."""
    with ExitStack() as stack:
        valkey = ValkeyServer(data_dir=directory / "valkey")
        stack.callback(valkey.terminate)
        valkey.start()
        port = free_port()
        environment = {
            "DAYBOOK_DATA_DIR": str(directory),
            "DAYBOOK_REDIS_URL": valkey.connection_url,
            "DAYBOOK_STRIPE_WEBHOOK_SECRETS": load.SECRET,
            **(settings or {}),
        }
        stack.enter_context(web(port, environment))
        stack.enter_context(process(["-m", "service.cli", "worker"], environment))
        yield port


def _measure(port: int, rate: float, seconds: float) -> tuple[float, ...]:
    asyncio.run(with_load(port, Load(), asyncio.sleep(2), rate))  # until the worker has started
    done = Load()
    asyncio.run(with_load(port, done, asyncio.sleep(seconds), rate))
    read, posted = sorted(done.read), sorted(done.posted)
    return (
        quantile(read, 0.5) * 1e3,
        quantile(read, 0.99) * 1e3,
        quantile(posted, 0.99) * 1e3,
        len(done.failed),
    )


async def with_load(port: int, load_: Load, work: Awaitable[T], rate: float) -> T:
    """The result of `work`; until then, send webhooks at a steady rate, each read back once it is answered.

    A slow webhook delays no other: each is sent when it is due, on a free connection.
    """
    ended = asyncio.ensure_future(work)
    clients = _Clients(port, load_)
    requests = set()
    due = time.perf_counter()
    while not ended.done():
        requests.add(asyncio.create_task(clients.post_and_read(next(_numbers))))
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    await asyncio.gather(*requests)
    clients.close()
    return await ended


class _Clients:
    """Connections, as many as are needed at the same time."""

    def __init__(self, port: int, into: Load) -> None:
        self._port = port
        self._into = into
        self._free: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()

    async def post_and_read(self, number: int) -> None:
        # The connection that was idle longest, since the server closes idle ones after some seconds.
        streams = (
            self._free.popleft() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        )
        try:
            started = time.perf_counter()
            answer = await load.ask(*streams, load.requests(1, first=number)[0])
            self._into.posted.append(time.perf_counter() - started)
            position = json.decode(answer)["position"]
            started = time.perf_counter()
            body = await load.get(*streams, _READ_PATH.format(position))
            self._into.read.append(time.perf_counter() - started)
            if json.decode(body)["meta"]["position"] < position:
                self._into.failed.append(f"{position} is not in the answer")
        except (load.Unavailable, RuntimeError, OSError, EOFError) as error:
            self._into.failed.append(repr(error))
            streams[1].close()
        else:
            self._free.append(streams)
