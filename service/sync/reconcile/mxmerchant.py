"""Reconciliation with MX Merchant: compares its contracts and payments with the ledger and the books.

The poller appends changed contracts; payments and refunds without a notification are appended here, with
the trust "fetched". What it shows otherwise than the books is recorded as observed.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from msgspec import json
from sqlalchemy import Connection

from handlers.mxmerchant import NAME, contracts, payments, translate
from projections import bills
from projections.bills import Contract
from projections.book import Row
from projections.collections import Cash, payment_cash_rows
from projections.receipts import CHANGES, Receipt
from service.books.store import BookStore
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import NO_CURRENCY, UNKNOWN_CUSTOMER, Event, Refund, join_key, subjects
from service.core.limits import check_limits
from service.core.moments import day_of, rfc3339
from service.core.progress import Advance, no_advance
from service.ledger.append import read_head
from service.ledger.draft import Incoming
from service.ledger.history import EVENT_COLUMNS, read_histories, to_event
from service.ledger.store import Ledger, LedgerReader
from service.settings import Settings
from service.sync import mxmerchant_api
from service.sync.observations import observation_proof
from service.sync.poll import Poller
from service.sync.reconcile.books import read_live_keys, read_row_by_key, read_rows_by_key, wait_for_head
from service.sync.reconcile.report import (
    FactDifference,
    Facts,
    ReconciliationReport,
    compare_facts,
    contract_facts,
    listed_differences,
    save_report,
)

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
        self._mended: dict[str, list[FactDifference]] = {}  # by the key of each object

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
            processor=NAME,
            began_at=rfc3339(began),
            finished_at=rfc3339(self._clock()),
            dry_run=self._dry_run,
            since=None,
            listed=self._listed,
            missed=dict(self._missed),
            compared=dict(self._compared),
            mended=dict(Counter(differences[0].kind for differences in self._mended.values())),
            differing=len(differing),
            differences=listed_differences(differing, self._mended),
        )
        await save_report(self._ledger, report, self._clock())
        return report

    # Contracts

    async def _compare_contracts(self) -> dict[str, list[FactDifference]]:
        """The contracts that differ. They are polled and compared until the differences stay the same."""
        first = differing = await self._list_contracts()
        for _ in range(_ROUNDS):
            if not self._dry_run:
                await self._poller.poll_contracts()
            previous, differing = differing, await self._list_contracts()
            if differing == previous or not differing:
                break
        self._mended |= {key: first[key] for key in first.keys() - differing.keys()}
        self._advance(self._listed)
        return differing

    async def _list_contracts(self) -> dict[str, list[FactDifference]]:
        records = await mxmerchant_api.fetch_contracts(self._client, self._merchant_id, pause=self._pause)
        await wait_for_head(self._ledger, self._store, self._pause)
        self._listed = self._compared["contract"] = len(records)
        return await self._differing_contracts(records)

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
            event, *_ = contracts.contract_events(record, self._clock())
        except Unreadable as error:
            return {"status": "unreadable", "shape": str(error)}
        [row] = bills.observed_contract_rows([event], self._store.rules)
        assert isinstance(row, Contract)  # noqa: S101 - it makes nothing else
        facts = contract_facts(row, today)
        if row.customer_id == UNKNOWN_CUSTOMER or row.currency == NO_CURRENCY:
            return {"status": facts["status"]}  # its end is all that can be read of it
        del facts["cancel_date"]  # no record states one: it is the day on which an end was observed
        return facts

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
        listed: list[_ListedPayment] = []
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
                listed.append(_ListedPayment(record, event, recorded))
                if recorded is None or recorded.trust == "unsigned":
                    fetched = payments.confirmation(record, recorded, self._clock()) if recorded else event
                    missed.append(_fetched_delivery(record, fetched, self._clock()))
        await self._append(missed)
        self._compared["payment"] += len(listed)
        return differing | await self._record_differing(listed)

    async def _record_differing(self, listed: Sequence["_ListedPayment"]) -> dict[str, list[FactDifference]]:
        """Record the payments that differ as MX Merchant shows them; the differences that stay."""
        differing = await self._differing_payments(listed)
        if self._dry_run or not differing:
            return differing
        observed = [each for each in listed if self._payment_key(each) in differing]
        if not await self._append_observed(observed):
            return differing
        staying = await self._differing_payments(observed)
        self._mended |= {key: differing[key] for key in differing.keys() - staying.keys()}
        return staying

    async def _append_observed(self, observed: Sequence["_ListedPayment"]) -> int:
        """Append the payments as observed that were not last observed like that; returns their number."""
        now = self._clock()

        def read(connection: Connection) -> dict[str, list[Event]]:
            subjects = {each.subject for each in observed}
            return read_histories(connection, subjects, read_head(connection).position, self._ledger.vault)

        histories = await self._ledger.read(read)
        deliveries = []
        for each in observed:
            body, key = json.encode(each.observed_record, order="deterministic"), str(each.record["id"])
            object_id = f"payment:{self._merchant_id}:{key}"
            history = histories[each.subject]
            proof = observation_proof(NAME, self._merchant_id, object_id, body, history, now)
            if proof:
                events = translate(each.observed_record, proof)
                deliveries.append(_delivery(body, events, proof))
        if deliveries:
            await self._ledger.append(deliveries, now)
        return len(deliveries)

    def _listed_payment(self, record: Any) -> Event | None:
        event = payments.listed_payment_event(record, self._merchant_id, self._clock())
        return event and check_limits(event)

    async def _read_recorded_positions(self, reader: LedgerReader, records: Sequence[Any]) -> dict[str, int]:
        """The positions of the events that the ledger has of these payments, by event id."""
        keys = [str(record.get("id")) for record in records]
        event_ids = [
            event_id for key in keys for trust in _TRUSTS for event_id in self._possible_event_ids(key, trust)
        ]
        scope = (NAME, self._merchant_id)
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
        return payments.payment_event_ids(self._merchant_id, key, trust)

    async def _append(self, deliveries: Sequence[Incoming]) -> None:
        self._missed.update(event.type for incoming in deliveries for event in incoming.events)
        if deliveries and not self._dry_run:
            await self._ledger.append(deliveries, self._clock())

    async def _differing_payments(
        self, listed: Sequence["_ListedPayment"]
    ) -> dict[str, list[FactDifference]]:
        """The listed payments and refunds whose money differs from the books."""
        await wait_for_head(self._ledger, self._store, self._pause)
        keys = {each.subject for each in listed}
        cash_by_key = await read_rows_by_key(self._store, Cash, "collections", keys)
        receipts_by_key = await read_rows_by_key(self._store, Receipt, "collections", keys)
        differing = {}
        for each in listed:
            key = self._payment_key(each)
            listed_facts = _money_facts(payment_cash_rows([each.event], self._store.rules), each)
            if payments.is_charged_back(each.record):
                listed_facts["disputed_cents"] = each.event.data.amount  # type: ignore[attr-defined]
            rows = [*cash_by_key.get(each.subject, ()), *receipts_by_key.get(each.subject, ())]
            if differences := self._compare("payment", key, listed_facts, _money_facts(rows, each)):
                differing[key] = differences
        return differing

    def _payment_key(self, listed: "_ListedPayment") -> str:
        return self._key("payment", str(listed.record["id"]))

    def _compare(
        self, kind: str, key: str, stated: Mapping[str, Any] | None, books: Mapping[str, Any] | None
    ) -> list[FactDifference]:
        return compare_facts(kind, self._merchant_id, key.rpartition("|")[2], stated, books)

    def _key(self, kind: str, key: str) -> str:
        return join_key(kind, NAME, self._merchant_id, key)


class _ListedPayment(NamedTuple):
    """A payment or refund in the list, as the event that it would be and the event in the ledger."""

    record: dict[str, Any]
    event: Event
    recorded: Event | None

    @property
    def subject(self) -> str:
        """The name of its history in the books: of a refund that of the payment that it gave back."""
        return subjects(self.recorded or self.event)[0]

    @property
    def observed_record(self) -> dict[str, Any]:
        """The record, with the payment that a refund gave back where only the ledger knows it."""
        payment_id = getattr(self.recorded and self.recorded.data, "payment_id", None)
        is_refund = isinstance(self.event.data, Refund)
        return {"originalPaymentId": payment_id} | self.record if is_refund and payment_id else self.record


def _money_facts(rows: Sequence[Row], listed: _ListedPayment) -> Facts:
    """The money of one payment or refund in cash and receipts, in minor units."""
    if isinstance(listed.event.data, Refund):
        return {"refunded_cents": _cash(rows, "refunded", str(listed.record["id"]))}
    receipts = [row for row in rows if isinstance(row, Receipt)]
    received = sum(change.cents for row in receipts for change in CHANGES.decode(row.changes))
    collected = _cash(rows, "collected", str(listed.record["id"])) + received
    return {"collected_cents": collected, "disputed_cents": _cash(rows, "disputed", None)}


def _cash(rows: Sequence[Row], kind: str, source_id: str | None) -> int:
    """The cash of a kind, of one source or of any."""
    cash = [row for row in rows if isinstance(row, Cash) and row.kind == kind]
    return sum(row.amount_cents for row in cash if source_id in (None, row.source_id))


def _fetched_delivery(record: Any, event: Event, now: datetime) -> Incoming:
    proof = Proof(processor=NAME, method="fetch", received_at=now, trust="fetched")
    return _delivery(json.encode(record, order="deterministic"), [event], proof)


def _delivery(body: bytes, events: Sequence[Event], proof: Proof) -> Incoming:
    digest = sha256(body).digest()
    return Incoming(events=events, content_digest=digest, headers=b"{}", body=body, proof=proof)
