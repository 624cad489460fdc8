"""What thin events name is fetched: the event that tells the change whole, else the object as it is now."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256

import httpx
import structlog
from msgspec import json

from service.core.delivery import Processor, Proof, ThinEvents
from service.core.errors import Refused, Unavailable, Unreadable
from service.core.events import Event, ThinEvent
from service.core.moments import rfc3339
from service.core.processor_api import EventLog
from service.intake import quarantine
from service.intake.translation import read_delivery
from service.ledger.draft import Incoming
from service.ledger.fetches import has_due_fetch
from service.ledger.reader import RecordedEvent
from service.ledger.store import Ledger
from service.settings import Settings
from service.storage.tasks import cancel_and_wait, run_safely
from service.sync.client import ApiClient

_AT_ONCE = 4
_ATTEMPT_SECONDS = 60.0  # less than the first claim holds, so that nobody else begins meanwhile

log = structlog.get_logger()


class ThinFetcher:
    """Fetches what the thin events of a processor name, in tasks of its own.

    Whatever is due is in the ledger: `wake` only says that something may be. An event is claimed there, so
    many processes share the work. `appended` is called with the last position of each append.
    """

    def __init__(
        self,
        processor: Processor,
        thin_events: ThinEvents,
        event_log: EventLog,
        client: ApiClient,
        ledger: Ledger,
        clock: Callable[[], datetime],
        settings: Settings,
        appended: Callable[[int], None],
    ) -> None:
        self._processor = processor
        self._thin_events = thin_events
        self._event_log = event_log
        self._client = client
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._appended = appended
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Fetch what is due, unless enough tasks do already: each looks again before it ends."""
        if len(self._tasks) < _AT_ONCE:
            task = asyncio.create_task(run_safely(self.fetch_due), name="thin-fetcher")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def sweep(self) -> None:
        """Record what was kept in quarantine for want of an API, then fetch what is due."""
        await self.take_up()
        self.wake()

    async def close(self) -> None:
        """Stop; what was claimed is due again later."""
        for task in list(self._tasks):
            await cancel_and_wait(task)

    async def take_up(self) -> int:
        """Record the thin events in quarantine that came when no API was set up; returns their number."""
        async with self._ledger.reading() as reader:
            waiting = quarantine.read_rows(reader, processor=self._processor.name, reason=quarantine.NO_API)
            ids = [row["id"] async for row in waiting]
        for quarantine_id in ids:
            await quarantine.retry(self._ledger, quarantine_id, self._clock(), self._settings)
        return len(ids)

    async def fetch_due(self) -> None:
        """Fetch for one thin event after the other until none is due, or one fails; that is due later."""
        while event_id := await self._claim():
            try:
                async with asyncio.timeout(_ATTEMPT_SECONDS):
                    fetched = await self._fetch(event_id)
            except (Unavailable, TimeoutError) as error:
                cause = f"{self._processor.name}:{event_id}"
                detail = str(error) or "the API takes too long to answer"
                log.warning("fetch_failed", processor=self._processor.name, cause=cause, detail=detail)
                return
            outcomes = await self._ledger.finish_fetch(self._processor.name, event_id, fetched, self._clock())
            self._appended(max((outcome.end for outcome in outcomes), default=0))
            self.wake()  # there may be more, and the API answers

    async def _claim(self) -> str | None:
        now = self._clock()
        is_due = partial(has_due_fetch, processor=self._processor.name, now=now)
        if not await self._ledger.read(is_due):
            return None
        return await self._ledger.claim_fetch(self._processor.name, now)

    async def _fetch(self, event_id: str) -> list[Incoming]:
        """The deliveries that record what a thin event names; none if the ledger has it already."""
        recorded = await self._read_effective(event_id)
        if recorded is None or not isinstance(recorded.event.data, ThinEvent):
            return []
        try:
            found = await self._fetch_snapshot(event_id, recorded.event, recorded.event.data)
            if found is None:
                found = await self._fetch_object(event_id, recorded.event, recorded.event.data)
            reason = f"{self._client.api.title} has neither the event nor the object that it names"
        except Refused as refusal:
            if self._clock() < recorded.event.occurred_at + timedelta(days=self._event_log.days):
                raise
            found, reason = None, str(refusal)
        return [await self._given_up(recorded, reason)] if found is None else found

    async def _read_effective(self, event_id: str) -> RecordedEvent | None:
        async with self._ledger.reading() as reader:
            position = await reader.find_effective(self._processor.name, event_id)
            rows = await reader.rows(position - 1, 1) if position else []
            events = await reader.recorded_events(row["event_id"] for row in rows)
        return next((each for each in events if each.position == position), None)

    async def _fetch_snapshot(self, event_id: str, event: Event, thin: ThinEvent) -> list[Incoming] | None:
        """The event that tells the change, as a webhook would have brought it; None if the API has none."""
        snapshot_id = thin.snapshot_id or await self._find_snapshot_id(event_id, thin)
        if snapshot_id is None:
            return None
        if await self._is_recorded(snapshot_id):
            return []
        body = await self._client.fetch_one(self._thin_events.snapshot(snapshot_id, thin))
        if body is None:
            return None
        with suppress(Unreadable):  # then reading it says why
            body = self._event_log.read(body, event.account).body
        return [self._delivery(body)]

    async def _find_snapshot_id(self, event_id: str, thin: ThinEvent) -> str | None:
        """The id of the event that tells the change, as the API knows it; None if there is none."""
        request = self._thin_events.event(event_id, thin)
        body = await self._client.fetch_one(request)
        try:
            return None if body is None else self._thin_events.snapshot_id(body)
        except Unreadable as error:
            detail = f"{self._client.api.title}'s answer to {request.path} can't be read: {error}"
            raise Refused(detail, httpx.codes.OK) from None

    async def _is_recorded(self, event_id: str) -> bool:
        async with self._ledger.reading() as reader:
            return await reader.find_position(self._processor.name, event_id) is not None

    async def _fetch_object(self, event_id: str, event: Event, thin: ThinEvent) -> list[Incoming] | None:
        """The object as observed now, under the id of the thin event; None if the API has none."""
        request = self._thin_events.shown(thin)
        body = await self._client.fetch_one(request) if request else None
        if body is None:
            return None
        return [self._delivery(body, event_id, event.account)]

    def _delivery(self, body: bytes, observed_as: str | None = None, account: str = "") -> Incoming:
        """What was fetched just now; of an object, `observed_as` is the id of the event that shows it."""
        proof = Proof(
            processor=self._processor.name,
            method="fetch",
            received_at=self._clock(),
            trust="fetched",
            message_id=observed_as,
            account=account,
        )
        return read_delivery(self._processor, b"{}", body, proof, self._settings.mode_of)

    async def _given_up(self, recorded: RecordedEvent, detail: str) -> Incoming:
        """The thin event itself, for quarantine: there an operator sees it, and may try it again."""
        async with self._ledger.reading() as reader:
            raw = await reader.delivery(recorded.delivery)
        now = self._clock()
        log.warning(
            "fetch_given_up", processor=self._processor.name, cause=recorded.event.cause, detail=detail
        )
        return Incoming(
            events=(),
            # With the moment, so that one that was tried again, and given up again, is an entry of its own.
            content_digest=sha256(rfc3339(now).encode() + raw["body"]).digest(),
            headers=raw["headers"],
            body=raw["body"],
            proof=json.decode(raw["proof"], type=Proof),
            reason=quarantine.GONE,
            detail=detail,
        )
