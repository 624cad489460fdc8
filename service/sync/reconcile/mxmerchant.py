"""Reconciliation with MX Merchant: compares its contracts and payments with the ledger and the books.

The poller appends changed contracts; payments and refunds without a notification are appended here, with
the trust "fetched".
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from itertools import chain
from typing import Any

from msgspec import json

from handlers import mxmerchant
from projections import bills
from projections.bills import Contract
from projections.book import Row
from projections.collections import Cash, payment_cash_rows
from projections.receipts import CHANGES, Receipt
from service.books.store import BookStore
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import Event, Refund, join_key, subjects
from service.core.limits import check_limits
from service.core.moments import day_of, rfc3339
from service.core.progress import Advance, no_advance
from service.ledger.draft import Incoming
from service.ledger.history import EVENT_COLUMNS, to_event
from service.ledger.store import Ledger, LedgerReader
from service.settings import Settings
from service.sync import mxmerchant_api
from service.sync.poll import Poller
from service.sync.reconcile.books import read_live_keys, read_row_by_key, read_rows_by_key, wait_for_head
from service.sync.reconcile.report import (
    MAX_LISTED,
    FactDifference,
    Facts,
    ReconciliationReport,
    compare_facts,
    contract_facts,
    save_report,
)

PROCESSOR = mxmerchant.PROCESSOR
_ROUNDS = 3
_TRUSTS = ("signed", "fetched", "unsigned")


class MxmerchantReconciler:
    """One run for the settings' merchant; `close` closes its HTTP clients.

    `advance` is called with the number of records of each page. A dry run writes nothing at all.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        store: BookStore,
        clock: Callable[[], datetime],
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        dry_run: bool = False,
        advance: Advance = no_advance,
    ) -> None:
        self._merchant_id = settings.mxmerchant_merchant_id or ""
        self._client = mxmerchant_api.make_client(
            settings.mxmerchant_api_url or "",
            settings.mxmerchant_consumer_key or "",
            settings.mxmerchant_consumer_secret or "",
        )
        self._poller = Poller(settings, ledger, clock)
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._pause = pause
        self._dry_run = dry_run
        self._advance = advance
        self._listed = 0
        self._missed: Counter[str] = Counter()
        self._compared: Counter[str] = Counter()

    async def close(self) -> None:
        """Close the HTTP clients."""
        await self._client.aclose()
        await self._poller.close()

    async def run(self) -> ReconciliationReport:
        """Append missed events, compare, and store the report.

        Raises Unavailable if MX Merchant or the books can't be read to the end; appended events stay.
        """
        began = self._clock()
        contracts = await self._compare_contracts()
        payments = await self._compare_payments()
        differing = contracts | payments
        report = ReconciliationReport(
            processor=PROCESSOR,
            began_at=rfc3339(began),
            finished_at=rfc3339(self._clock()),
            dry_run=self._dry_run,
            since=None,
            listed=self._listed,
            missed=dict(self._missed),
            compared=dict(self._compared),
            differing=len(differing),
            differences=tuple(chain.from_iterable(list(differing.values())[:MAX_LISTED])),
        )
        await save_report(self._ledger, report, self._clock())
        return report

    # Contracts

    async def _compare_contracts(self) -> dict[str, list[FactDifference]]:
        """The contracts that differ. They are polled and compared until the differences stay the same."""
        differing: dict[str, list[FactDifference]] = {}
        for _ in range(_ROUNDS):
            if not self._dry_run:
                await self._poller.poll_contracts()
            records = await mxmerchant_api.fetch_contracts(self._client, self._merchant_id, pause=self._pause)
            await wait_for_head(self._ledger, self._store, self._pause)
            previous, differing = differing, await self._differing_contracts(records)
            self._listed, self._compared["contract"] = len(records), len(records)
            if differing == previous or not differing:
                break
        self._advance(len(records))
        return differing

    async def _differing_contracts(self, records: Sequence[Any]) -> dict[str, list[FactDifference]]:
        today = day_of(self._clock(), self._store.rules.zone).isoformat()
        records_by_key = {self._key("subscription", str(record.get("id"))): record for record in records}
        rows = await read_row_by_key(self._store, Contract, "bills", records_by_key)
        differences_by_key: dict[str, list[FactDifference]] = {}
        for key, record in records_by_key.items():
            book_facts = contract_facts(rows[key], today) if key in rows else None
            differences_by_key[key] = self._compare(
                "contract", key, self._contract_facts(record, today), book_facts
            )
        prefix = self._key("subscription", "")
        async for keys in read_live_keys(
            self._store, Contract, "bills", prefix, lambda status: status == "active"
        ):
            for key, row in (
                await read_row_by_key(self._store, Contract, "bills", set(keys) - records_by_key.keys())
            ).items():
                differences_by_key[key] = self._compare("contract", key, None, contract_facts(row, today))
        return {key: differences for key, differences in differences_by_key.items() if differences}

    def _contract_facts(self, record: Any, today: str) -> Facts:
        try:
            event, *_ = mxmerchant.contract_events(record, self._clock())
        except Unreadable as error:
            return {"status": "unreadable", "shape": str(error)}
        [row] = bills.observed_contract_rows([event], self._store.rules)
        assert isinstance(row, Contract)  # noqa: S101 - it makes nothing else
        return contract_facts(row, today)

    # Payments

    async def _compare_payments(self) -> dict[str, list[FactDifference]]:
        """The payments and refunds whose money differs; those that the ledger lacks are appended."""
        differing: dict[str, list[FactDifference]] = {}
        async for records in mxmerchant_api.fetch_payment_pages(
            self._client, self._merchant_id, pause=self._pause
        ):
            differing |= await self._compare_payment_page(records)
            self._listed += len(records)
            self._advance(len(records))
        return differing

    async def _compare_payment_page(self, records: Sequence[Any]) -> dict[str, list[FactDifference]]:
        differing: dict[str, list[FactDifference]] = {}
        listed_events: list[tuple[str, Event]] = []  # each with the name of its history in the books
        missed = []
        async with self._ledger.reading() as reader:
            recorded_positions = await self._read_recorded_positions(reader, records)
            for record in records:
                try:
                    event = self._listed_payment(record)
                except Unreadable as error:
                    key = self._key("payment", str(record.get("id")))
                    differing[key] = self._compare("payment", key, {"shape": str(error)}, {})
                    continue
                if event is None:
                    continue
                recorded = await self._read_recorded_event(reader, recorded_positions, str(record["id"]))
                listed_events.append((subjects(recorded or event)[0], event))
                if recorded is None or recorded.trust == "unsigned":
                    fetched = mxmerchant.confirmation(record, recorded, self._clock()) if recorded else event
                    missed.append(_fetched_delivery(record, fetched, self._clock()))
        await self._append(missed)
        self._compared["payment"] += len(listed_events)
        return differing | await self._differing_payments(listed_events)

    def _listed_payment(self, record: Any) -> Event | None:
        event = mxmerchant.listed_payment_event(record, self._merchant_id, self._clock())
        return event and check_limits(event)

    async def _read_recorded_positions(self, reader: LedgerReader, records: Sequence[Any]) -> dict[str, int]:
        """The positions of the events that the ledger has of these payments, by event id."""
        keys = [str(record.get("id")) for record in records]
        event_ids = [
            event_id for key in keys for trust in _TRUSTS for event_id in self._possible_event_ids(key, trust)
        ]
        scope = (PROCESSOR, self._merchant_id)
        return {row[0]: row[3] for row in await reader.known_ids(event_ids) if row[1:3] == scope}

    async def _read_recorded_event(
        self, reader: LedgerReader, recorded_positions: Mapping[str, int], key: str
    ) -> Event | None:
        """The ledger's event of a payment or refund: preferably one that counts, else an unconfirmed one."""
        event_ids = [
            event_id
            for trust in _TRUSTS
            for event_id in self._possible_event_ids(key, trust)
            if event_id in recorded_positions
        ]
        if not event_ids:
            return None
        [row] = await reader.rows(recorded_positions[event_ids[0]] - 1, 1)
        return to_event([row[column.name] for column in EVENT_COLUMNS])

    def _possible_event_ids(self, key: str, trust: str) -> list[str]:
        return mxmerchant.payment_event_ids(self._merchant_id, key, trust)

    async def _append(self, deliveries: Sequence[Incoming]) -> None:
        self._missed.update(event.type for incoming in deliveries for event in incoming.events)
        if deliveries and not self._dry_run:
            await self._ledger.append(deliveries, self._clock())

    async def _differing_payments(
        self, listed_events: Sequence[tuple[str, Event]]
    ) -> dict[str, list[FactDifference]]:
        """The listed payments and refunds whose money differs from the books."""
        await wait_for_head(self._ledger, self._store, self._pause)
        keys = {subject for subject, _ in listed_events}
        cash_by_key = await read_rows_by_key(self._store, Cash, "collections", keys)
        receipts_by_key = await read_rows_by_key(self._store, Receipt, "collections", keys)
        differing = {}
        for subject, event in listed_events:
            key = self._key("payment", mxmerchant.api_payment_id(event.data))  # type: ignore[arg-type]
            listed_facts = _money_facts(payment_cash_rows([event], self._store.rules), event)
            rows = [*cash_by_key.get(subject, ()), *receipts_by_key.get(subject, ())]
            if differences := self._compare("payment", key, listed_facts, _money_facts(rows, event)):
                differing[key] = differences
        return differing

    def _compare(
        self, kind: str, key: str, stated: Mapping[str, Any] | None, books: Mapping[str, Any] | None
    ) -> list[FactDifference]:
        return compare_facts(kind, self._merchant_id, key.rpartition("|")[2], stated, books)

    def _key(self, kind: str, key: str) -> str:
        return join_key(kind, PROCESSOR, self._merchant_id, key)


def _money_facts(rows: Sequence[Row], event: Event) -> Facts:
    """The money of one payment or refund in cash and receipts: minor units collected, or refunded."""
    kind = "refunded" if isinstance(event.data, Refund) else "collected"
    source_id = mxmerchant.api_payment_id(event.data)  # type: ignore[arg-type]
    cash = [row for row in rows if isinstance(row, Cash) and (row.kind, row.source_id) == (kind, source_id)]
    receipts = [row for row in rows if isinstance(row, Receipt) and kind == "collected"]
    received = sum(change.cents for row in receipts for change in CHANGES.decode(row.changes))
    return {f"{kind}_cents": sum(row.amount_cents for row in cash) + received}


def _fetched_delivery(record: Any, event: Event, now: datetime) -> Incoming:
    body = json.encode(record, order="deterministic")
    return Incoming(
        events=[event],
        content_digest=sha256(body).digest(),
        headers=b"{}",
        body=body,
        proof=Proof(processor=PROCESSOR, method="fetch", received_at=now, trust="fetched"),
    )
