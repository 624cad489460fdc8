"""Reconciliation with MX Merchant: its contracts and payments beside the ledger and the books.

The poller appends contracts that changed; payments and refunds that no notification told are appended
here, as fetched.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from msgspec import json

from handlers import mxmerchant
from projections import bills
from projections.bills import Contract
from projections.book import Row
from projections.collections import Cash, payment_cash_rows
from service.books.store import BookStore
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import Event, Refund, join_key, subjects
from service.core.limits import check_limits
from service.core.moments import day_of, rfc3339
from service.ledger.draft import Incoming
from service.ledger.history import EVENT_COLUMNS, to_event
from service.ledger.store import Ledger, LedgerReader
from service.settings import Settings
from service.sync import mxmerchant_api
from service.sync.poll import Poller
from service.sync.reconcile.books import live_keys, reach_head, rows_of, several_of
from service.sync.reconcile.report import MOST, Difference, Facts, Report, compared, conclude, contract_facts

PROCESSOR = mxmerchant.PROCESSOR
_ROUNDS = 3
_TRUSTS = ("signed", "fetched", "unsigned")


class Reconciler:
    """One run for the settings' merchant; close it to close its clients.

    `done` is told of each page; a dry run writes nothing at all.
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
        done: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._merchant_id = settings.mxmerchant_merchant_id or ""
        self._client = mxmerchant_api.client_for(
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
        self._done = done
        self._listed = 0
        self._missed: Counter[str] = Counter()
        self._compared: Counter[str] = Counter()

    async def close(self) -> None:
        """Close the HTTP clients."""
        await self._client.aclose()
        await self._poller.close()

    async def run(self) -> Report:
        """Append what is missing, compare, and keep the report.

        Raises Unavailable if MX Merchant or the books can't be asked to the end; what was appended stays.
        """
        began = self._clock()
        contracts = await self._contracts()
        payments = await self._payments()
        found = contracts | payments
        report = Report(
            processor=PROCESSOR,
            began_at=rfc3339(began),
            finished_at=rfc3339(self._clock()),
            dry_run=self._dry_run,
            since=None,
            listed=self._listed,
            missed=dict(self._missed),
            compared=dict(self._compared),
            differing=len(found),
            differences=tuple(each for several in list(found.values())[:MOST] for each in several),
        )
        await conclude(self._ledger, report, self._clock())
        return report

    # Contracts

    async def _contracts(self) -> dict[str, list[Difference]]:
        """The contracts that differ; those that changed while they were compared are polled again."""
        found: dict[str, list[Difference]] = {}
        for _ in range(_ROUNDS):
            if not self._dry_run:
                await self._poller.contracts()
            records = await mxmerchant_api.fetch_contracts(self._client, self._merchant_id, pause=self._pause)
            await reach_head(self._ledger, self._store, self._pause)
            before, found = found, await self._differing_contracts(records)
            self._listed, self._compared["contract"] = len(records), len(records)
            if found == before or not found:
                break
        self._done(len(records))
        return found

    async def _differing_contracts(self, records: Sequence[Any]) -> dict[str, list[Difference]]:
        today = day_of(self._clock(), self._store.rules.zone).isoformat()
        stated = {self._key("subscription", str(record.get("id"))): record for record in records}
        rows = await rows_of(self._store, Contract, "bills", stated)
        found: dict[str, list[Difference]] = {}
        for key, record in stated.items():
            books = contract_facts(rows[key], today) if key in rows else None
            found[key] = self._compare("contract", key, self._contract_facts(record, today), books)
        prefix = self._key("subscription", "")
        async for keys in live_keys(
            self._store, Contract, "bills", prefix, lambda status: status == "active"
        ):
            for key, row in (
                await rows_of(self._store, Contract, "bills", set(keys) - stated.keys())
            ).items():
                found[key] = self._compare("contract", key, None, contract_facts(row, today))
        return {key: differences for key, differences in found.items() if differences}

    def _contract_facts(self, record: Any, today: str) -> Facts:
        try:
            event, *_ = mxmerchant.contract_events(record, self._clock())
        except Unreadable as error:
            return {"status": "unreadable", "shape": str(error)}
        [row] = bills.contract_rows([event], self._store.rules)
        assert isinstance(row, Contract)  # noqa: S101 - it makes nothing else
        return contract_facts(row, today)

    # Payments

    async def _payments(self) -> dict[str, list[Difference]]:
        """Append the payments and refunds that the ledger lacks; those whose money differs."""
        found: dict[str, list[Difference]] = {}
        async for records in mxmerchant_api.payment_pages(self._client, self._merchant_id, pause=self._pause):
            listed: list[tuple[str, Event]] = []  # each with the history in which the books have it
            missing = []
            async with self._ledger.reading() as reader:
                ids = await self._ids(reader, records)
                for record in records:
                    try:
                        event = self._listed_payment(record)
                    except Unreadable as error:
                        key = self._key("payment", str(record.get("id")))
                        found[key] = self._compare("payment", key, {"shape": str(error)}, {})
                        continue
                    if event is None:
                        continue
                    known = await self._known(reader, ids, str(record["id"]))
                    listed.append((subjects(known or event)[0], event))
                    if known is None or known.trust == "unsigned":
                        fresh = mxmerchant.confirmation(record, known, self._clock()) if known else event
                        missing.append(_fetched(record, fresh, self._clock()))
            await self._append(missing)
            found |= await self._differing_payments(listed)
            self._listed += len(records)
            self._compared["payment"] += len(listed)
            self._done(len(records))
        return found

    def _listed_payment(self, record: Any) -> Event | None:
        event = mxmerchant.listed(record, self._merchant_id, self._clock())
        return event and check_limits(event)

    async def _ids(self, reader: LedgerReader, records: Sequence[Any]) -> dict[str, int]:
        """Under which ids the ledger holds any of these, and where."""
        keys = [str(record.get("id")) for record in records]
        names = [name for key in keys for trust in _TRUSTS for name in self._names(key, trust)]
        scope = (PROCESSOR, self._merchant_id)
        return {row[0]: row[3] for row in await reader.known_ids(names) if row[1:3] == scope}

    async def _known(self, reader: LedgerReader, ids: Mapping[str, int], key: str) -> Event | None:
        """The event by which the ledger knows a payment or refund, one that counts before one that waits."""
        names = [name for trust in _TRUSTS for name in self._names(key, trust) if name in ids]
        if not names:
            return None
        [row] = await reader.rows(ids[names[0]] - 1, 1)
        return to_event([row[column.name] for column in EVENT_COLUMNS])

    def _names(self, key: str, trust: str) -> list[str]:
        return mxmerchant.event_ids(self._merchant_id, key, trust)

    async def _append(self, missing: Sequence[Incoming]) -> None:
        self._missed.update(event.type for incoming in missing for event in incoming.events)
        if missing and not self._dry_run:
            await self._ledger.append(missing, self._clock())

    async def _differing_payments(self, listed: Sequence[tuple[str, Event]]) -> dict[str, list[Difference]]:
        """Of a page of payments and refunds those whose money the books have otherwise."""
        await reach_head(self._ledger, self._store, self._pause)
        rows = await several_of(self._store, Cash, "collections", {subject for subject, _ in listed})
        found = {}
        for subject, event in listed:
            key = self._key("payment", mxmerchant.told_id(event.data))  # type: ignore[arg-type]
            stated = _money(payment_cash_rows([event], self._store.rules), event)
            if differences := self._compare("payment", key, stated, _money(rows.get(subject, ()), event)):
                found[key] = differences
        return found

    def _compare(
        self, kind: str, key: str, stated: Mapping[str, Any] | None, books: Mapping[str, Any] | None
    ) -> list[Difference]:
        return compared(kind, self._merchant_id, key.rpartition("|")[2], stated, books)

    def _key(self, kind: str, key: str) -> str:
        return join_key(kind, PROCESSOR, self._merchant_id, key)


def _money(rows: Sequence[Row], event: Event) -> Facts:
    """What cash rows say of one payment or refund: minor units collected, or refunded."""
    kind = "refunded" if isinstance(event.data, Refund) else "collected"
    source_id = mxmerchant.told_id(event.data)  # type: ignore[arg-type]
    own = [row for row in rows if isinstance(row, Cash) and (row.kind, row.source_id) == (kind, source_id)]
    return {f"{kind}_cents": sum(row.amount_cents for row in own)}


def _fetched(record: Any, event: Event, now: datetime) -> Incoming:
    body = json.encode(record, order="deterministic")
    return Incoming(
        events=[event],
        content_digest=sha256(body).digest(),
        headers=b"{}",
        body=body,
        proof=Proof(processor=PROCESSOR, method="fetch", received_at=now, trust="fetched"),
    )
