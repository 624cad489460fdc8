"""A rebuild beside live books, under a steady load of webhooks and of reads that wait for them.

`python -m bench live-rebuild`, by environment variables: EVENTS in the ledger (100,000), and BENCH_DATA, a
directory that keeps the ledger to be measured again.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import json

from bench.dataset import books_of, ledger_of
from bench.freshness import Load, daybook, with_load
from bench.rows import FULL, quantile
from service.rebuild.cutover import RebuildResult
from service.settings import Settings

Row = dict[str, str]

RATE = 20  # webhooks a second, each read back
BEFORE_SECONDS = 15.0


def measure_tables() -> Iterator[tuple[str, list[Row]]]:
    """One table: the clients' latencies before and meanwhile."""
    with TemporaryDirectory() as directory:
        settings = ledger_of(Path(os.environ.get("BENCH_DATA") or directory), FULL.events)
        books_of(settings, FULL.events)
        with daybook(settings.data_dir) as port:
            rebuild, seconds, loads = asyncio.run(_under_load(port, settings))
    equal = all(book.digest == book.live_digest for book in rebuild.books)
    yield (
        f"A rebuild of {rebuild.position:,} events: {rebuild.position / seconds:,.0f} a second "
        f"(digests {'equal' if equal else 'DIFFERENT'}, live: {rebuild.live})",
        [_row(label, load_) for label, load_ in loads.items()],
    )


async def _under_load(port: int, settings: Settings) -> tuple[RebuildResult, float, dict[str, Load]]:
    """The rebuild, its seconds, and the clients' loads."""
    loads = {"before": Load(), "meanwhile": Load()}
    await with_load(port, loads["before"], asyncio.sleep(BEFORE_SECONDS), RATE)
    started = time.perf_counter()
    rebuild = await with_load(port, loads["meanwhile"], asyncio.to_thread(_rebuild, settings), RATE)
    return json.decode(rebuild, type=RebuildResult), time.perf_counter() - started, loads


def _rebuild(settings: Settings) -> bytes:
    environment = {**os.environ, "DAYBOOK_DATA_DIR": str(settings.data_dir)}
    command = [sys.executable, "-m", "service.cli", "rebuild", "--json"]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout


def _row(label: str, load_: Load) -> Row:
    read, posted = sorted(load_.read), sorted(load_.posted)
    return {
        "what": label,
        "webhooks": f"{len(posted):,}",
        "webhook p99 ms": f"{quantile(posted, 0.99) * 1_000:.0f}",
        "read p50 ms": f"{quantile(read, 0.5) * 1_000:.0f}",
        "read p99 ms": f"{quantile(read, 0.99) * 1_000:.0f}",
        "longest": f"{read[-1] * 1_000:.0f}",
        "not answered": str(len(load_.failed)),
    }
