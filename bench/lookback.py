"""How long the books of an earlier position take, when they are asked for first, and near a known one."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from bench import load
from bench.dataset import books_of, ledger_of
from bench.processes import web
from bench.rows import Row, Sizes
from tests.support.ports import free_port

_READ = "/api/v1/mrr?position={}&timeout_ms={}"
_timeouts = count(20_000)  # each request is another one, so no answer to it is kept
_AGAIN_SECONDS = 0.02  # after a 503: the books are being made


def rows(sizes: Sizes, directory: Path) -> Iterator[Row]:
    settings = ledger_of(directory, sizes.events)
    books_of(settings, sizes.events)
    port, first, near = free_port(), sizes.events * 98 // 100, sizes.events * 99 // 100

    def measure() -> list[float]:
        shutil.rmtree(settings.data_dir / "lookback", ignore_errors=True)
        return [asyncio.run(_seconds(port, position)) for position in (first, near, near)]

    with web(port, {"DAYBOOK_DATA_DIR": str(settings.data_dir)}):
        yield Row(
            key="look-back",
            name=f"MRR as it was known {sizes.events - first:,} events before {sizes.events:,}",
            units=("s", "s, half as many before, next", "s, the same again"),
            measure=measure,
        )


async def _seconds(port: int, position: int) -> float:
    """Until the read is answered with 200."""
    streams = await asyncio.open_connection("127.0.0.1", port)
    started, path = time.perf_counter(), _READ.format(position, next(_timeouts))
    while True:
        try:
            await load.get(*streams, path)
            break
        except load.Unavailable:
            await asyncio.sleep(_AGAIN_SECONDS)
    seconds = time.perf_counter() - started
    streams[1].close()
    return seconds
