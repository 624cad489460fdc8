"""The poller: fetches contracts and payments from MX Merchant's API, and appends the changes.

Contracts are compared with their last state in the ledger, and only changes are appended. An unsigned
notification counts once its payment, fetched from the API, confirms it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import structlog
from msgspec import json
from msgspec.structs import replace

from handlers.mxmerchant import NAME, contracts, payments, translate
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import Dispute, Event, Payment, Refund, Subscription, join_key
from service.core.limits import check_limits
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.settings import Settings
from service.sync import mxmerchant_api

_BATCH = 256  # deliveries in one transaction: webhooks wait while it has the ledger's lock
_MAX_CONFIRMATION_AGE = timedelta(days=7)  # older notifications are never confirmed

log = structlog.get_logger()


class Poller:
    """Polls the contracts of the settings' merchant and confirms payments. `close` closes its HTTP client."""

    def __init__(self, settings: Settings, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        self._merchant_id = settings.mxmerchant_merchant_id or ""
        self._client = mxmerchant_api.make_client(
            settings.mxmerchant_api_url or "",
            settings.mxmerchant_consumer_key or "",
            settings.mxmerchant_consumer_secret or "",
        )
        self._ledger = ledger
        self._clock = clock

    async def close(self) -> None:
        """Close the HTTP client."""
        await self._client.aclose()

    async def poll_contracts(self) -> int:
        """Append the changed contracts of the merchant; returns the number of deliveries appended.

        One that the whole list no longer holds has ended.

        Raises Unavailable if a page of the list can't be fetched: with a partial list, a change would go
        unnoticed.
        """
        began = self._clock()
        records = await mxmerchant_api.fetch_contracts(self._client, self._merchant_id)
        now = self._clock()
        async with self._ledger.reading() as reader:
            prefixes = [join_key(kind, NAME, self._merchant_id, "") for kind in ("subscription", "customer")]
            last_events = {
                subject: event
                for prefix in prefixes
                for subject, event in (await reader.last_events(prefix)).items()
            }
        last_known = {subject: event.data for subject, event in last_events.items()}
        observations = [(record, self._observe(record, now)) for record in records]
        observed_events = [
            event for _, events in observations if isinstance(events, list) for event in events
        ]
        changed_ids = {event.event_id for event in contracts.changed_events(observed_events, last_known)}
        deliveries = []
        for record, events in observations:
            if isinstance(events, str):
                deliveries.append(self._delivery((), record, now, reason="unreadable", detail=events))
            elif changed := [event for event in events if event.event_id in changed_ids]:
                deliveries.append(self._delivery(changed, record, now))
        deliveries += self._missing_deliveries(records, last_events.values(), began, now)
        await self._append(deliveries, now)
        return len(deliveries)

    def _missing_deliveries(
        self, records: Sequence[Any], last_events: Iterable[Event], began: datetime, now: datetime
    ) -> Iterator[Incoming]:
        """The ends of the contracts that a whole list no longer holds; an empty list ends none.

        One that was heard of since the list began may not be in it yet.
        """
        listed_ids = {str(record.get("id")) for record in records}
        for event in last_events if records else ():
            data = event.data
            if (
                isinstance(data, Subscription)
                and data.status != contracts.MISSING_STATUS
                and data.subscription_id not in listed_ids
                and event.occurred_at < began
            ):
                body = contracts.missing_contract(data, self._merchant_id, len(records))
                missing = self._delivery((), body, now)
                yield replace(missing, events=translate(body, missing.proof))

    async def confirm_payments(self) -> int:
        """Fetch the payments of unsigned notifications, append them as confirmations; returns their number.

        A payment that the API refuses is skipped. Raises Unavailable, without fetching the others, once the
        API itself can't be asked.
        """
        now = self._clock()
        async with self._ledger.reading() as reader:
            unconfirmed = await reader.unconfirmed_events(NAME, now - _MAX_CONFIRMATION_AGE)
        confirmed = 0
        for event in unconfirmed:
            payment = await self._fetch_payment(event)
            if payment is not None and (delivery := self._confirmation_delivery(payment, event, now)):
                await self._append([delivery], now)
                confirmed += bool(delivery.events)
        return confirmed

    async def _fetch_payment(self, event: Event) -> dict[str, Any] | None:
        assert isinstance(event.data, Payment | Refund | Dispute)  # noqa: S101 - `unconfirmed` finds no others
        payment_id = payments.api_payment_id(event.data)
        try:
            return await mxmerchant_api.fetch_payment(self._client, payment_id)
        except Unreadable as error:
            log.warning("payment_refused", processor=NAME, cause=event.cause, detail=str(error))
            return None

    def _confirmation_delivery(
        self, payment: dict[str, Any], notification_event: Event, now: datetime
    ) -> Incoming | None:
        """The delivery that confirms a notification; None while the payment has not settled."""
        try:
            event = check_limits(payments.confirmation(payment, notification_event, now))
        except Unreadable as error:
            return self._delivery((), payment, now, reason="unreadable", detail=str(error))
        is_settled = getattr(event.data, "status", "") not in payments.UNSETTLED
        return self._delivery([event], payment, now) if is_settled else None

    @staticmethod
    def _observe(record: Any, now: datetime) -> list[Event] | str:
        try:
            return [check_limits(event) for event in contracts.contract_events(record, now)]
        except Unreadable as error:
            return str(error)

    @staticmethod
    def _delivery(
        events: Sequence[Event], fetched: Any, now: datetime, reason: str | None = None, detail: str = ""
    ) -> Incoming:
        body = json.encode(fetched, order="deterministic")
        proof = Proof(processor=NAME, method="fetch", received_at=now, trust="fetched")
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
            log.info("polled", processor=NAME, deliveries=len(deliveries))
