"""What many customers cost: books, reads about customers, learning; and how well what is learnt foresees.

`python -m bench customers`, by environment variables: CUSTOMERS in the ledger (5,000); REQUESTS of each read
(200); BENCH_DATA, a directory that keeps ledgers and books to be measured again; BENCH_POSTGRES=1, to measure
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
from bench.cluster import process, quantile, wait_ready
from bench.kept import Built, FromEmpty, append, build, on_books, sets_of_books
from bench.ledgers import NOW
from bench.lives import SEED, TODAY, WHALE, WHALE_CURRENCY, Lives, events, lives
from bench.population import against_truth, as_history
from service.books import tables
from service.books.store import BookStore
from service.bootstrap import open_ledger, prepare
from service.reads.catalog import READS
from service.reads.snapshots import make_ready
from service.settings import Settings
from service.settings import load as load_settings
from service.web.app import create_app
from service.web.server import Server, configured
from service.worker.trainer import train
from tests.ports import free_port
from tests.postgres import PostgresServer

Row = dict[str, str]

CUSTOMERS = int(os.environ.get("CUSTOMERS", "5000"))
REQUESTS = int(os.environ.get("REQUESTS", "200"))
ENGINE_EVENTS = min(50_000, 4 * CUSTOMERS)
WARM_UP = 10
PATIENCE_SECONDS = 20.0  # for the requests of one read that is slow; at least so many are made:
LEAST = 20
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
OF_ONE = ("revenue", "forecast", "opportunities")
LEFT_READY = [name for name, path in LISTS.items() if path in {read.path for read in READS if read.standing}]


class Place(Struct, frozen=True, kw_only=True):
    """So many customers, and where their ledger and books are."""

    customers: int
    settings: Settings
    built: Built

    @property
    def environment(self) -> dict[str, str]:
        """What tells another process where that is."""
        url = self.settings.database_url
        return {
            "DAYBOOK_DATA_DIR": str(self.settings.data_dir),
            **({"DAYBOOK_DATABASE_URL": url} if url else {}),
        }


class Times(Struct, frozen=True, kw_only=True):
    """How long each request took, in order of that."""

    each: Sequence[float]

    def ms(self, share: float) -> float:
        return quantile(self.each, share) * 1_000


def measured() -> Iterator[tuple[str, list[Row]]]:
    """Every table as (title, rows), each when it is measured."""
    with ExitStack() as stack:
        directory = Path(os.environ.get("BENCH_DATA") or stack.enter_context(TemporaryDirectory()))
        server = stack.enter_context(PostgresServer()) if os.environ.get("BENCH_POSTGRES") else None
        if not server:
            yield _title(f"Books of customers, {ENGINE_EVENTS:,} events"), asyncio.run(_engine())
        large, small = (_place(count, directory, server) for count in (CUSTOMERS, CUSTOMERS // 10))
        yield _title("Built, where it was not there yet"), [_built(place) for place in (small, large)]
        yield _title("Learning"), [_learning(place) for place in (small, large)]
        yield _title(f"Reads, {CUSTOMERS:,} customers"), _beside(_reads, large, small)
        yield _title("All that the worker leaves ready"), [_leave_ready(place) for place in (small, large)]
        yield _title("Reads that are left ready"), _beside(_ready_reads, large, small)
        yield _title("The backtest, over HTTP"), _backtest(large)


def _title(text: str) -> str:
    return f"{text} (load {os.getloadavg()[0]:.1f})"


# The books


async def _engine() -> list[Row]:
    """Events a second into empty books, by which books there are."""
    with TemporaryDirectory() as directory:
        settings = load_settings(data_dir=Path(directory))
        prepare(settings)
        ledger = open_ledger(settings)
        of = lives(ENGINE_EVENTS // 20)
        count = await append(ledger, events(of))
        emptied = FromEmpty(settings=settings, ledger=ledger)
        found = {name: await emptied.rate(books, count) for name, books in sets_of_books(settings)}
        await ledger.close()
    base = next(iter(found.values()))
    return [
        {"what": name, "events/s": f"{rate:,.0f}", "ratio": f"{rate / base:.2f}"}
        for name, rate in found.items()
    ]


def _place(customers: int, directory: Path, server: PostgresServer | None) -> Place:
    data_dir = directory / str(customers)
    data_dir.mkdir(parents=True, exist_ok=True)
    settings = load_settings(data_dir=data_dir, database_url=server and server.new_database())
    return Place(customers=customers, settings=settings, built=asyncio.run(build(settings, lives(customers))))


def _built(place: Place) -> Row:
    built, data_dir = place.built, place.settings.data_dir
    sizes = {
        f"{name} MB": f"{path.stat().st_size / 1e6:,.0f}"
        for name in ("ledger", "books")
        if (path := data_dir / f"{name}.db").exists()
    }
    return {
        "what": f"{place.customers:,} customers",
        "events": f"{built.events:,}",
        "appended/s": _rate(built.appended, built.append_seconds),
        "folded/s": _rate(built.folded, built.fold_seconds),
        **sizes,
    }


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}" if count else ""


# Reads


@contextmanager
def _served(place: Place) -> Iterator[int]:
    """The port of a web process to which it is `NOW`."""
    port = free_port()
    environment = place.environment | {"DAYBOOK_PORT": str(port)}
    with process(["-m", "bench.customers", "serve"], environment):
        wait_ready(port)
        yield port


def _reads(place: Place) -> dict[str, Times]:
    """Each read's times, its answer made of the rows."""
    with _served(place) as port:
        return asyncio.run(_ask_all(port, _paths(place)))


def _leave_ready(place: Place) -> Row:
    started = time.perf_counter()
    count = asyncio.run(on_books(place.settings, lambda store: make_ready(store, TODAY)))
    seconds = time.perf_counter() - started
    return {
        "what": f"{place.customers:,} customers",
        "documents": str(count),
        "seconds": f"{seconds:.1f}",
    }


def _ready_reads(place: Place) -> dict[str, Times]:
    """The times of those that are left ready."""
    paths = _paths(place)
    with _served(place) as port:
        return asyncio.run(_ask_all(port, {name: paths[name] for name in LEFT_READY}))


def _paths(place: Place) -> dict[str, list[str]]:
    """What is asked for each read, in turn."""
    chance = random.Random(SEED)
    some = [f"cus_{chance.randrange(place.customers)}" for _ in range(SAMPLE)]
    of_one = {
        f"customers/…/{name}": [f"{_ANALYTICS}/customers/{customer}/{name}" for customer in some]
        for name in OF_ONE
    }
    of_whale = {
        f"customers/(a whale)/{name}": [f"{_ANALYTICS}/customers/{WHALE}/{name}?currency={WHALE_CURRENCY}"]
        for name in OF_ONE
    }
    lists = {name: [path] for name, path in LISTS.items()}
    return {"healthz": ["/healthz"], **lists, **of_one, **of_whale}


async def _ask_all(port: int, paths: Mapping[str, Sequence[str]]) -> dict[str, Times]:
    return {name: await _ask(port, asked) for name, asked in paths.items()}


async def _ask(port: int, paths: Sequence[str], requests: int = REQUESTS) -> Times:
    """One client, one request after another."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    each: list[float] = []
    for path in cycle(paths):
        if len(each) == WARM_UP + requests or (len(each) > LEAST and sum(each) > PATIENCE_SECONDS):
            break
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        started = time.perf_counter()
        await load.ask(reader, writer, request)
        each.append(time.perf_counter() - started)
    writer.close()
    return Times(each=sorted(each[WARM_UP:]))


def _beside(measure: Callable[[Place], dict[str, Times]], large: Place, small: Place) -> list[Row]:
    """Beside the same with a tenth of the customers: the ratio is of the medians."""
    found, tenth = measure(large), measure(small)
    return [
        {
            "what": name,
            "requests": str(len(times.each)),
            "p50 ms": f"{times.ms(0.5):.1f}",
            "p99 ms": f"{times.ms(0.99):.1f}",
            "a tenth: p50": f"{tenth[name].ms(0.5):.1f}",
            "p99": f"{tenth[name].ms(0.99):.1f}",
            "ratio": f"{times.ms(0.5) / tenth[name].ms(0.5):.2f}",
        }
        for name, times in found.items()
    ]


# Learning


def _learning(place: Place) -> Row:
    """What learning takes in a process of its own, how long nothing else ran in it, and what reads took."""
    path = [f"{_ANALYTICS}/customers/top?limit=11"]
    with _served(place) as port:
        before = asyncio.run(_ask(port, path))
        with _child("learn", place) as child:
            meanwhile = Times(each=sorted(_while_running(child, port, path)))
            learnt = json.decode(child.stdout.read())
    return {
        "what": f"{place.customers:,} customers",
        "seconds": f"{learnt['seconds']:.1f}",
        "peak MB": f"{learnt['peak_mb']:,.0f}",
        "before": f"{learnt['before_mb']:,.0f}",
        "its loop held, ms": f"{learnt['held'] * 1_000:,.0f}",
        "top, p50 / p99 ms": f"{before.ms(0.5):.1f} / {before.ms(0.99):.1f}",
        "meanwhile": f"{meanwhile.ms(0.5):.1f} / {meanwhile.ms(0.99):.1f}",
    }


def _while_running(child: Popen[bytes], port: int, path: Sequence[str]) -> list[float]:
    """The times of requests that are made until a process has ended."""
    found: list[float] = []
    while child.poll() is None:
        found += asyncio.run(_ask(port, path, requests=LEAST)).each
    return found


@contextmanager
def _child(task: str, place: Place) -> Iterator[Popen[bytes]]:
    command = [sys.executable, "-m", "bench.customers", task]
    with Popen(command, env={**os.environ, **place.environment}, stdout=PIPE) as child:
        yield child


async def _learn(store: BookStore) -> dict[str, float]:
    """Everything learnt anew; how long the event loop waited for it at most."""
    await store.write(_forget)
    before, started = _peak_mb(), time.perf_counter()
    ticking = asyncio.create_task(_longest_wait())
    await asyncio.sleep(0)
    await train(store, TODAY)
    seconds, peak = time.perf_counter() - started, _peak_mb()
    ticking.cancel()
    held = (await asyncio.gather(ticking))[0]
    return {"seconds": seconds, "before_mb": before, "peak_mb": peak, "held": held}


def _forget(connection: Connection) -> None:
    for table in (tables.snapshots, tables.stored_models):
        connection.execute(delete(table))


async def _longest_wait() -> float:
    """How long the event loop let a task wait at most, until that is cancelled."""
    longest, last = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    except asyncio.CancelledError:
        return longest


def _peak_mb() -> float:
    """Of this process alone: what getrusage tells begins with that of the process that started it."""
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(peak.split()[1]) / 1_024


# What is learnt


def _backtest(place: Place) -> list[Row]:
    """What the service says, beside who truly left: which only whoever made these lives can know."""
    with _served(place) as port:
        told = json.decode(asyncio.run(_body(port, f"{_ANALYTICS}/predictions/backtest")))
    of: Lives = lives(place.customers)
    truth = against_truth(as_history(of.seen), of.left, TODAY.toordinal(), told)
    return [
        _foresight(kind, told["churn"][kind], truth[kind], told["revenue"][kind]) for kind in told["churn"]
    ]


def _foresight(kind: str, churn: dict[str, Any], truth: dict[str, Any], revenue: dict[str, Any]) -> Row:
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
    body = await load.ask(reader, writer, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    writer.close()
    return body


# Processes of their own


def _serve() -> None:
    """A web process to which it is always `NOW`."""
    settings = load_settings()
    config = configured(settings)
    config.app = partial(create_app, settings, lambda: NOW)
    Server(config, lambda _: None).run()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve()
    else:
        print(json.encode(asyncio.run(on_books(load_settings(), _learn))).decode())
