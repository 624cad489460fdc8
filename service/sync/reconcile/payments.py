"""Payments and refunds of a processor that lists them all: missed ones are appended, the others compared.

One that the processor shows otherwise than the books is recorded as observed, and compared once more.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import json

from projections.book import Row
from projections.collections import Cash, ReturnStatement, payment_cash_rows
from projections.receipts import CHANGES, Receipt
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import Event, Refund, join_key, subjects
from service.core.limits import check_limits
from service.core.processor_api import PaymentList
from service.core.rfc8259 import parse_json
from service.intake.translation import content_digest, read_delivery
from service.ledger.draft import Incoming
from service.ledger.history import EVENT_COLUMNS, to_event
from service.ledger.reader import LedgerReader
from service.sync.observations import fetched_delivery, observation_proof
from service.sync.reconcile.books import read_rows_by_key
from service.sync.reconcile.report import Differences, Facts, compare_facts
from service.sync.reconcile.session import Session

_BOOK = "collections"
_TRUSTS = ("signed", "fetched", "unsigned")  # preferably an event that counts, else an unconfirmed one


class _ListedPayment(NamedTuple):
    """A payment or refund in the list: the event that would have told of it, and that in the ledger."""

    payment_id: str
    record: dict[str, Any]
    event: Event
    recorded: Event | None

    @property
    def subject(self) -> str:
        """The name of its history in the books: of a refund that of the payment that it gave back."""
        return subjects(self.recorded or self.event)[0]


class PaymentReconciler:
    """Compares the payments and refunds of one account."""

    def __init__(self, session: Session, payments: PaymentList, account: str) -> None:
        self._session = session
        self._payments = payments
        self._account = account
        self._name = session.processor.name

    async def compare(self) -> Differences:
        """The payments and refunds whose money differs; those that the ledger lacks are appended."""
        session, differing = self._session, Differences()
        async for page in session.client.pages(self._payments.listed(self._account)):
            records = {session.client.api.id_of(body): json.decode(body) for body in page.objects}
            differing |= await self._compare_page(records)
            session.listed += len(page.objects)
            session.advance(len(page.objects))
        return differing

    async def _compare_page(self, records: Mapping[str, dict[str, Any]]) -> Differences:
        differing: Differences = {}
        listed: list[_ListedPayment] = []
        missed: list[Incoming] = []
        async with self._session.ledger.reading() as reader:
            positions = await self._read_recorded_positions(reader, records)
            for payment_id, record in records.items():
                try:
                    event = self._event(record)
                except Unreadable as error:
                    key = self._key(payment_id)
                    differing[key] = compare_facts(
                        self._payments.name, self._account, payment_id, {"shape": str(error)}, {}
                    )
                    continue
                if event is None:
                    continue
                recorded = await self._read_recorded(reader, positions, payment_id)
                listed.append(_ListedPayment(payment_id, record, event, recorded))
                if recorded is None or recorded.trust == "unsigned":
                    missed += self._missed_deliveries(listed[-1])
        await self._append_missed(missed)
        self._session.compared[self._payments.name] += len(listed)
        return differing | await self._record_differing(listed)

    def _event(self, record: Any) -> Event | None:
        event = self._payments.event(record, self._account, self._session.clock())
        return event and check_limits(event)

    # What the ledger lacks

    async def _read_recorded_positions(
        self, reader: LedgerReader, payment_ids: Mapping[str, Any]
    ) -> dict[str, int]:
        """The positions of the events that the ledger has of these payments, by event id."""
        event_ids = [event_id for payment_id in payment_ids for event_id in self._event_ids(payment_id)]
        scope = (self._name, self._account)
        return {row[0]: row[3] for row in await reader.known_ids(event_ids) if row[1:3] == scope}

    async def _read_recorded(
        self, reader: LedgerReader, positions: Mapping[str, int], payment_id: str
    ) -> Event | None:
        """The ledger's event of a payment or refund."""
        recorded = [event_id for event_id in self._event_ids(payment_id) if event_id in positions]
        if not recorded:
            return None
        [row] = await reader.rows(positions[recorded[0]] - 1, 1)
        return to_event([row[column.name] for column in EVENT_COLUMNS])

    def _event_ids(self, payment_id: str) -> list[str]:
        """The ids under which the event of a payment may be recorded, the preferred one first."""
        event_ids = self._payments.event_ids
        return [each for trust in _TRUSTS for each in event_ids(self._account, payment_id, trust)]

    def _missed_deliveries(self, listed: _ListedPayment) -> list[Incoming]:
        """The delivery that a payment lacks: of its event, or of the confirmation of its notification."""
        now, confirmations = self._session.clock(), self._session.processor.confirmations
        event: Event | None = listed.event
        if listed.recorded and confirmations:
            event = confirmations.confirm(listed.record, listed.recorded, now)
        return [fetched_delivery(self._name, listed.record, [event], now)] if event else []

    async def _append_missed(self, deliveries: Sequence[Incoming]) -> None:
        session = self._session
        session.missed.update(event.type for incoming in deliveries for event in incoming.events)
        if deliveries and not session.dry_run:
            await session.ledger.append(deliveries, session.clock())

    # What differs

    async def _record_differing(self, listed: Sequence[_ListedPayment]) -> Differences:
        """Record the payments that differ as the API shows them; the differences that stay."""
        differing = await self._differing(listed)
        if self._session.dry_run or not differing:
            return differing
        observed = [each for each in listed if self._key(each.payment_id) in differing]
        if not await self._append_observed(observed):
            return differing
        staying = await self._differing(observed)
        self._session.mended |= {key: differing[key] for key in differing.keys() - staying.keys()}
        return staying

    async def _append_observed(self, observed: Sequence[_ListedPayment]) -> int:
        """Append the payments as observed that were not last observed like that; returns their number."""
        session, now = self._session, self._session.clock()
        histories = await session.read_histories({each.subject for each in observed})
        deliveries = []
        for each in observed:
            body = self._observed_body(each)
            object_id = self._payments.observed_id(self._account, each.payment_id)
            history = histories[each.subject]
            digest = content_digest(parse_json(body), session.processor)
            proof = observation_proof(self._name, self._account, object_id, digest, history, now)
            if proof:
                deliveries.append(read_delivery(session.processor, b"{}", body, proof, session.mode_of))
        if deliveries:
            await session.ledger.append(deliveries, now)
        return len(deliveries)

    def _observed_body(self, listed: _ListedPayment) -> bytes:
        return json.encode(self._payments.observed(listed.record, listed.recorded), order="deterministic")

    async def _differing(self, listed: Sequence[_ListedPayment]) -> Differences:
        """The payments and refunds whose money differs from the books."""
        session = self._session
        await session.wait_for_books()
        keys = {each.subject for each in listed}
        by_key = [
            await read_rows_by_key(session.store, kind, _BOOK, keys)
            for kind in (Cash, ReturnStatement, Receipt)
        ]
        differing: Differences = {}
        for each in listed:
            stated = _money_facts(payment_cash_rows(self._observe(each), session.store.rules), each)
            rows = [row for found in by_key for row in found.get(each.subject, ())]
            differences = compare_facts(
                self._payments.name, self._account, each.payment_id, stated, _money_facts(rows, each)
            )
            if differences:
                differing[self._key(each.payment_id)] = differences
        return differing

    def _observe(self, listed: _ListedPayment) -> list[Event]:
        """The events that would record a payment as observed now."""
        proof = Proof(
            processor=self._name,
            method="fetch",
            received_at=self._session.clock(),
            message_id="shown",
            account=self._account,
        )
        return self._session.processor.translate(json.decode(self._observed_body(listed)), proof)

    def _key(self, payment_id: str) -> str:
        return join_key("payment", self._name, self._account, payment_id)


def _money_facts(rows: Sequence[Row], listed: _ListedPayment) -> Facts:
    """The money of one payment or refund in cash and receipts, in minor units."""
    if isinstance(listed.event.data, Refund):
        return {"refunded_cents": _cash(rows, "refunded", listed.payment_id)}
    receipts = [row for row in rows if isinstance(row, Receipt)]
    received = sum(change.cents for row in receipts for change in CHANGES.decode(row.changes))
    collected = _cash(rows, "collected", listed.payment_id) + received
    return {"collected_cents": collected, "disputed_cents": _cash(rows, "disputed", None)}


def _cash(rows: Sequence[Row], kind: str, source_id: str | None) -> int:
    """The cash of a kind, and what went back, of one source or of any."""
    cash = [row for row in rows if isinstance(row, Cash | ReturnStatement) and row.kind == kind]
    return sum(row.amount_cents for row in cash if source_id in (None, row.source_id))
