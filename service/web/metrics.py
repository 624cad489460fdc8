"""Prometheus metrics of the web process."""

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.books.store import BookStore
from service.core.moments import to_us
from service.ledger.store import Ledger

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
        self._position = Gauge(
            "daybook_ledger_position", "The ledger's last position", registry=self.registry
        )
        self._lag = Gauge(
            "daybook_book_lag_events", "Ledger position less the book's", ("book",), registry=self.registry
        )
        self._quarantine = Gauge(
            "daybook_quarantine", "Deliveries in quarantine", ("processor", "reason"), registry=self.registry
        )
        self._heard = Gauge(
            "daybook_seconds_since_heard",
            "Seconds since a processor's last event was recorded",
            ("processor",),
            registry=self.registry,
        )

    async def refresh(self, ledger: Ledger, store: BookStore, now: datetime) -> None:
        """Read what is known only by asking the stores."""
        async with store.reading() as connection:
            marks = await connection.run_sync(store.checkpoints)
        async with ledger.reading() as reader:
            head = (await reader.head()).position
            quarantined = await reader.quarantined()
            heard = await reader.last_heard()
        self._position.set(head)
        for book, (_, position) in marks.items():
            self._lag.labels(book).set(head - position)
        for (processor, reason), count in quarantined.items():
            self._quarantine.labels(processor, reason).set(count)
        for processor, at_us in heard.items():
            self._heard.labels(processor).set((to_us(now) - at_us) / 1e6)
