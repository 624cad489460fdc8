"""Reconciliation with MX Merchant: payments that no notification told are appended; what differs is named."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import json
from msgspec.structs import replace

from handlers import mxmerchant
from service.core.errors import Unavailable
from service.ledger.draft import Incoming
from service.sync.reconcile.report import ReconciliationReport
from tests.support.mxmerchant_api import MERCHANT, MxApi, payment
from tests.support.stripe_api import serve
from tests.support.sync_daybook import SyncDaybook, differences, mxmerchant_settings, open_sync_daybook


@pytest.fixture
def api() -> Iterator[MxApi]:
    with serve(MxApi()) as api:
        yield api


@pytest.fixture
async def daybook(data_dir: Path, api: MxApi) -> AsyncIterator[SyncDaybook]:
    async with open_sync_daybook(mxmerchant_settings(data_dir, api)) as daybook:
        yield daybook


async def reconcile(daybook: SyncDaybook, *, dry_run: bool = False) -> ReconciliationReport:
    assert mxmerchant.PROCESSOR.api
    values = daybook.settings.values_of(mxmerchant.PROCESSOR.api)
    return await daybook.reconcile_with(mxmerchant.PROCESSOR, values, None, dry_run=dry_run)


async def notify(daybook: SyncDaybook, number: int, amount: str, kind: str, **its: Any) -> None:
    """A notification by URL token, signed or not, as the web process would keep it."""
    signed = its.pop("signed", False)
    body = {"eventType": kind, "merchantId": MERCHANT, "id": number, "totalAmount": amount} | its
    body |= {"transactionDate": "Oct 2 2025 6:21PM"}
    proof = mxmerchant.verify_token({":token": "t"}, b"", ["t"], daybook.now)
    proof = replace(proof, confirmable=not signed, trust="signed" if signed else "unsigned")
    events = mxmerchant.translate(body, proof)
    raw = json.encode(body)
    delivery = Incoming(events=events, content_digest=raw[:32], headers=b"{}", body=raw, proof=proof)
    await daybook.ledger.append([delivery], daybook.now)
    await daybook.catch_up()


async def collected(daybook: SyncDaybook) -> tuple[int, int]:
    """Collected and refunded, as the books have it."""
    return (await cash(daybook))[:2]


async def cash(daybook: SyncDaybook) -> tuple[int, int, int]:
    """Collected, refunded and disputed, as the books have it."""
    await daybook.catch_up()
    async with daybook.store.reading() as connection:
        rows = await connection.exec_driver_sql(
            "SELECT coalesce(sum(collected_cents), 0), coalesce(sum(refunded_cents), 0), "
            "coalesce(sum(disputed_cents), 0) FROM cash_days"
        )
        found = rows.one()
    return found[0], found[1], found[2]


async def test_payments_and_refunds_that_nothing_told_are_appended_once(
    daybook: SyncDaybook, api: MxApi
) -> None:
    # given payments known by a signed notification, by one that waits, and by none; in three pages
    await notify(daybook, 1, "11.11", "PaymentSuccess", signed=True)
    await notify(daybook, 2, "11.11", "PaymentSuccess")
    await notify(daybook, 3, "-5.00", "RefundCreated", signed=True, originalPaymentId=1)
    api.payments = [
        payment(1),
        payment(2),
        payment(3, "-5.00"),
        payment(4, "-1.00", "Settled"),
        payment(5, status="Declined"),
        payment(6, status="Pending"),
        payment(7, authOnly=True),
        *(payment(number) for number in range(8, 25)),
    ]
    assert await collected(daybook) == (1_111, 500)

    # when it is reconciled, twice
    first = await reconcile(daybook)
    head = await daybook.head()
    second = await reconcile(daybook)

    # then each counts once
    assert first.missed == {"payment.recorded": 19, "refund.recorded": 1}
    assert (second.missed, await daybook.head()) == ({}, head)
    assert await collected(daybook) == (19 * 1_111, 600)
    assert differences(first) | differences(second) == set()
    assert (first.compared, first.listed) == ({"contract": 14, "payment": 22}, 38)


async def test_planted_differences_are_recorded_as_observed_and_named(
    daybook: SyncDaybook, api: MxApi
) -> None:
    api.payments = [payment(number) for number in range(1, 25)]
    await reconcile(daybook)
    gone = api.contracts.pop(0)
    assert gone["status"] == "Active"
    odd = next(contract for contract in api.contracts if contract["status"] == "Active")
    odd |= {"every": "Sometimes"}
    api.payments[0]["status"] = "Voided"
    api.payments[1]["amount"] = "99.00"
    api.payments[2]["amount"] = "much"
    api.payments[3]["status"] = "ChargedBack"
    daybook.now += timedelta(days=1)

    report = await reconcile(daybook)
    head = await daybook.head()
    daybook.now += timedelta(days=1)
    second = await reconcile(daybook)

    # what can be mended is, once
    assert differences(report, mended=True) == {
        ("contract", str(gone["id"]), "status", None, "active"),
        ("payment", "1", "collected_cents", 0, 1_111),
        ("payment", "2", "collected_cents", 9_900, 1_111),
        ("payment", "4", "disputed_cents", 1_111, 0),
    }
    assert (report.mended, second.mended) == ({"contract": 1, "payment": 3}, {})
    assert await daybook.head() == head
    assert await cash(daybook) == (22 * 1_111 + 9_900, 0, 1_111)
    assert await daybook.retranslation_changes() == []
    # and what can't be is named
    assert (
        differences(report)
        == differences(second)
        == {
            ("contract", str(odd["id"]), "status", "unreadable", "active"),
            (
                "contract",
                str(odd["id"]),
                "shape",
                "`$.every` is no interval that is known",
                None,
            ),
            ("payment", "3", "shape", "`$.amount` is no decimal amount", None),
        }
    )


async def test_a_contract_that_changed_is_appended_and_no_difference(
    daybook: SyncDaybook, api: MxApi
) -> None:
    await reconcile(daybook)
    daybook.now += timedelta(hours=1)
    api.contracts[0] |= {"amount": "600", "nextBillDate": "2025-12-24"}
    api.contracts[1] |= {"status": "Cancelled"}

    assert differences(await reconcile(daybook, dry_run=True)) != set()
    report = await reconcile(daybook)
    assert (differences(report), report.mended) == (set(), {"contract": 2})


async def test_a_payment_that_is_voided_was_never_collected(daybook: SyncDaybook, api: MxApi) -> None:
    """A notification said that it succeeded, and none says that it was voided."""
    await notify(daybook, 1, "11.11", "PaymentSuccess", signed=True)
    api.payments = [payment(1, status="Voided")]
    daybook.now += timedelta(days=40)

    assert (await reconcile(daybook)).mended == {"payment": 1, "contract": 14}

    await daybook.catch_up()
    async with daybook.store.reading() as connection:
        for table in ("cash", "receipts", "failures"):
            rows = await connection.exec_driver_sql(f"SELECT count(*) FROM {table}")
            assert rows.scalar_one() == 0, table


async def test_a_refund_that_is_voided_gave_nothing_back(daybook: SyncDaybook, api: MxApi) -> None:
    """Only its notification names the payment, so it is known by that."""
    await notify(daybook, 1, "11.11", "PaymentSuccess", signed=True)
    await notify(daybook, 2, "-5.00", "RefundCreated", signed=True, originalPaymentId=1)
    await notify(daybook, 3, "-2.00", "RefundCreated", signed=True, originalPaymentId=1)
    api.payments = [payment(1), payment(2, "-5.00", "Voided"), payment(3, "-1.50")]

    assert (await reconcile(daybook)).mended["payment"] == 2

    assert await collected(daybook) == (1_111, 150)
    assert await daybook.retranslation_changes() == []


async def test_a_dry_run_writes_nothing(daybook: SyncDaybook, api: MxApi) -> None:
    await reconcile(daybook)
    head, kept = await daybook.head(), await daybook.kept("reconciled|mxmerchant")
    api.payments = [payment(1)]

    report = await reconcile(daybook, dry_run=True)

    assert (report.missed, report.is_clean) == ({"payment.recorded": 1}, False)
    assert (await daybook.head(), await daybook.kept("reconciled|mxmerchant")) == (head, kept)


async def test_a_list_that_cannot_be_had_whole_ends_the_run(daybook: SyncDaybook, api: MxApi) -> None:
    api.missing = 1

    with pytest.raises(Unavailable):
        await reconcile(daybook)

    assert await daybook.kept("reconciled|mxmerchant") is None


async def test_a_rate_limit_is_waited_for(daybook: SyncDaybook, api: MxApi) -> None:
    await reconcile(daybook)
    api.failures, daybook.waits = 2, []

    await reconcile(daybook, dry_run=True)

    assert daybook.waits[:2] == [3.0, 3.0]
