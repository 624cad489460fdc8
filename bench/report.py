"""The tables of PostgreSQL and of many processes: measured, what an event costs, and what the model says."""

import asyncio
import os
from collections.abc import Iterator
from statistics import fmean

from msgspec.structs import replace

from bench import cluster, costs
from bench.cluster import CASES, Measured, Phase, quantile
from bench.costs import Costs, Spent
from bench.scale import COMMIT, Layout, Parameters, capacities, simulate
from service.books.tables import PARTITIONS
from tests.support.postgres import PostgresServer

Row = dict[str, str]
Tables = Iterator[tuple[str, list[Row]]]

EVENTS_A_DAY = 100_000  # today's load: of a merchant with some ten thousand subscriptions, on the busiest day
PEAK = 10  # the busiest minutes against that day's mean
TODAY = EVENTS_A_DAY / 86_400 * PEAK
LAYOUTS = {  # who would run it so, by how many times today's load
    1: Layout(webs=1, workers=1, postgres_cores=2),
    10: Layout(webs=1, workers=1, postgres_cores=2),
    100: Layout(webs=2, workers=2, postgres_cores=4),
    1_000: Layout(webs=8, workers=8, postgres_cores=16),
}


def tables() -> Tables:
    """Every table as (title, rows), each when it is measured."""
    with PostgresServer(fsync=True) as server:
        plain = asyncio.run(costs.baseline(server))
        nothing = cluster.stores_nothing()
        yield (
            "PostgreSQL itself, durable, one connection",
            [{"what": name, "rows/s": f"{rate:,.0f}"} for name, rate in plain.items()],
        )
        measured = [cluster.measure(case, server) for case in CASES]
        load = " ".join(f"{found:.1f}" for found in os.getloadavg())
        yield (
            f"Processes on one machine (load of the last 1, 5, 15 minutes: {load})",
            [
                _nothing(nothing),
                *(_throughput(found, nothing) for found in measured),
            ],
        )
        yield "CPU, µs a webhook or event", [row for found in measured for row in _shares(found)]
        spent = asyncio.run(costs.measure(server))
    yield "What an event costs on PostgreSQL", _costs(spent)
    disk = 1 / plain["one by one"]
    parameters = parameters_of(spent, disk, next(f for f in measured if f.case.postgres and f.case.webs == 1))
    yield (
        "The model against what was measured",
        [row for found in measured if found.case.postgres for row in _validation(parameters, found)],
    )
    apart = replace(parameters, sender=0.0)
    yield (
        "The most that each part can take, events a second, each process on a core of its own",
        [_most(apart, Layout(webs=n, workers=n, postgres_cores=16)) for n in (1, 2, 4, 8, 16)],
    )
    yield (
        f"Today's load, {TODAY:.1f} events a second at its peak, and more",
        [_scaled(apart, times, layout) for times, layout in LAYOUTS.items()],
    )


def parameters_of(spent: Costs, disk: float, one: Measured) -> Parameters:
    """From transactions in this process, the CPU of one web process, and a commit of PostgreSQL itself."""
    return Parameters(
        web=one.ingest.cpu_each("web"),
        append_web=spent.turn_cpu,
        append_postgres=spent.turn_postgres,
        disk=disk,
        fold_worker=spent.fold,
        fold_postgres=spent.fold_postgres,
        pass_over=spent.pass_over,
        sender=one.ingest.cpu_each("sender"),
    )


def _nothing(phase: Phase) -> Row:
    return {
        "what": "stores nothing (baseline)",
        "webhooks/s": f"{phase.rate:,.0f}",
        "ratio": "1.00",
        "p50 ms": _ms(phase.each, 0.5),
        "p99 ms": _ms(phase.each, 0.99),
        **dict.fromkeys(("behind/s", "both/s", "fresh p50 ms", "fresh p99 ms", "read p50 ms"), ""),
    }


def _throughput(found: Measured, base: Phase) -> Row:
    """`behind`: events through the books alone; `both`: webhooks, until the books have them, too."""
    return {
        "what": found.case.name,
        "webhooks/s": f"{found.ingest.rate:,.0f}",
        "ratio": f"{found.ingest.rate / base.rate:.2f}",
        "p50 ms": _ms(found.ingest.each, 0.5),
        "p99 ms": _ms(found.ingest.each, 0.99),
        "behind/s": f"{found.behind.rate:,.0f}",
        "both/s": f"{found.fresh_events:,.0f}",
        "fresh p50 ms": _ms(found.freshness, 0.5),
        "fresh p99 ms": _ms(found.freshness, 0.99),
        "read p50 ms": _ms(found.reads.each, 0.5),
    }


def _shares(found: Measured) -> list[Row]:
    """Of each phase, and how many cores all of that kept busy."""
    rows = []
    phases = {"webhooks": found.ingest, "behind": found.behind, "both": found.fresh, "reads": found.reads}
    for name, phase in phases.items():
        parts = ("web", "its store threads", "worker", "PostgreSQL", "sender")
        rows.append(
            {
                "what": f"{found.case.name}: {name}",
                **{part: f"{phase.cpu_each(part) * 1e6:,.0f}" for part in parts},
                "cores": f"{phase.busy:.2f}",
            }
        )
    return rows


def _costs(spent: Costs) -> list[Row]:
    rows = [_transaction(f"append of {size}", found, size) for size, found in spent.appends.items()]
    wide = f"fold of {costs.WIDE}"
    for name, label, size in (
        ("wide", wide, costs.WIDE),
        ("small", f"fold of {costs.SMALL}", costs.SMALL),
        ("narrow", f"{wide}, with one of {PARTITIONS} partitions", costs.WIDE),
    ):
        rows.append(_transaction(label, spent.folds[name], size))
    lines = {
        "turn, held": spent.turn,
        "turn, our CPU": spent.turn_cpu,
        "turn, PostgreSQL's CPU": spent.turn_postgres,
        "fold, our CPU": spent.fold,
        "fold, PostgreSQL's CPU": spent.fold_postgres,
    }
    rows += [
        _only(f"{name}: a batch and each event", f"{line.batch * 1e3:.2f} + {line.event * 1e6:.0f} µs")
        for name, line in lines.items()
    ]
    rows.append(
        _only("an event of another's partition, read all the same", f"{spent.pass_over * 1e6:.0f} µs")
    )
    rows.append(_only("on disk: ledger, books", f"{spent.disk_ledger:,.0f} + {spent.disk_books:,.0f} bytes"))
    return rows


def _transaction(what: str, found: Spent, events: int) -> Row:
    return {
        "what": what,
        "ms": f"{found.seconds * 1e3:.1f}",
        "our CPU ms": f"{found.ours * 1e3:.1f}",
        "PostgreSQL's": f"{found.theirs * 1e3:.1f}",
        "WAL bytes an event": f"{found.wal / events:,.0f}",
    }


def _only(what: str, value: str) -> Row:
    return {"what": what, "ms": value, "our CPU ms": "", "PostgreSQL's": "", "WAL bytes an event": ""}


def _validation(parameters: Parameters, found: Measured) -> list[Row]:
    """Other work on the machine takes cores from what is measured, but hardly CPU: that compares best."""
    rows, cores = [], os.cpu_count() or 1
    shared = {"shared_cores": cores, "postgres_cores": cores}
    for name, phase, workers in (("webhooks", found.ingest, 0), ("both", found.fresh, found.case.workers)):
        layout = Layout(webs=found.case.webs, workers=workers, **shared)
        said = simulate(parameters, layout, connections=cluster.CONNECTIONS, count=cluster.COUNT)
        rows.append(
            {
                "what": f"{found.case.name}: {name}",
                "model/s": f"{said.throughput:,.0f}",
                "measured/s": f"{phase.rate:,.0f}",
                "on cores": f"{phase.busy:.2f}",
                "model CPU µs": f"{said.busy['cores'] * cores / said.throughput * 1e6:,.0f}",
                "measured µs": f"{phase.busy / phase.rate * 1e6:,.0f}",
                "model p50 ms": _ms(said.latency, 0.5),
                "measured p50": _ms(phase.each, 0.5),
                "model p99": _ms(said.latency, 0.99),
                "measured p99": _ms(phase.each, 0.99),
            }
        )
    return rows


def _most(parameters: Parameters, layout: Layout) -> Row:
    """In full batches; and what the model gives when every web process always has 128 webhooks under way."""
    most = capacities(parameters, layout)
    first = min(most, key=lambda name: most[name])
    connections = COMMIT // 2 * layout.webs
    runs = [
        simulate(parameters, layout, connections=connections, count=50 * connections, seed=seed)
        for seed in (1, 2)
    ]
    return {
        "what": f"{layout.webs} webs, {layout.workers} workers",
        **{name: f"{rate:,.0f}" for name, rate in most.items()},
        "first": first,
        "simulated": f"{fmean(run.throughput for run in runs):,.0f}",
    }


def _scaled(parameters: Parameters, times: int, layout: Layout) -> Row:
    rate = TODAY * times
    count = int(min(40_000, max(1_000, rate * 10)))
    said = simulate(parameters, layout, per_second=rate, count=count)
    most = capacities(parameters, layout)
    return {
        "what": f"{times:,}×: {layout.webs} webs, {layout.workers} workers",
        "offered/s": f"{rate:,.0f}",
        "answered/s": f"{said.throughput:,.0f}",
        "p50 ms": _ms(said.latency, 0.5),
        "p99 ms": _ms(said.latency, 0.99),
        "lag p50 ms": _ms(said.lag, 0.5),
        "lag p99 ms": _ms(said.lag, 0.99),
        **{name: f"{rate / found:.2f}" for name, found in most.items()},
    }


def _ms(ordered, share: float) -> str:
    return f"{quantile(ordered, share) * 1e3:.1f}" if ordered else ""
