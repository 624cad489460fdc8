"""The storm: everything goes wrong at once, and nothing that was answered is lost, doubled or miscounted.

`make storm SECONDS=600 RUNS=5 SEED=7` runs it longer, more often, and again as it was.
"""

import asyncio
import os
import random
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.storm import checks
from tests.storm.chaos import Chaos, Watch
from tests.storm.cluster import STOPPED, Cluster
from tests.storm.senders import Senders
from tests.storm.traffic import SETTINGS, Traffic
from tests.support.effort import ON_CI
from tests.support.waiting import PATIENCE_SECONDS

SECONDS = float(os.environ.get("STORM_SECONDS") or (25 if ON_CI else 12))
RUNS = int(os.environ.get("STORM_RUNS") or 1)
SEED = int(os.environ.get("STORM_SEED") or random.randrange(1_000_000))
PER_SECOND = float(os.environ.get("STORM_PER_SECOND") or 100)
DATABASE = os.environ.get("STORM_DATABASE") or "postgresql"
SIZES = {"postgresql": {"webs": 3, "workers": 4}, "sqlite": {"webs": 2, "workers": 1}}[DATABASE]


@pytest.mark.timeout(SECONDS + 1_200)
@pytest.mark.parametrize("run", range(RUNS))
async def test_a_storm_loses_and_doubles_nothing(run: int) -> None:
    seed = SEED + run
    directory = Path(mkdtemp(prefix="daybook-storm-"))
    say(f"storm of {SECONDS:.0f} s on {DATABASE}: SEED={seed}, logs in {directory} if it fails")

    # given web processes, workers and what they need, and random deliveries to all of them
    with Cluster(directory, database=DATABASE, **SIZES, **SETTINGS) as cluster:
        traffic = Traffic(seed)
        senders = Senders(traffic, [web.url for web in cluster.webs], seed, PER_SECOND)
        chaos, watch = Chaos(cluster, seed), Watch(cluster, lambda: senders.highest)
        sending = asyncio.create_task(senders.run())
        watching = [asyncio.create_task(task) for task in (watch.run(), chaos.keep())]

        # when everything goes wrong for a while, and then nothing any more
        await chaos.run(SECONDS)
        calm_since = time.monotonic()
        senders.stop()
        await asyncio.wait({sending}, timeout=PATIENCE_SECONDS)
        assert sending.done(), f"deliveries are still refused, see {directory}: {chaos.faults[-3:]}"
        await sending
        await asyncio.to_thread(cluster.wait_caught_up)
        recovered_seconds = time.monotonic() - calm_since
        await ended(watching)

        # then the ledger holds each answered event once, and the books are those of a calm day
        ledger = await asyncio.to_thread(checks.read_ledger, cluster.webs[0].url)
        faults = [*checks.wrong_answers(ledger, senders.answers), *senders.odd, *chaos.faults]
        assert await asyncio.to_thread(checks.verified, cluster) == await checks.books_of(traffic.sent)
        assert set(cluster.stop().values()) <= STOPPED

    # and nobody is left, and nobody said what nobody should say
    assert cluster.left_over() == []
    for member in cluster.members:
        faults += [f"{member}: {words}" for words in checks.odd_words(member.log)]
    say(
        f"{len(ledger)} events, answered {sum(map(len, senders.answers.values()))} times",
        f"attempts: {counted(senders.statuses)}",
        f"blows: {counted(chaos.blows)}",
        f"an event waited for the books at most {watch.longest_seconds:.1f} s",
        f"a process that was told to stop took at most {chaos.slowest_stop_seconds:.1f} s",
        f"when all was calm the books had caught up within {recovered_seconds:.1f} s",
    )
    if faults:
        pytest.fail("\n".join(fault[:1_000] for fault in faults), pytrace=False)
    shutil.rmtree(directory)


async def ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks that run for ever. Raises what ended one of them before."""
    for task in tasks:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


def say(*lines: str) -> None:
    print("", *lines, sep="\n  ")  # noqa: T201 - the seed and the figures are for people


def counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda each: -each[1]))
