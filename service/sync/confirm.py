"""Confirmation of unsigned notifications: each counts once its object, fetched from the API, confirms it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import structlog
from msgspec import DecodeError, json
from msgspec.structs import replace

from service.core.delivery import Confirmations, Processor
from service.core.errors import Refused, Unreadable
from service.core.events import Event
from service.core.limits import check_limits
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.sync.client import ApiClient
from service.sync.observations import fetched_delivery

_MAX_AGE = timedelta(days=7)  # older notifications are never confirmed

log = structlog.get_logger()


class Confirmer:
    """Confirms the notifications of a processor."""

    def __init__(
        self,
        processor: Processor,
        confirmations: Confirmations,
        client: ApiClient,
        ledger: Ledger,
        clock: Callable[[], datetime],
    ) -> None:
        self._processor = processor
        self._confirmations = confirmations
        self._client = client
        self._ledger = ledger
        self._clock = clock

    async def confirm(self) -> int:
        """Fetch the objects of unsigned notifications, append them as confirmations; returns their number.

        An object that the API refuses is skipped. Raises Unavailable, without fetching the others, once the
        API itself can't be asked.
        """
        now = self._clock()
        async with self._ledger.reading() as reader:
            unconfirmed = await reader.unconfirmed_events(
                self._processor.name, self._confirmations, now - _MAX_AGE
            )
        confirmed = 0
        for event in unconfirmed:
            fetched = await self._fetch(event)
            if fetched is not None and (delivery := self._confirmation_delivery(fetched, event, now)):
                await self._ledger.append([delivery], now)
                log.info("polled", processor=self._processor.name, deliveries=1)
                confirmed += bool(delivery.events)
        return confirmed

    async def _fetch(self, event: Event) -> dict[str, Any] | None:
        """The parsed object of a notification; None if there is none, or none that can be had."""
        request = self._confirmations.fetched(event)
        try:
            body = await self._client.fetch_one(request) if request else None
            return None if body is None else json.decode(body, type=dict[str, Any])
        except (Refused, DecodeError, UnicodeDecodeError, RecursionError) as error:
            detail = str(error) if isinstance(error, Refused) else "the answer is no JSON object"
            log.warning("payment_refused", processor=self._processor.name, cause=event.cause, detail=detail)
            return None

    def _confirmation_delivery(self, fetched: Any, notification: Event, now: datetime) -> Incoming | None:
        """The delivery that confirms a notification; None while the object has not settled."""
        try:
            event = self._confirmations.confirm(fetched, notification, now)
            events = [check_limits(event)] if event else []
        except Unreadable as error:
            unreadable = fetched_delivery(self._processor.name, fetched, (), now)
            return replace(unreadable, reason="unreadable", detail=str(error))
        return fetched_delivery(self._processor.name, fetched, events, now) if events else None
