"""A ledger with its books for reconciliations: to wait advances the books, and takes no time."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from handlers import stripe
from projections import BOOKS
from service.books.engine import Engine
from service.books.store import BookStore
from service.bootstrap import open_books, open_ledger
from service.core.delivery import Processor, Proof
from service.core.progress import no_advance, no_progress
from service.intake.retranslate import Retranslator
from service.intake.revisions import Change
from service.intake.translation import read_delivery
from service.ledger.store import Ledger
from service.settings import Settings
from service.sync.backfill.reader import AccountReader
from service.sync.backfill.report import ListResult
from service.sync.backfill.session import Session as BackfillSession
from service.sync.client import ApiClient
from service.sync.reconcile.reconciler import reconcile
from service.sync.reconcile.report import ReconciliationReport
from service.sync.reconcile.session import Session
from service.verify import digests
from tests.support.modes import live
from tests.support.mxmerchant_api import MERCHANT, MxApi
from tests.support.senders import STRIPE
from tests.support.stores import settings_of
from tests.support.stripe_api import KEY, StripeApi

NOW = datetime(2025, 10, 5, 3, 17, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
MONTH = timedelta(days=30)


def mxmerchant_settings(data_dir: Path, api: MxApi) -> Settings:
    """The settings of a Daybook that asks this stand-in of MX Merchant's API."""
    return settings_of(
        data_dir,
        mxmerchant_api_url=api.url,
        mxmerchant_consumer_key="the-consumer-key",
        mxmerchant_consumer_secret="of-the-consumer",
        mxmerchant_merchant_id=MERCHANT,
    )


class SyncDaybook:
    """The stores, a clock to set, and the waits that the API was given."""

    def __init__(self, settings: Settings, ledger: Ledger, store: BookStore) -> None:
        self.settings = settings.model_copy(update={"stripe_webhook_secrets": (STRIPE.secret,)})
        self.ledger, self.store = ledger, store
        self.now = NOW
        self.waits: list[float] = []
        self._engine = Engine(ledger, store, self.clock)

    def clock(self) -> datetime:
        return self.now

    async def deliver(self, *payloads: dict[str, Any]) -> None:
        """Webhooks come, and the books take them in."""
        proof = Proof(processor="stripe", method="stripe-signature", received_at=self.now, signed_at=self.now)
        bodies = [json.dumps(each).encode() for each in payloads]
        await self.ledger.append(
            [read_delivery(stripe.PROCESSOR, self._sign(body), body, proof, live) for body in bodies],
            self.now,
        )
        await self.catch_up()

    def _sign(self, body: bytes) -> bytes:
        """The headers of a signed webhook, as they are stored."""
        headers = STRIPE.sign(body, self.now, "", STRIPE.secret)
        return json.dumps({name.lower(): value for name, value in headers.items()}).encode()

    async def catch_up(self, _seconds: float = 0) -> None:
        await self._engine.catch_up()

    async def reconcile(
        self, api: StripeApi, *, since: timedelta | None = MONTH, **how: Any
    ) -> ReconciliationReport:
        """One run with Stripe, in which waiting takes no time."""
        values = {"stripe_api_key": KEY, "stripe_api_url": api.url}
        return await self.reconcile_with(stripe.PROCESSOR, values, since, **how)

    async def reconcile_with(
        self, processor: Processor, values: dict[str, str], since: timedelta | None, **how: Any
    ) -> ReconciliationReport:
        """One run with these values of the settings; `how` sets fields of its session."""
        client = self._client(processor, values)
        session = Session(
            processor=processor,
            client=client,
            ledger=self.ledger,
            store=self.store,
            clock=self.clock,
            mode_of=live,
            **{"pause": self.catch_up, **how},
        )
        try:
            return await reconcile(session, since and self.now - since)
        finally:
            await client.close()

    async def backfill(self, api: StripeApi, account: str = "", **how: Any) -> dict[str, ListResult]:
        """One run with an account of Stripe, in which waiting takes no time; the result of each list."""
        values = {"stripe_api_key": KEY, "stripe_api_url": api.url}
        return await self.backfill_from(stripe.PROCESSOR, values, account, **how)

    async def backfill_from(
        self,
        processor: Processor,
        values: dict[str, str],
        account: str,
        *,
        since: int | None = None,
        dry_run: bool = False,
    ) -> dict[str, ListResult]:
        """One run with these values of the settings."""
        client = self._client(processor, values)
        session = BackfillSession(
            processor=processor,
            client=client,
            account=account,
            ledger=self.ledger,
            clock=self.clock,
            mode_of=live,
            show_progress=no_progress,
            dry_run=dry_run,
        )
        try:
            results = await AccountReader(session).read(since)
        finally:
            await client.close()
        await self.catch_up()
        return {result.name: result for result in results}

    def _client(self, processor: Processor, values: dict[str, str]) -> ApiClient:
        assert processor.api
        return ApiClient(
            processor.api,
            values,
            pause=self._note_wait,
            random_fraction=lambda: 1.0,
            monotonic=count().__next__,  # a second for each request, so that the rate needs no wait
        )

    async def book_digests(self) -> dict[str, str]:
        """The digest of each book."""
        return await digests(self.store)

    async def _note_wait(self, seconds: float) -> None:
        self.waits.append(seconds)

    async def rows(self) -> list[dict[str, Any]]:
        async with self.ledger.reading() as reader:
            return await reader.rows(0, 10_000)

    async def event_ids(self) -> list[str]:
        return [row["event_id"] for row in await self.rows()]

    async def retranslation_changes(self) -> list[Change]:
        """How today's translators would give other events of what is recorded."""
        return (await Retranslator(self.ledger, self.clock, self.settings).run(0, no_advance)).changes

    async def head(self) -> tuple[int, bytes]:
        async with self.ledger.reading() as reader:
            head = await reader.head()
        return head.position, head.digest

    async def kept(self, name: str) -> bytes | None:
        async with self.ledger.reading() as reader:
            return await reader.read_cursor(name)


def differences(report: ReconciliationReport, *, mended: bool = False) -> set[tuple[str, str, str, Any, Any]]:
    """The differences that a report names: those that stay, or those that were mended."""
    return {
        (each.kind, each.id, each.field, each.stated, each.books)
        for each in report.differences
        if each.mended is mended
    }


@asynccontextmanager
async def open_sync_daybook(settings: Settings) -> AsyncIterator[SyncDaybook]:
    ledger, store = open_ledger(settings), open_books(settings, BOOKS)
    try:
        await store.register()
        yield SyncDaybook(settings, ledger, store)
    finally:
        await store.close()
        await ledger.close()
