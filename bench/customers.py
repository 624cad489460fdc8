"""Measures books, customer reads and training with many customers, and how well the predictions hold.

`python -m bench customers`, by environment variables: CUSTOMERS in the ledger (5,000); REQUESTS of each read
(200); BENCH_DATA, a directory that keeps ledgers and books for the next run; BENCH_POSTGRES=1, to measure
on PostgreSQL. Every read is measured beside the same with a tenth of the customers.
"""

import asyncio
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import Struct, json
from sqlalchemy import Connection, delete

from bench import load
from bench.dataset import NOW, BuildResult, build, with_books
from bench.lives import SEED, TODAY, WHALE, WHALE_CURRENCY, Lives, lives
from bench.population import as_history, score_against_truth
from bench.processes import process, wait_ready
from bench.rows import quantile
from service.books import tables
from service.books.store import BookStore
from service.reads.catalog import READS
from service.reads.snapshots import precompute
from service.settings import Settings
from service.settings import load as load_settings
from service.web.app import create_app
from service.web.server import Server, build_config
from service.worker.trainer import train
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer

Row = dict[str, str]

CUSTOMERS = int(os.environ.get("CUSTOMERS", "5000"))
REQUESTS = int(os.environ.get("REQUESTS", "200"))
WARM_UP = 10
MAX_SECONDS = 20.0  # for the requests of one read that is slow; at least so many are made:
MIN_REQUESTS = 20
SAMPLE = 100  # customers of whom one after another is read

_ANALYTICS = "/api/payment/analytics"
LISTS = {
    "customers/top": f"{_ANALYTICS}/customers/top",
    "customers/top, by orders": f"{_ANALYTICS}/customers/top?sort=orders",
    "customers/top, first bought first": f"{_ANALYTICS}/customers/top?sort=first_purchase&order=asc",
    "customers/at-risk": f"{_ANALYTICS}/customers/at-risk",
    "customers/at-risk, only whales": f"{_ANALYTICS}/customers/at-risk?segments=whale",
    "customers/at-risk, churned": f"{_ANALYTICS}/customers/at-risk?stage=churned",
    "cohorts": f"{_ANALYTICS}/cohorts",
    "distribution": f"{_ANALYTICS}/distribution",
    "purchase-frequency": f"{_ANALYTICS}/purchase-frequency",
    "dashboard": f"{_ANALYTICS}/dashboard",
    "metrics": "/api/v1/metrics",
    "mrr, as Stripe counts it": "/api/v1/mrr?policy=stripe",
    "mrr/compare": "/api/v1/mrr/compare",
    "contracts": "/api/v1/contracts",
    "customers/top, half a year ago": f"{_ANALYTICS}/customers/top?today=2025-07-01",
}
CUSTOMER_READS = ("revenue", "forecast", "opportunities")
PRECOMPUTED = [
    name for name, path in LISTS.items() if path in {read.path for read in READS if read.precomputed}
]


class Dataset(Struct, frozen=True, kw_only=True):
    """A ledger with its books, of so many customers."""

    customers: int
    settings: Settings
    built: BuildResult

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables by which another process finds the dataset."""
        url = self.settings.database_url
        return {
            "DAYBOOK_DATA_DIR": str(self.settings.data_dir),
            **({"DAYBOOK_DATABASE_URL": url} if url else {}),
        }


class Latencies(Struct, frozen=True, kw_only=True):
    """The seconds of all requests, sorted."""

    seconds: Sequence[float]

    def ms(self, share: float) -> float:
        return quantile(self.seconds, share) * 1_000


def measure_tables() -> Iterator[tuple[str, list[Row]]]:
    """Every table as (title, rows), each when it is measured."""
    with ExitStack() as stack:
        directory = Path(os.environ.get("BENCH_DATA") or stack.enter_context(TemporaryDirectory()))
        server = stack.enter_context(PostgresServer()) if os.environ.get("BENCH_POSTGRES") else None
        large, small = (_build_dataset(count, directory, server) for count in (CUSTOMERS, CUSTOMERS // 10))
        yield _title("Built, where it was not there yet"), [_build_row(dataset) for dataset in (small, large)]
        yield _title("Learning"), [_training(dataset) for dataset in (small, large)]
        yield _title(f"Reads, {CUSTOMERS:,} customers"), _compare(_reads, large, small)
        yield _title("All that the worker leaves ready"), [_precompute(dataset) for dataset in (small, large)]
        yield _title("Reads that are left ready"), _compare(_precomputed_reads, large, small)
        yield _title("The backtest, over HTTP"), _backtest(large)


def _title(text: str) -> str:
    return f"{text} (load {os.getloadavg()[0]:.1f})"


# The books


def _build_dataset(customers: int, directory: Path, server: PostgresServer | None) -> Dataset:
    data_dir = directory / str(customers)
    data_dir.mkdir(parents=True, exist_ok=True)
    settings = load_settings(data_dir=data_dir, database_url=server and server.new_database())
    return Dataset(
        customers=customers, settings=settings, built=asyncio.run(build(settings, lives(customers)))
    )


def _build_row(dataset: Dataset) -> Row:
    built, data_dir = dataset.built, dataset.settings.data_dir
    sizes = {
        f"{name} MB": f"{path.stat().st_size / 1e6:,.0f}"
        for name in ("ledger", "books")
        if (path := data_dir / f"{name}.db").exists()
    }
    return {
        "what": f"{dataset.customers:,} customers",
        "events": f"{built.events:,}",
        "appended/s": _rate(built.appended, built.append_seconds),
        "folded/s": _rate(built.folded, built.fold_seconds),
        **sizes,
    }


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}" if count else ""


# Reads


@contextmanager
def _serve_dataset(dataset: Dataset) -> Iterator[int]:
    """The port of a web process whose clock stands at `NOW`."""
    port = free_port()
    environment = dataset.environment | {"DAYBOOK_PORT": str(port)}
    with process(["-m", "bench.customers", "serve"], environment):
        wait_ready(port)
        yield port


def _reads(dataset: Dataset) -> dict[str, Latencies]:
    """The latencies of each read, its answer made from rows."""
    with _serve_dataset(dataset) as port:
        return asyncio.run(_ask_all(port, _paths(dataset)))


def _precompute(dataset: Dataset) -> Row:
    started = time.perf_counter()
    count = asyncio.run(with_books(dataset.settings, lambda store: precompute(store, TODAY)))
    seconds = time.perf_counter() - started
    return {
        "what": f"{dataset.customers:,} customers",
        "documents": str(count),
        "seconds": f"{seconds:.1f}",
    }


def _precomputed_reads(dataset: Dataset) -> dict[str, Latencies]:
    """The latencies of the precomputed reads."""
    paths = _paths(dataset)
    with _serve_dataset(dataset) as port:
        return asyncio.run(_ask_all(port, {name: paths[name] for name in PRECOMPUTED}))


def _paths(dataset: Dataset) -> dict[str, list[str]]:
    """The paths requested for each read, in turn."""
    rng = random.Random(SEED)
    customers = [f"cus_{rng.randrange(dataset.customers)}" for _ in range(SAMPLE)]
    of_one = {
        f"customers/…/{name}": [f"{_ANALYTICS}/customers/{customer}/{name}" for customer in customers]
        for name in CUSTOMER_READS
    }
    of_whale = {
        f"customers/(a whale)/{name}": [f"{_ANALYTICS}/customers/{WHALE}/{name}?currency={WHALE_CURRENCY}"]
        for name in CUSTOMER_READS
    }
    lists = {name: [path] for name, path in LISTS.items()}
    return {"healthz": ["/healthz"], **lists, **of_one, **of_whale}


async def _ask_all(port: int, paths: Mapping[str, Sequence[str]]) -> dict[str, Latencies]:
    return {name: await _ask(port, paths_of_read) for name, paths_of_read in paths.items()}


async def _ask(port: int, paths: Sequence[str], requests: int = REQUESTS) -> Latencies:
    """One client, one request after another."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seconds: list[float] = []
    for path in cycle(paths):
        if len(seconds) == WARM_UP + requests or (len(seconds) > MIN_REQUESTS and sum(seconds) > MAX_SECONDS):
            break
        started = time.perf_counter()
        await load.get(reader, writer, path)
        seconds.append(time.perf_counter() - started)
    writer.close()
    return Latencies(seconds=sorted(seconds[WARM_UP:]))


def _compare(measure: Callable[[Dataset], dict[str, Latencies]], large: Dataset, small: Dataset) -> list[Row]:
    """Compare with a tenth of the customers; the ratio is of the medians."""
    large_latencies, small_latencies = measure(large), measure(small)
    return [
        {
            "what": name,
            "requests": str(len(times.seconds)),
            "p50 ms": f"{times.ms(0.5):.1f}",
            "p99 ms": f"{times.ms(0.99):.1f}",
            "a tenth: p50": f"{small_latencies[name].ms(0.5):.1f}",
            "p99": f"{small_latencies[name].ms(0.99):.1f}",
            "ratio": f"{times.ms(0.5) / small_latencies[name].ms(0.5):.2f}",
        }
        for name, times in large_latencies.items()
    ]


# Training


def _training(dataset: Dataset) -> Row:
    """The time and memory of training in its own process, its longest pause, and the reads' latencies."""
    path = [f"{_ANALYTICS}/customers/top?limit=11"]
    with _serve_dataset(dataset) as port:
        before = asyncio.run(_ask(port, path))
        with _child("train", dataset) as child:
            meanwhile = Latencies(seconds=sorted(_while_running(child, port, path)))
            training = json.decode(child.stdout.read())
    return {
        "what": f"{dataset.customers:,} customers",
        "seconds": f"{training['seconds']:.1f}",
        "peak MB": f"{training['peak_mb']:,.0f}",
        "before": f"{training['before_mb']:,.0f}",
        "its loop held, ms": f"{training['held'] * 1_000:,.0f}",
        "top, p50 / p99 ms": f"{before.ms(0.5):.1f} / {before.ms(0.99):.1f}",
        "meanwhile": f"{meanwhile.ms(0.5):.1f} / {meanwhile.ms(0.99):.1f}",
    }


def _while_running(child: Popen[bytes], port: int, path: Sequence[str]) -> list[float]:
    """The latencies of requests made until a process has ended."""
    latencies: list[float] = []
    while child.poll() is None:
        latencies += asyncio.run(_ask(port, path, requests=MIN_REQUESTS)).seconds
    return latencies


@contextmanager
def _child(task: str, dataset: Dataset) -> Iterator[Popen[bytes]]:
    command = [sys.executable, "-m", "bench.customers", task]
    with Popen(command, env={**os.environ, **dataset.environment}, stdout=PIPE) as child:
        yield child


async def _train(store: BookStore) -> dict[str, float]:
    """Train all models again; also the longest time that training kept the event loop waiting."""
    await store.write(_remove_precomputed)
    before, started = _peak_mb(), time.perf_counter()
    ticking = asyncio.create_task(_longest_wait())
    await asyncio.sleep(0)
    await train(store, TODAY)
    seconds, peak = time.perf_counter() - started, _peak_mb()
    ticking.cancel()
    longest_wait = (await asyncio.gather(ticking))[0]
    return {"seconds": seconds, "before_mb": before, "peak_mb": peak, "held": longest_wait}


def _remove_precomputed(connection: Connection) -> None:
    for table in (tables.snapshots, tables.stored_models):
        connection.execute(delete(table))


async def _longest_wait() -> float:
    """The longest time that the event loop kept a task waiting, measured until cancelled."""
    longest, last = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    except asyncio.CancelledError:
        return longest


def _peak_mb() -> float:
    """The peak memory of this process alone; getrusage would start at its parent's peak."""
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(peak.split()[1]) / 1_024


# Predictions


def _backtest(dataset: Dataset) -> list[Row]:
    """The service's backtest, beside the customers who truly left, which only the generator knows."""
    with _serve_dataset(dataset) as port:
        backtest = json.decode(asyncio.run(_body(port, f"{_ANALYTICS}/predictions/backtest")))
    population_lives: Lives = lives(dataset.customers)
    truth = score_against_truth(
        as_history(population_lives.population), population_lives.left_days, TODAY.toordinal(), backtest
    )
    return [
        _prediction_row(kind, backtest["churn"][kind], truth[kind], backtest["revenue"][kind])
        for kind in backtest["churn"]
    ]


def _prediction_row(kind: str, churn: dict[str, Any], truth: dict[str, Any], revenue: dict[str, Any]) -> Row:
    return {
        "what": kind,
        "customers": f"{churn['n']:,}",
        "churned": f"{churn['churned']:,}",
        "foreseen": f"{churn['mean_predicted']:.2%}",
        "Brier": f"{churn['brier']:.5f}",
        "naive": f"{churn['brier_naive']:.5f}",
        "skill": f"{churn['skill']:.1%}",
        "of true churn": f"{truth['brier']:.5f}",
        "naive of it": f"{truth['brier_naive']:.5f}",
        "its skill": f"{truth['skill']:.1%}",
        "MAE": f"{revenue['mae_cents'] / 100:,.2f}",
        "naive MAE": f"{revenue['mae_naive_cents'] / 100:,.2f}",
        "predicted": f"{revenue['predicted_cents'] / revenue['actual_cents']:.3f}",
    }


async def _body(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = await load.get(reader, writer, path)
    writer.close()
    return body


# Processes of their own


def _serve() -> None:
    """Run a web process whose clock stands at `NOW`."""
    settings = load_settings()
    config = build_config(settings)
    config.app = partial(create_app, settings, lambda: NOW)
    Server(config, lambda _: None).run()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve()
    else:
        print(json.encode(asyncio.run(with_books(load_settings(), _train))).decode())
