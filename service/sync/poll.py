"""The poller: asks MX Merchant for what it signs nothing about, and appends what is new.

Contracts are compared with what the ledger last saw, and only a change is appended. A notification
that came unsigned counts once a fetch of its payment confirms it.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import structlog
from msgspec import json

from handlers import mxmerchant
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import Dispute, Event, Payment, Refund, join_key
from service.core.limits import check_limits
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.settings import Settings
from service.sync import mxmerchant_api

_BATCH = 256  # deliveries in one transaction: webhooks wait while it has the ledger's lock
_CONFIRM_WITHIN = timedelta(days=7)  # a payment that can't be found by then is given up

log = structlog.get_logger()


class Poller:
    """Fetches and appends. Close it to close its client."""

    def __init__(self, settings: Settings, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        self._merchant_id = settings.mxmerchant_merchant_id or ""
        self._client = mxmerchant_api.client_for(
            settings.mxmerchant_api_url or "",
            settings.mxmerchant_consumer_key or "",
            settings.mxmerchant_consumer_secret or "",
        )
        self._ledger = ledger
        self._clock = clock

    async def close(self) -> None:
        """Close the HTTP client."""
        await self._client.aclose()

    async def contracts(self) -> int:
        """Append what changed in the merchant's contracts; how many deliveries that made.

        Raises Unavailable if the list can't be had whole: of a part, a contract that changed might be
        missed without a word.
        """
        records = await mxmerchant_api.fetch_contracts(self._client, self._merchant_id)
        now = self._clock()
        async with self._ledger.reading() as reader:
            prefixes = [
                join_key(kind, mxmerchant.PROCESSOR, self._merchant_id, "")
                for kind in ("subscription", "customer")
            ]
            last = {
                name: event.data
                for prefix in prefixes
                for name, event in (await reader.last_events(prefix)).items()
            }
        observed = [(record, self._observe(record, now)) for record in records]
        stated = [event for _, events in observed if isinstance(events, list) for event in events]
        news = {event.event_id for event in mxmerchant.changed(stated, last)}
        deliveries = []
        for record, events in observed:
            if isinstance(events, str):
                deliveries.append(self._delivery((), record, now, reason="unreadable", detail=events))
            elif fresh := [event for event in events if event.event_id in news]:
                deliveries.append(self._delivery(fresh, record, now))
        await self._append(deliveries, now)
        return len(deliveries)

    async def confirmations(self) -> int:
        """Fetch the payments that unsigned notifications told, and append what the processor says.

        A payment that the API refuses does not keep out the others. Raises Unavailable, and asks for
        no more of them, once the API itself can't be asked.
        """
        now = self._clock()
        async with self._ledger.reading() as reader:
            told = await reader.unconfirmed_events(mxmerchant.PROCESSOR, now - _CONFIRM_WITHIN)
        confirmed = 0
        for event in told:
            payment = await self._payment(event)
            if payment is not None and (delivery := self._confirmation(payment, event, now)):
                await self._append([delivery], now)
                confirmed += bool(delivery.events)
        return confirmed

    async def _payment(self, told: Event) -> dict[str, Any] | None:
        assert isinstance(told.data, Payment | Refund | Dispute)  # noqa: S101 - `unconfirmed` finds no others
        payment_id = mxmerchant.told_id(told.data)
        try:
            return await mxmerchant_api.fetch_payment(self._client, payment_id)
        except Unreadable as error:
            log.warning(
                "payment_refused", processor=mxmerchant.PROCESSOR, cause=told.cause, detail=str(error)
            )
            return None

    def _confirmation(self, payment: dict[str, Any], told: Event, now: datetime) -> Incoming | None:
        """What the processor says of a payment; None while it has not settled, to be asked again."""
        try:
            event = check_limits(mxmerchant.confirmation(payment, told, now))
        except Unreadable as error:
            return self._delivery((), payment, now, reason="unreadable", detail=str(error))
        settled = getattr(event.data, "status", "") not in mxmerchant.UNSETTLED
        return self._delivery([event], payment, now) if settled else None

    @staticmethod
    def _observe(record: Any, now: datetime) -> list[Event] | str:
        try:
            return [check_limits(event) for event in mxmerchant.contract_events(record, now)]
        except Unreadable as error:
            return str(error)

    @staticmethod
    def _delivery(
        events: Sequence[Event], fetched: Any, now: datetime, reason: str | None = None, detail: str = ""
    ) -> Incoming:
        body = json.encode(fetched, order="deterministic")
        proof = Proof(processor=mxmerchant.PROCESSOR, method="fetch", received_at=now, trust="fetched")
        digest = sha256(body).digest()
        return Incoming(
            events=events,
            content_digest=digest,
            headers=b"{}",
            body=body,
            proof=proof,
            reason=reason,
            detail=detail,
        )

    async def _append(self, deliveries: Sequence[Incoming], now: datetime) -> None:
        for start in range(0, len(deliveries), _BATCH):
            await self._ledger.append(deliveries[start : start + _BATCH], now)
        if deliveries:
            log.info("polled", processor=mxmerchant.PROCESSOR, deliveries=len(deliveries))
