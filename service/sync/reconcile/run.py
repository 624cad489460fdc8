"""Running reconciliations: with the settings' API keys, by command or every night."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from service.books.store import BookStore
from service.core.errors import NotConfigured
from service.ledger.store import Ledger
from service.settings import Settings
from service.storage.tasks import cancel_and_wait, run_safely
from service.sync.reconcile.report import Report, last_summary

_LONGEST = timedelta(days=30)  # for as long as Stripe lists events
_OVERLAP = timedelta(days=1)


class Reconciliation:
    """What the settings let be reconciled, on stores that are open. `done` is told of each page."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        store: BookStore,
        clock: Callable[[], datetime],
        done: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._done = done

    async def stripe(self, since: datetime | None = None, *, dry_run: bool = False) -> Report:
        """Reconcile with Stripe; by default from a day before the last run on, at most 30 days back.

        Raises NotConfigured without an API key, Unavailable if Stripe or the books can't be asked.
        """
        from service.sync.reconcile.stripe import Reconciler  # noqa: PLC0415
        from service.sync.stripe_api import Api  # noqa: PLC0415 - the library's client is slow to import

        if not self._settings.stripe_api_key:
            raise NotConfigured("DAYBOOK_STRIPE_API_KEY is unset")
        api = Api(self._settings.stripe_api_key, self._settings.stripe_api_url)
        try:
            run = Reconciler(api, self._ledger, self._store, self._clock, dry_run=dry_run, done=self._done)
            return await run.run(since or await self._since_last())
        finally:
            await api.close()

    async def _since_last(self) -> datetime:
        async with self._ledger.reading() as reader:
            last = await last_summary(reader, "stripe")
        earliest = self._clock() - _LONGEST
        return max(earliest, datetime.fromisoformat(last.began_at) - _OVERLAP) if last else earliest

    async def mxmerchant(self, *, dry_run: bool = False) -> Report:
        """Reconcile with MX Merchant. Raises NotConfigured and Unavailable as `stripe` does."""
        from service.sync.reconcile.mxmerchant import Reconciler  # noqa: PLC0415

        if not self._settings.polls_mxmerchant:
            raise NotConfigured(
                "of DAYBOOK_MXMERCHANT_API_URL, _CONSUMER_KEY, _CONSUMER_SECRET, _MERCHANT_ID one is unset"
            )
        run = Reconciler(
            self._settings, self._ledger, self._store, self._clock, dry_run=dry_run, done=self._done
        )
        try:
            return await run.run()
        finally:
            await run.close()


class Nightly:
    """Reconciles in a task of its own; a start while it runs does nothing.

    As an arq job it would have a timeout, and a long one delays all jobs of a worker that is lost.
    """

    def __init__(self, settings: Settings, reconciliation: Reconciliation) -> None:
        self._processors = [
            *([reconciliation.stripe] if settings.stripe_api_key else []),
            *([reconciliation.mxmerchant] if settings.polls_mxmerchant else []),
        ]
        self._task: asyncio.Task[None] | None = None

    @property
    def has_work(self) -> bool:
        """Whether any processor's API is set up."""
        return bool(self._processors)

    async def start(self) -> None:
        """Begin, unless it is under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="reconciliation")

    async def close(self) -> None:
        """Stop; the next run goes on from there."""
        if self._task:
            await cancel_and_wait(self._task)

    async def _run(self) -> None:
        for reconcile in self._processors:
            await run_safely(reconcile)
