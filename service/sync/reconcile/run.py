"""Running reconciliations with the API keys of the settings, by command or every night."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from handlers import mxmerchant
from service.books.store import BookStore
from service.core.errors import NotConfigured
from service.core.progress import Advance, no_advance
from service.ledger.store import Ledger
from service.settings import Settings
from service.storage.tasks import cancel_and_wait, run_safely
from service.sync.reconcile.mxmerchant import MxmerchantReconciler
from service.sync.reconcile.report import ReconciliationReport, read_last_summary

_MAX_PERIOD = timedelta(days=30)  # for as long as Stripe lists events
_OVERLAP = timedelta(days=1)


class Reconciliation:
    """Reconciles an open ledger and its books with the processors that are set up.

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

    async def stripe(self, since: datetime | None = None, *, dry_run: bool = False) -> ReconciliationReport:
        """Reconcile with Stripe since a moment: by default a day before the last run, at most 30 days ago.

        Raises NotConfigured without an API key, Unavailable if Stripe or the books can't be read.
        """
        from service.sync.reconcile import stripe  # noqa: PLC0415 - Stripe's library, which a worker may not need

        if not self._settings.stripe_api_key:
            raise NotConfigured("DAYBOOK_STRIPE_API_KEY is unset")
        since = since or await self._since_last()
        return await stripe.reconcile(
            self._settings,
            self._ledger,
            self._store,
            self._clock,
            since,
            dry_run=dry_run,
            advance=self._advance,
        )

    async def _since_last(self) -> datetime:
        async with self._ledger.reading() as reader:
            last = await read_last_summary(reader, "stripe")
        earliest = self._clock() - _MAX_PERIOD
        return max(earliest, datetime.fromisoformat(last.began_at) - _OVERLAP) if last else earliest

    async def mxmerchant(self, *, dry_run: bool = False) -> ReconciliationReport:
        """Reconcile with MX Merchant. Raises NotConfigured and Unavailable as `stripe` does."""
        if not self._settings.has_api(mxmerchant.PROCESSOR):
            raise NotConfigured(
                "of DAYBOOK_MXMERCHANT_API_URL, _CONSUMER_KEY, _CONSUMER_SECRET, _MERCHANT_ID one is unset"
            )
        run = MxmerchantReconciler(
            self._settings, self._ledger, self._store, self._clock, dry_run=dry_run, advance=self._advance
        )
        try:
            return await run.run()
        finally:
            await run.close()


class NightlyReconciliation:
    """Reconciles in a task of its own; a start while it runs does nothing.

    It is no arq job, since that needs a timeout, and a long timeout delays the jobs of a lost worker.
    """

    def __init__(self, settings: Settings, reconciliation: Reconciliation) -> None:
        self._processors = [
            *([reconciliation.stripe] if settings.stripe_api_key else []),
            *([reconciliation.mxmerchant] if settings.has_api(mxmerchant.PROCESSOR) else []),
        ]
        self._task: asyncio.Task[None] | None = None

    @property
    def has_work(self) -> bool:
        """Whether the API of any processor is set up."""
        return bool(self._processors)

    async def start(self) -> None:
        """Start the task unless it is running."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="reconciliation")

    async def close(self) -> None:
        """Stop the task; the next run continues where it stopped."""
        if self._task:
            await cancel_and_wait(self._task)

    async def _run(self) -> None:
        for reconcile in self._processors:
            await run_safely(reconcile)
