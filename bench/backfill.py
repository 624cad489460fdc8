"""Objects a second that a backfill records, against reading the same lists alone; and its memory."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from msgspec import Struct, json
from msgspec.structs import replace

from bench.stripe_lists import LISTS
from handlers import stripe
from service.bootstrap import open_ledger, prepare
from service.clock import utc_now
from service.core.progress import no_progress
from service.ledger.store import Ledger
from service.settings import Settings, load
from service.sync.backfill.reader import AccountReader
from service.sync.backfill.session import Session
from service.sync.client import ApiClient
from tests.support.ports import free_port

COUNT = int(os.environ.get("OBJECTS", "10000"))  # of each list
PACES = {"as fast as it answers": 1_000_000, "at Stripe's limit": stripe.API.requests_per_second}
WORK = {"read": "the lists read alone", "fill": "a backfill of them"}
_START_SECONDS = 30.0


class Result(Struct, frozen=True, kw_only=True):
    """The duration, the CPU time in it, and the peak memory of the process, in MB."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def measure_tables() -> Iterator[tuple[str, Sequence[dict[str, str]]]]:
    """Reading alone and backfills in turns, the best of three; then the memory of a tenth of the objects.

    The stand-in costs next to nothing; no processor answers as fast. So it is also asked at Stripe's limit.
    """
    count, best = COUNT * len(LISTS), dict[tuple[str, str], Result]()
    with _stand_in(COUNT) as url:
        for kind in [(pace, work) for pace in PACES for work in WORK] * 3:
            result = _run(url, *kind)
            best[kind] = min(best.get(kind, result), result, key=lambda each: each.seconds)
    rows = [
        _row(f"{WORK[work]}, {pace}", count, result, best[pace, "read"])
        for (pace, work), result in best.items()
    ]
    with _stand_in(COUNT // 10) as url:
        small = _run(url, "as fast as it answers", "fill")
    rows.append(_row("a backfill of a tenth", count // 10, small, small))
    yield f"Backfill of {count:,} objects", rows


def _row(what: str, count: int, result: Result, base: Result) -> dict[str, str]:
    return {
        "what": what,
        "objects/s": f"{count / result.seconds:,.0f}",
        "ratio": f"{base.seconds / result.seconds:.2f}",
        "CPU us/object": f"{result.cpu_seconds / count * 1_000_000:,.0f}",
        "peak MB": f"{result.peak_mb:,.0f}",
    }


def _run(url: str, pace: str, work: str) -> Result:
    """A measurement in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        ran = subprocess.run(
            [sys.executable, "-m", "bench.backfill", url, pace, work, directory],
            check=True,
            stdout=subprocess.PIPE,
        )
    return json.decode(ran.stdout, type=Result)


@contextmanager
def _stand_in(count: int) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.stripe_lists", str(count), str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait(url: str) -> None:
    ends = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx.get(f"{url}/v1/refunds")
        except httpx.TransportError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)
        else:
            return


# In the process that is measured


async def _measure(url: str, pace: str, work: str, directory: str) -> Result:
    api = replace(stripe.API, requests_per_second=PACES[pace])
    client = ApiClient(api, {"stripe_api_key": "sk_live_bench", "stripe_api_url": url})
    settings = load(data_dir=directory)
    prepare(settings)
    ledger = open_ledger(settings)
    started, cpu_started = time.perf_counter(), time.process_time()
    if work == "read":
        for listed in api.history:
            async for _ in client.pages(listed.listed("", None)):
                pass
    else:
        await _fill(client, settings, ledger)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    await client.close()
    await ledger.close()
    return Result(seconds=seconds, cpu_seconds=cpu_seconds, peak_mb=_peak_mb())


async def _fill(client: ApiClient, settings: Settings, ledger: Ledger) -> None:
    session = Session(
        processor=stripe.PROCESSOR,
        client=client,
        account="",
        ledger=ledger,
        clock=utc_now,
        mode_of=settings.mode_of,
        show_progress=no_progress,
        dry_run=False,
    )
    await AccountReader(session).read(None)


def _peak_mb() -> float:
    """The peak memory of this process alone; getrusage would start at its parent's peak."""
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(peak.split()[1]) / 1024


if __name__ == "__main__":
    print(json.encode(asyncio.run(_measure(*sys.argv[1:]))).decode())
