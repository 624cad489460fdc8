"""Running reconciliations with the API keys of the settings, by command or every night."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from handlers import PROCESSORS
from service.books.store import BookStore
from service.core.delivery import Processor
from service.core.processor_api import EventLog
from service.core.progress import Advance, no_advance
from service.ledger.store import Ledger
from service.settings import Settings
from service.storage.tasks import cancel_and_wait, run_safely
from service.sync.client import open_client
from service.sync.reconcile.reconciler import reconcile
from service.sync.reconcile.report import ReconciliationReport, read_last_summary
from service.sync.reconcile.session import Session

_OVERLAP = timedelta(days=1)


def processors_with_api() -> dict[str, Processor]:
    """The processors whose API can be asked, by name."""
    return {processor.name: processor for processor in PROCESSORS if processor.api}


class Reconciliation:
    """Reconciles an open ledger and its books with processors.

    `advance` is called with the number of objects of each page.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        store: BookStore,
        clock: Callable[[], datetime],
        advance: Advance = no_advance,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._advance = advance

    async def run(
        self, processor: Processor, since: datetime | None = None, *, dry_run: bool = False
    ) -> ReconciliationReport:
        """Reconcile with a processor; where it lists events, with those since a moment.

        By default that is a day before the last run, or as far back as it lists them. Raises NotConfigured
        without the credentials, Unavailable if the API or the books can't be read.
        """
        client = open_client(self._settings, processor)
        try:
            session = Session(
                processor=processor,
                client=client,
                ledger=self._ledger,
                store=self._store,
                clock=self._clock,
                mode_of=self._settings.mode_of,
                dry_run=dry_run,
                advance=self._advance,
            )
            if since is None and client.api.events:
                since = await self._since_last(processor, client.api.events)
            return await reconcile(session, since)
        finally:
            await client.close()

    async def _since_last(self, processor: Processor, log: EventLog) -> datetime:
        async with self._ledger.reading() as reader:
            last = await read_last_summary(reader, processor.name)
        earliest = self._clock() - timedelta(days=log.days)
        return max(earliest, datetime.fromisoformat(last.began_at) - _OVERLAP) if last else earliest


class NightlyReconciliation:
    """Reconciles in a task of its own with each processor whose API is set up.

    A start while it runs does nothing. It is no arq job, since that needs a timeout, and a long timeout
    delays the jobs of a lost worker.
    """

    def __init__(self, settings: Settings, reconciliation: Reconciliation) -> None:
        self._runs = [
            partial(reconciliation.run, processor) for processor in PROCESSORS if settings.has_api(processor)
        ]
        self._task: asyncio.Task[None] | None = None

    @property
    def has_work(self) -> bool:
        """Whether the API of any processor is set up."""
        return bool(self._runs)

    async def start(self) -> None:
        """Start the task unless it is running."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="reconciliation")

    async def close(self) -> None:
        """Stop the task; the next run continues where it stopped."""
        if self._task:
            await cancel_and_wait(self._task)

    async def _run(self) -> None:
        for run in self._runs:
            await run_safely(run)
