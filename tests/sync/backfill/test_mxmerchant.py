"""MX Merchant's contracts are polled, and its payments recorded as observed, with days of their own."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import json

from handlers import mxmerchant
from service.core.delivery import Proof
from service.intake.translation import read_delivery
from service.sync.backfill.report import ListResult
from tests.support.modes import live
from tests.support.mxmerchant_api import MERCHANT, MxApi, payment
from tests.support.stripe_api import serve
from tests.support.sync_daybook import SyncDaybook, mxmerchant_settings, open_sync_daybook


@pytest.fixture
def api() -> Iterator[MxApi]:
    with serve(MxApi()) as api:
        yield api


@pytest.fixture
async def daybook(data_dir: Path, api: MxApi) -> AsyncIterator[SyncDaybook]:
    async with open_sync_daybook(mxmerchant_settings(data_dir, api)) as daybook:
        yield daybook


async def backfill(daybook: SyncDaybook, *, dry_run: bool = False) -> dict[str, ListResult]:
    assert mxmerchant.PROCESSOR.api
    values = daybook.settings.values_of(mxmerchant.PROCESSOR.api)
    return await daybook.backfill_from(mxmerchant.PROCESSOR, values, MERCHANT, dry_run=dry_run)


async def money(daybook: SyncDaybook, table: str, columns: str) -> list[tuple[object, ...]]:
    async with daybook.store.reading() as connection:
        rows = await connection.exec_driver_sql(f"SELECT {columns} FROM {table} ORDER BY {columns}")
        return [tuple(row) for row in rows]


async def test_contracts_and_payments_are_recorded_once(daybook: SyncDaybook, api: MxApi) -> None:
    api.payments = [
        payment(1),
        payment(2, "-5.00", originalPaymentId=1),
        payment(3, status="Declined"),
        payment(4, status="Pending"),
        *(payment(number) for number in range(5, 30)),
    ]

    dry = await backfill(daybook, dry_run=True)
    assert (await daybook.head())[0] == 0
    first = await backfill(daybook)
    head = await daybook.head()
    daybook.now += timedelta(days=1)
    second = await backfill(daybook)

    assert dry == first
    counts = {name: (each.listed, each.recorded) for name, each in first.items()}
    assert counts == {"contracts": (14, 14), "payments": (29, 28)}
    assert [each.recorded for each in second.values()] == [0, 0]
    assert await daybook.head() == head
    assert await daybook.retranslation_changes() == []


async def test_money_moves_on_the_days_that_the_api_states(daybook: SyncDaybook, api: MxApi) -> None:
    api.payments = [payment(1), payment(2, "-5.00", originalPaymentId=1), payment(3, status="Declined")]

    await backfill(daybook)

    assert await money(daybook, "cash", "date, kind, amount_cents") == [
        ("2025-10-02", "collected", 1_111),
        ("2025-10-02", "refunded", 500),
    ]
    assert await money(daybook, "failures", "date") == [("2025-10-02",)]


async def test_of_a_chargeback_only_the_day_is_known_on_which_it_was_seen(
    daybook: SyncDaybook, api: MxApi
) -> None:
    api.payments = [payment(1, status="ChargedBack")]

    await backfill(daybook)

    assert await money(daybook, "cash", "date, kind, amount_cents") == [
        ("2025-10-02", "collected", 1_111),
        ("2025-10-05", "disputed", 1_111),
    ]


async def test_a_list_that_is_refused_is_left_out(daybook: SyncDaybook, api: MxApi) -> None:
    api.payments, api.refused = [payment(1)], {"/checkout/v3/contract": 403}

    results = await backfill(daybook)

    assert results["contracts"].refused == 403
    assert results["payments"].recorded == 1


async def test_a_reconciliation_after_a_backfill_finds_no_difference(
    daybook: SyncDaybook, api: MxApi
) -> None:
    api.payments = [payment(1), payment(2, "-5.00", originalPaymentId=1), payment(3, status="Declined")]
    await backfill(daybook)
    before = await money(daybook, "cash", "date, kind, amount_cents")
    assert mxmerchant.PROCESSOR.api

    report = await daybook.reconcile_with(
        mxmerchant.PROCESSOR, daybook.settings.values_of(mxmerchant.PROCESSOR.api), None
    )

    await daybook.catch_up()
    assert (report.differing, report.mended) == (0, {})
    assert await money(daybook, "cash", "date, kind, amount_cents") == before
    assert await money(daybook, "failures", "date") == [("2025-10-02",)]


async def notify_of_refund(daybook: SyncDaybook) -> None:
    """A notification names the payment that a refund gave back."""
    body = {"eventType": "RefundCreated", "merchantId": MERCHANT, "id": 2, "totalAmount": "-5.00"}
    raw = json.encode(body | {"originalPaymentId": 1, "transactionDate": "Oct 2 2025 6:21PM"})
    proof = Proof(processor="mxmerchant", method="standard-webhooks", received_at=daybook.now)
    await daybook.ledger.append([read_delivery(mxmerchant.PROCESSOR, b"{}", raw, proof, live)], daybook.now)
    await daybook.catch_up()


@pytest.mark.parametrize("notified_at", ["before", "between", "after"])
async def test_a_refund_whose_payment_only_a_notification_names_counts_once(
    daybook: SyncDaybook, api: MxApi, notified_at: str
) -> None:
    api.payments = [payment(1), payment(2, "-5.00")]

    for moment in ("before", "between", "after"):
        if moment == notified_at:
            await notify_of_refund(daybook)
        if moment != "after":
            await backfill(daybook)
            daybook.now += timedelta(days=1)

    assert await money(daybook, "cash", "date, kind, amount_cents") == [
        ("2025-10-02", "collected", 1_111),
        ("2025-10-02", "refunded", 500),
    ]
    assert await money(daybook, "reversals", "date, kind, amount_cents") == [("2025-10-02", "refunded", 500)]


async def test_a_refund_that_was_voided_since_counts_nowhere_though_a_notification_tells_it_late(
    daybook: SyncDaybook, api: MxApi
) -> None:
    for status in ("Approved", "Voided"):
        api.payments = [payment(1), payment(2, "-5.00", status=status)]
        await backfill(daybook)
        daybook.now += timedelta(days=1)

    await notify_of_refund(daybook)

    assert await money(daybook, "cash", "date, kind, amount_cents") == [("2025-10-02", "collected", 1_111)]
