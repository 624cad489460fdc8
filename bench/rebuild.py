"""A rebuild of all books, and a verification of everything, beside reading the same events."""

import asyncio
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.dataset import empty_books, ledger_of
from bench.processes import run_and_watch
from bench.rows import Row, Sizes
from service.books.engine import BATCH
from service.bootstrap import open_ledger
from service.ledger.append import read_head
from service.ledger.history import read_events
from service.rebuild.fill import fill_books
from service.settings import Settings, load
from service.verify import verify_all

READ = "the same events read and decoded, by one process"


def rows(sizes: Sizes, directory: Path) -> Iterator[Row]:
    settings = ledger_of(directory, sizes.events)
    for work, name in (("rebuild", "a rebuild of all books"), ("verify", "`verify` of everything")):
        yield Row(
            key=work,
            name=f"{name}, {sizes.events:,} events",
            units=("events/s", "MB at its peak (RSS)"),
            measure=partial(_run, work, settings, sizes.events),
            baseline=partial(_run, "read", settings, sizes.events),
            against=READ,
        )


def _run(work: str, settings: Settings, count: int) -> tuple[float, float]:
    """Events a second, and the highest memory, of a process of its own with all that it starts."""
    printed, peak = run_and_watch(["-m", "bench.rebuild", work, str(settings.data_dir)])
    return count / float(printed), peak


# In the process that is measured


async def _measure(work: str, settings: Settings) -> float:
    """The seconds."""
    ledger = open_ledger(settings)
    end = (await ledger.read(read_head)).position
    store = await empty_books(settings) if work == "rebuild" else None
    started = time.perf_counter()
    if store:
        await fill_books(settings, ledger, store, end)
    elif work == "verify":
        await verify_all(settings)
    else:
        for position in range(0, end, BATCH):
            await ledger.read(partial(read_events, position=position, limit=BATCH))
    seconds = time.perf_counter() - started
    if store:
        await store.close()
    await ledger.close()
    return seconds


if __name__ == "__main__":
    print(asyncio.run(_measure(sys.argv[1], load(data_dir=Path(sys.argv[2])))))
