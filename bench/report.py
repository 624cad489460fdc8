"""The tables of PostgreSQL and of many processes: measurements, the cost of an event, and the model."""

import asyncio
import os
from collections.abc import Iterator
from statistics import fmean

from msgspec.structs import replace

from bench import cluster, costs
from bench.cluster import CASES, CaseResult, Phase
from bench.costs import Costs, TransactionCost
from bench.rows import quantile
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


def measure_tables() -> Tables:
    """Every table as (title, rows), yielded as soon as it is measured."""
    with PostgresServer(fsync=True) as server:
        row_rates = asyncio.run(costs.baseline(server))
        baseline = cluster.measure_baseline()
        yield (
            "PostgreSQL itself, durable, one connection",
            [{"what": name, "rows/s": f"{rate:,.0f}"} for name, rate in row_rates.items()],
        )
        results = [cluster.measure(case, server) for case in CASES]
        load = " ".join(f"{result:.1f}" for result in os.getloadavg())
        yield (
            f"Processes on one machine (load of the last 1, 5, 15 minutes: {load})",
            [
                _baseline_row(baseline),
                *(_throughput(result, baseline) for result in results),
            ],
        )
        yield "CPU, µs a webhook or event", [row for result in results for row in _shares(result)]
        event_costs = asyncio.run(costs.measure(server))
    yield "What an event costs on PostgreSQL", _costs(event_costs)
    disk = 1 / row_rates["one by one"]
    parameters = derive_parameters(
        event_costs, disk, next(f for f in results if f.case.postgres and f.case.webs == 1)
    )
    yield (
        "The model against what was measured",
        [row for result in results if result.case.postgres for row in _validation(parameters, result)],
    )
    separate = replace(parameters, sender=0.0)
    yield (
        "The most that each part can take, events a second, each process on a core of its own",
        [_capacity_row(separate, Layout(webs=n, workers=n, postgres_cores=16)) for n in (1, 2, 4, 8, 16)],
    )
    yield (
        f"Today's load, {TODAY:.1f} events a second at its peak, and more",
        [_scaled_row(separate, times, layout) for times, layout in LAYOUTS.items()],
    )


def derive_parameters(spent: Costs, disk: float, single: CaseResult) -> Parameters:
    """The model's parameters, from measured transactions, one web process, and a commit of PostgreSQL."""
    return Parameters(
        web=single.ingest.cpu_each("web"),
        append_web=spent.turn_cpu,
        append_postgres=spent.turn_postgres,
        disk=disk,
        fold_worker=spent.fold,
        fold_postgres=spent.fold_postgres,
        pass_over=spent.pass_over,
        sender=single.ingest.cpu_each("sender"),
    )


def _baseline_row(phase: Phase) -> Row:
    return {
        "what": "stores nothing (baseline)",
        "webhooks/s": f"{phase.rate:,.0f}",
        "ratio": "1.00",
        "p50 ms": _ms(phase.latencies, 0.5),
        "p99 ms": _ms(phase.latencies, 0.99),
        **dict.fromkeys(("behind/s", "both/s", "read p50 ms"), ""),
    }


def _throughput(result: CaseResult, base: Phase) -> Row:
    """`behind`: events through the books alone; `both`: webhooks, until the books have them, too."""
    return {
        "what": result.case.name,
        "webhooks/s": f"{result.ingest.rate:,.0f}",
        "ratio": f"{result.ingest.rate / base.rate:.2f}",
        "p50 ms": _ms(result.ingest.latencies, 0.5),
        "p99 ms": _ms(result.ingest.latencies, 0.99),
        "behind/s": f"{result.behind.rate:,.0f}",
        "both/s": f"{result.kept.rate:,.0f}",
        "read p50 ms": _ms(result.reads.latencies, 0.5),
    }


def _shares(result: CaseResult) -> list[Row]:
    """The CPU of each part by phase, and the cores that were busy."""
    rows = []
    phases = {"webhooks": result.ingest, "behind": result.behind, "both": result.fresh, "reads": result.reads}
    for name, phase in phases.items():
        parts = ("web", "its store threads", "worker", "PostgreSQL", "sender")
        rows.append(
            {
                "what": f"{result.case.name}: {name}",
                **{part: f"{phase.cpu_each(part) * 1e6:,.0f}" for part in parts},
                "cores": f"{phase.busy:.2f}",
            }
        )
    return rows


def _costs(spent: Costs) -> list[Row]:
    rows = [_transaction(f"append of {size}", cost, size) for size, cost in spent.appends.items()]
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
        _single_value(
            f"{name}: a batch and each event", f"{line.batch * 1e3:.2f} + {line.event * 1e6:.0f} µs"
        )
        for name, line in lines.items()
    ]
    rows.append(
        _single_value("an event of another's partition, read all the same", f"{spent.pass_over * 1e6:.0f} µs")
    )
    rows.append(
        _single_value("on disk: ledger, books", f"{spent.disk_ledger:,.0f} + {spent.disk_books:,.0f} bytes")
    )
    return rows


def _transaction(what: str, cost: TransactionCost, events: int) -> Row:
    return {
        "what": what,
        "ms": f"{cost.seconds * 1e3:.1f}",
        "our CPU ms": f"{cost.own_cpu * 1e3:.1f}",
        "PostgreSQL's": f"{cost.postgres_cpu * 1e3:.1f}",
        "WAL bytes an event": f"{cost.wal / events:,.0f}",
    }


def _single_value(what: str, value: str) -> Row:
    return {"what": what, "ms": value, "our CPU ms": "", "PostgreSQL's": "", "WAL bytes an event": ""}


def _validation(parameters: Parameters, result: CaseResult) -> list[Row]:
    """The model beside the measurement. CPU compares best, since other work hardly affects it."""
    rows, cores = [], os.cpu_count() or 1
    shared = {"shared_cores": cores, "postgres_cores": cores}
    for name, phase, workers in (("webhooks", result.ingest, 0), ("both", result.fresh, result.case.workers)):
        layout = Layout(webs=result.case.webs, workers=workers, **shared)
        outcome = simulate(parameters, layout, connections=cluster.CONNECTIONS, count=cluster.COUNT)
        rows.append(
            {
                "what": f"{result.case.name}: {name}",
                "model/s": f"{outcome.throughput:,.0f}",
                "measured/s": f"{phase.rate:,.0f}",
                "on cores": f"{phase.busy:.2f}",
                "model CPU µs": f"{outcome.busy['cores'] * cores / outcome.throughput * 1e6:,.0f}",
                "measured µs": f"{phase.busy / phase.rate * 1e6:,.0f}",
                "model p50 ms": _ms(outcome.latency, 0.5),
                "measured p50": _ms(phase.latencies, 0.5),
                "model p99": _ms(outcome.latency, 0.99),
                "measured p99": _ms(phase.latencies, 0.99),
            }
        )
    return rows


def _capacity_row(parameters: Parameters, layout: Layout) -> Row:
    """Capacities in full batches, and the simulated rate with 128 webhooks under way per web process."""
    rates = capacities(parameters, layout)
    first = min(rates, key=lambda name: rates[name])
    connections = COMMIT // 2 * layout.webs
    runs = [
        simulate(parameters, layout, connections=connections, count=50 * connections, seed=seed)
        for seed in (1, 2)
    ]
    return {
        "what": f"{layout.webs} webs, {layout.workers} workers",
        **{name: f"{rate:,.0f}" for name, rate in rates.items()},
        "first": first,
        "simulated": f"{fmean(run.throughput for run in runs):,.0f}",
    }


def _scaled_row(parameters: Parameters, times: int, layout: Layout) -> Row:
    rate = TODAY * times
    count = int(min(40_000, max(1_000, rate * 10)))
    outcome = simulate(parameters, layout, per_second=rate, count=count)
    rates = capacities(parameters, layout)
    return {
        "what": f"{times:,}×: {layout.webs} webs, {layout.workers} workers",
        "offered/s": f"{rate:,.0f}",
        "answered/s": f"{outcome.throughput:,.0f}",
        "p50 ms": _ms(outcome.latency, 0.5),
        "p99 ms": _ms(outcome.latency, 0.99),
        "lag p50 ms": _ms(outcome.lag, 0.5),
        "lag p99 ms": _ms(outcome.lag, 0.99),
        **{name: f"{rate / capacity:.2f}" for name, capacity in rates.items()},
    }


def _ms(ordered, share: float) -> str:
    return f"{quantile(ordered, share) * 1e3:.1f}" if ordered else ""
