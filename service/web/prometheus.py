"""Prometheus metrics: counters of the web processes, and gauges read from the stores at each scrape.

With several processes each keeps its counters in a file of a directory that they share, and whichever
is asked adds them up (the client library's multiprocess mode).
"""

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import Connection

from handlers import PROCESSORS
from service.books.store import BookStore
from service.books.view import Scope, View
from service.core.moments import day_of
from service.intake.silence import ProcessorActivity, SilenceMonitor
from service.intake.versions import VERSIONS
from service.ledger.fetches import PendingFetches
from service.ledger.store import Ledger
from service.maintenance.status import Status, read_status
from service.reads.mrr import mrr
from service.reads.snapshots import list_currencies
from service.reads.stored_models import positions as model_positions
from service.settings import Settings
from service.sync.reconcile.report import ReconciliationSummary, read_last_summary

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # the client library's name; it looks when it is imported
_RECONCILED_PROCESSORS = tuple(processor.name for processor in PROCESSORS if processor.api)
_THIN_PROCESSORS = tuple(processor.name for processor in PROCESSORS if processor.thin_events)
_READ_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10)
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """One registry for each app, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.deliveries = Counter(
            "daybook_deliveries",
            "Deliveries by processor and outcome",
            ("processor", "outcome"),
            registry=self.registry,
        )
        self.append_seconds = Histogram(
            "daybook_append_seconds",
            "From a verified delivery to its commit",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.null_next_bills = Counter(
            "daybook_live_subscriptions_without_next_bill",
            "Recorded live subscriptions whose next bill date could not be found",
            ("processor",),
            registry=self.registry,
        )
        self.nudge_failures = Counter(
            "daybook_nudge_failures", "Nudges that Redis did not take at once", registry=self.registry
        )
        self.reads = Counter(
            "daybook_reads", "Reads by path and status", ("path", "status"), registry=self.registry
        )
        self.read_seconds = Histogram(
            "daybook_read_seconds",
            "From a read's request to its answer, with the wait for `at_least`",
            ("path",),
            buckets=_READ_SECONDS,
            registry=self.registry,
        )
        self.lost_positions = Gauge(
            "daybook_ledger_lost_positions",
            "Positions that the ledger had acknowledged, and lacks",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.in_flight = Gauge(
            "daybook_requests_in_flight",
            "Webhooks and reads under way",
            ("kind",),
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.refused = Counter(
            "daybook_requests_refused",
            "Webhooks and reads refused since too many were under way",
            ("kind",),
            registry=self.registry,
        )

    @contextmanager
    def timed_read(self, path: str, status_of: Callable[[Exception], int]) -> Iterator[Callable[[int], None]]:
        """Count and time a read. Yields a function to tell its status; `status_of` gives that of an error."""
        started, status = perf_counter(), 0

        def answered(answer_status: int) -> None:
            nonlocal status
            status = answer_status

        try:
            yield answered
        except Exception as error:
            answered(status_of(error))
            raise
        finally:
            self.count_read(path, status, perf_counter() - started)

    def count_read(self, path: str, status: int, seconds: float) -> None:
        """Count a read that took so long."""
        self.reads.labels(path, status).inc()
        self.read_seconds.labels(path).observe(seconds)

    def text(self, read_gauges: Iterable[Metric]) -> bytes:
        """What Prometheus reads: the counters of every process, and what the stores said.

        Of one process alone, with its memory, CPU time and open files.
        """
        shared = os.environ.get(DIRECTORY)
        counted = (
            _merge_processes(Path(shared))
            if shared
            else [*self.registry.collect(), *ProcessCollector(registry=None).collect()]
        )
        return generate_latest(_Scrape([*counted, _build_info(), *read_gauges]))


def _build_info() -> Metric:
    """Which version of Daybook, and of Python, runs."""
    info = GaugeMetricFamily("daybook_build_info", "1, with what runs", labels=("version", "python"))
    info.add_metric((version("daybook"), platform.python_version()), 1)
    return info


class _Scrape:
    """A collector for one scrape."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _merge_processes(directory: Path) -> Iterable[Metric]:
    """The sums over all processes. The file of a process that is starting may be empty for a moment."""
    files = [path for path in directory.glob("*.db") if path.stat().st_size]
    metrics: Iterable[Metric] = MultiProcessCollector.merge(map(str, files))  # type: ignore[no-untyped-call]
    return metrics


def readable_gauge(value: bool) -> Metric:
    """Whether the stores could be read for this scrape; without them the gauges below are missing."""
    return GaugeMetricFamily(
        "daybook_stores_readable", "1 if the ledger and the books could be read just now", value=value
    )


async def read_gauges(
    ledger: Ledger, store: BookStore, silence: SilenceMonitor, now: datetime, settings: Settings
) -> list[Metric]:
    """What is known only by asking the stores, and the same whichever process asks."""
    status = await read_status(ledger, store, settings)
    async with ledger.reading() as reader:
        quarantined = await reader.count_quarantined()
        pending = await reader.pending_fetches()
        reconciled = {name: await read_last_summary(reader, name) for name in _RECONCILED_PROCESSORS}
    position = GaugeMetricFamily(
        "daybook_ledger_position", "The ledger's last position", value=status.position
    )
    quarantine = GaugeMetricFamily(
        "daybook_quarantine", "Deliveries in quarantine", labels=("processor", "reason")
    )
    for names, count in quarantined.items():
        quarantine.add_metric(names, count)
    model_lag = GaugeMetricFamily(
        "daybook_learnt_lag_events",
        "Ledger position less that of which predictions were learnt",
        labels=("currency",),
    )
    positions_by_currency = await store.read(lambda connection: model_positions(connection, store, "model"))
    for currency, model_position in positions_by_currency.items():
        model_lag.add_metric((currency,), status.position - model_position)
    set_aside = GaugeMetricFamily(
        "daybook_set_aside_histories",
        "Histories of which the last events are not read, since a book could not be made from them",
        value=status.set_aside_histories,
    )
    today = day_of(now, store.rules.zone)
    overdue = GaugeMetricFamily(
        "daybook_overdue_contracts",
        "Live contracts with a bill stated for three days ago or earlier, and not heard of since",
        value=await store.read(lambda connection: _count_overdue(connection, store, today)),
    )
    return [
        readable_gauge(True),
        position,
        *_book_gauges(status),
        model_lag,
        overdue,
        await store.read(lambda connection: _mrr_gauge(connection, store, today)),
        quarantine,
        set_aside,
        _retranslation_gauge(status),
        *_fetch_gauges(pending, now),
        *_silence_gauges(await silence.read_activity(now), now),
        *_reconciliation_gauges(reconciled, now),
    ]


def _count_overdue(connection: Connection, store: BookStore, today: date) -> int:
    """The overdue contracts of all currencies; none before the books are laid out."""
    return sum(view.overdue_contracts() for view in _views_by_currency(connection, store, today).values())


def _mrr_gauge(connection: Connection, store: BookStore, today: date) -> Metric:
    """The MRR at the end of today, in minor units."""
    gauge = GaugeMetricFamily("daybook_mrr_cents", "MRR in minor units, by currency", labels=("currency",))
    for currency, view in _views_by_currency(connection, store, today).items():
        gauge.add_metric((currency,), mrr(view).mrr_cents)
    return gauge


def _views_by_currency(connection: Connection, store: BookStore, today: date) -> dict[str, View]:
    """A view of the books for each currency; none before the books are laid out."""
    positions = store.positions(connection)
    if len(positions.books) < len(store.books):
        return {}
    return {
        currency: View(
            connection=connection, books=positions.books, scope=Scope(currency=currency, today=today)
        )
        for currency in list_currencies(connection, positions)
    }


def _retranslation_gauge(status: Status) -> Metric:
    """Which processors' deliveries an older version translated."""
    due = GaugeMetricFamily(
        "daybook_retranslation_due",
        "1 if what the ledger holds of a processor was translated by an older version",
        labels=("processor",),
    )
    for processor in VERSIONS:
        due.add_metric((processor,), processor in status.retranslation_due)
    return due


def _fetch_gauges(pending: Iterable[PendingFetches], now: datetime) -> Iterable[Metric]:
    """How many thin events wait for what they name, and how long the oldest has been waiting."""
    count = GaugeMetricFamily(
        "daybook_pending_fetches", "Thin events that wait for what they name", labels=("processor",)
    )
    oldest = GaugeMetricFamily(
        "daybook_oldest_pending_fetch_seconds",
        "Seconds since the oldest thin event that waits for what it names was recorded",
        labels=("processor",),
    )
    waiting = {each.processor: each for each in pending}
    for processor in _THIN_PROCESSORS:
        found = waiting.get(processor)
        count.add_metric((processor,), found.count if found else 0)
        oldest.add_metric((processor,), (now - found.oldest_at).total_seconds() if found else 0)
    return count, oldest


def _silence_gauges(processors: Iterable[ProcessorActivity], now: datetime) -> Iterable[Metric]:
    """How long each processor has been silent, and for how long it may be."""
    since = GaugeMetricFamily(
        "daybook_seconds_since_heard",
        "Seconds since a processor's last event was recorded",
        labels=("processor",),
    )
    limit = GaugeMetricFamily(
        "daybook_silence_limit_seconds",
        "Seconds of silence that are more than usual for a processor",
        labels=("processor",),
    )
    for processor in processors:
        since.add_metric((processor.processor,), (now - processor.last_at).total_seconds())
        if processor.limit is not None:
            limit.add_metric((processor.processor,), processor.limit.total_seconds())
    return since, limit


def _reconciliation_gauges(
    summaries: Mapping[str, ReconciliationSummary | None], now: datetime
) -> Iterable[Metric]:
    """When each processor was last reconciled to the end, what was missed or mended, and what differs."""
    since = GaugeMetricFamily(
        "daybook_seconds_since_reconciled",
        "Seconds since the last reconciliation that came to its end",
        labels=("processor",),
    )
    missed = GaugeMetricFamily(
        "daybook_reconcile_missed_events",
        "Events that the last reconciliation appended: no webhook had brought them",
        labels=("processor",),
    )
    differing = GaugeMetricFamily(
        "daybook_reconcile_differences",
        "Things that the processor and the books had otherwise at the last reconciliation",
        labels=("processor",),
    )
    mended = GaugeMetricFamily(
        "daybook_reconcile_mended_objects",
        "Objects that the last reconciliation recorded as the processor shows them, and that agree since",
        labels=("processor",),
    )
    for processor, summary in summaries.items():
        if summary:
            ended = datetime.fromisoformat(summary.finished_at)
            since.add_metric((processor,), (now - ended).total_seconds())
            missed.add_metric((processor,), sum(summary.missed.values()))
            differing.add_metric((processor,), summary.differing)
            mended.add_metric((processor,), sum(summary.mended.values()))
    return since, missed, mended, differing


def _book_gauges(status: Status) -> Iterable[Metric]:
    """How far the books are, whether a worker keeps them and, where there can be many, which."""
    lag = GaugeMetricFamily("daybook_book_lag_events", "Ledger position less the book's", labels=("book",))
    for book in status.partitions[0].lag_events if status.partitions else ():
        lag.add_metric((book,), max(partition.lag_events[book] for partition in status.partitions))
    yield lag
    living = len(status.workers) if status.leased else int(status.worker_runs)
    yield GaugeMetricFamily("daybook_workers", "Workers that live", value=living)
    if status.leased:
        unheld = sum(partition.worker is None for partition in status.partitions)
        yield GaugeMetricFamily("daybook_partitions_unheld", "Partitions that no worker holds", value=unheld)
        lags = GaugeMetricFamily(
            "daybook_partition_lag_events",
            "Ledger position less the furthest book's, by partition",
            labels=("partition",),
        )
        for partition in status.partitions:
            lags.add_metric((str(partition.partition),), max(partition.lag_events.values()))
        yield lags
