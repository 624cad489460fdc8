"""The poller: lists a processor's contracts, and appends those that changed since they were last recorded."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from msgspec import json
from msgspec.structs import replace

from service.core.changes import changed_events
from service.core.delivery import Processor
from service.core.errors import Unavailable, Unreadable
from service.core.events import Event, Subscription, join_key
from service.core.limits import check_limits
from service.core.processor_api import ContractList
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.sync.client import ApiClient
from service.sync.observations import fetched_delivery

_BATCH = 256  # deliveries in one transaction: webhooks wait while it has the ledger's lock
_HISTORIES = ("subscription", "customer")  # a contract tells of both

log = structlog.get_logger()


class Poller:
    """Polls the contracts of the account to which the client's credentials belong."""

    def __init__(
        self,
        processor: Processor,
        contracts: ContractList,
        client: ApiClient,
        ledger: Ledger,
        clock: Callable[[], datetime],
    ) -> None:
        self._processor = processor
        self._contracts = contracts
        self._client = client
        self._account = client.own_account
        self._ledger = ledger
        self._clock = clock

    async def poll(self) -> int:
        """Append the contracts that changed; returns the number of deliveries appended.

        Raises Unavailable if a page of the list can't be fetched: with a partial list, a change would go
        unnoticed.
        """
        began = self._clock()
        deliveries = await self.changes(await self.list_contracts(), began)
        await self.append(deliveries)
        return len(deliveries)

    async def changes(self, records: Mapping[str, Any], began: datetime) -> list[Incoming]:
        """The deliveries by which the contracts are recorded that changed, of a list that was asked for then.

        One that the whole list no longer has has ended.
        """
        now = self._clock()
        last_events = await self._read_last_events()
        last_known = {subject: event.data for subject, event in last_events.items()}
        observations = [(record, self._observe(record, now)) for record in records.values()]
        observed_events = [
            event for _, events in observations if isinstance(events, list) for event in events
        ]
        changed_ids = {event.event_id for event in changed_events(observed_events, last_known)}
        deliveries = []
        for record, events in observations:
            if isinstance(events, str):
                unreadable = self._delivery((), record, now)
                deliveries.append(replace(unreadable, reason="unreadable", detail=events))
            elif changed := [event for event in events if event.event_id in changed_ids]:
                deliveries.append(self._delivery(changed, record, now))
        deliveries += self._missing_deliveries(records, last_events.values(), began, now)
        return deliveries

    async def list_contracts(self) -> Mapping[str, Any]:
        """Every contract record by its id. Raises Unavailable if the list is not whole."""
        records: dict[str, Any] = {}
        count: int | None = None
        async for page in self._client.pages(self._contracts.listed(self._account)):
            records |= {self._client.api.id_of(body): json.decode(body) for body in page.objects}
            count = page.count
        if count not in (None, len(records)):  # with a short list, the change of one would go unnoticed
            raise Unavailable(f"{self._client.api.title} listed {len(records)} of {count} contracts")
        return records

    async def _read_last_events(self) -> dict[str, Event]:
        """The last event of each contract and customer of the account, by the name of its history."""
        prefixes = [join_key(kind, self._processor.name, self._account, "") for kind in _HISTORIES]
        async with self._ledger.reading() as reader:
            return {
                subject: event
                for prefix in prefixes
                for subject, event in (await reader.last_events(prefix)).items()
            }

    def _missing_deliveries(
        self, records: Mapping[str, Any], last_events: Iterable[Event], began: datetime, now: datetime
    ) -> Iterator[Incoming]:
        """The ends of the contracts that a whole list no longer has; an empty list ends none.

        One that was heard of since the list began may not be in it yet.
        """
        for event in last_events if records else ():
            data = event.data
            if not isinstance(data, Subscription) or data.subscription_id in records:
                continue
            body = self._contracts.missing(data, self._account, len(records))
            if body is not None and event.occurred_at < began:
                missing = self._delivery((), body, now)
                yield replace(missing, events=self._processor.translate(body, missing.proof))

    def _observe(self, record: Any, now: datetime) -> list[Event] | str:
        """The events of a record, or why it can't be read."""
        try:
            return [check_limits(event) for event in self._contracts.events(record, now)]
        except Unreadable as error:
            return str(error)

    def _delivery(self, events: Sequence[Event], fetched: Any, now: datetime) -> Incoming:
        return fetched_delivery(self._processor.name, fetched, events, now)

    async def append(self, deliveries: Sequence[Incoming]) -> None:
        """Append these deliveries, some at a time."""
        for start in range(0, len(deliveries), _BATCH):
            await self._ledger.append(deliveries[start : start + _BATCH], self._clock())
        if deliveries:
            log.info("polled", processor=self._processor.name, deliveries=len(deliveries))
