"""Overdue contracts: a bill was stated, its day is three days gone, and nothing was heard since."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.running import Daybook
from tests.support.senders import MX, STRIPE, stripe_event, stripe_subscription, subscription
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

AT = "2025-11-01T09:00:00Z"
BILL_DAY = "2025-11-10"
LATE = "2025-11-20"


async def given(daybook: Daybook, key: str = "1", bill_day: str = BILL_DAY, **more: Any) -> None:
    """A monthly contract whose next bill is stated for a day, told of on the first of November."""
    at = more.pop("at", AT)
    data = subscription(key, 1000, next_bill_at=f"{bill_day}T12:00:00Z", **more)
    await daybook.record("subscription.recorded", at, **data)


async def overdue(daybook: Daybook, today: str = LATE, **query: Any) -> list[str]:
    """The ids of the overdue contracts; the list and the count in `meta` are of the same."""
    await daybook.catch_up()
    answer = await daybook.get("/api/v1/contracts", overdue="true", today=today, **query)
    assert answer["meta"]["overdue_contracts"] == len(answer["contracts"])
    return [row["contract_id"] for row in answer["contracts"]]


def invoice(status: str, made: str, **more: Any) -> dict[str, Any]:
    """An invoice of the contract."""
    return {
        "invoice_id": "in-1",
        "status": status,
        "currency": "usd",
        "amount_due": 1000,
        "customer_id": "cust-1",
        "subscription_id": "sub-1",
        "created_at": made,
        "finalized_at": made,
        **more,
    }


async def overdue_cents(daybook: Daybook) -> int:
    november = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11, today=LATE)
    return int(november["summary"]["overdue_cents"])


async def test_a_contract_is_overdue_from_three_days_after_its_bills_day(daybook: Daybook) -> None:
    await given(daybook)

    for today, found in (
        (BILL_DAY, []),
        ("2025-11-12", []),
        ("2025-11-13", ["sub-1"]),
        ("2026-03-01", ["sub-1"]),
    ):
        assert await overdue(daybook, today) == found, today


async def test_days_are_those_of_the_reporting_zone(daybook: Daybook) -> None:
    await given(daybook, at="2025-11-09T23:59:59Z")
    await given(daybook, "2", at="2025-11-10T00:00:00Z")

    assert await overdue(daybook) == ["sub-1"]


async def test_an_event_of_the_contract_on_that_day_or_later_says_that_it_is_heard(daybook: Daybook) -> None:
    await given(daybook)
    assert await overdue(daybook) == ["sub-1"]

    await given(daybook, at="2025-11-10T06:00:00Z")  # it states the same bill

    assert await overdue(daybook) == []
    assert await overdue_cents(daybook) == 1000  # the bill is still awaited


async def test_what_a_discount_or_a_schedule_tells_of_the_contract_is_heard(daybook: Daybook) -> None:
    for key in ("1", "2", "3"):
        await given(daybook, key)
    later = "2025-11-12T06:00:00Z"
    await daybook.record(
        "schedule.recorded", later, schedule_id="s", subscription_id="sub-1", status="released"
    )
    discount = {"percent_off": "10", "duration": "once"}
    await daybook.record(
        "discount.recorded", later, customer_id="cust-2", subscription_id="sub-2", discount=discount
    )
    await daybook.record("customer.recorded", later, customer_id="cust-3", name="Avery")

    assert await overdue(daybook) == ["sub-3"]  # what is told of its customer says nothing of it


async def test_an_event_of_one_contract_says_nothing_of_another(daybook: Daybook) -> None:
    await given(daybook)
    await given(daybook, "2", customer_id="cust-1", at="2025-11-12T06:00:00Z")

    assert await overdue(daybook) == ["sub-1"]


async def test_an_issued_invoice_stands_for_the_bill_even_if_it_is_voided_later(daybook: Daybook) -> None:
    await given(daybook)
    await daybook.record(
        "invoice.recorded", "2025-11-10T12:00:00Z", **invoice("open", "2025-11-10T12:00:00Z")
    )
    assert await overdue(daybook) == []

    await daybook.record(
        "invoice.recorded", "2025-11-15T12:00:00Z", **invoice("void", "2025-11-10T12:00:00Z")
    )

    assert await overdue(daybook) == []
    assert await overdue_cents(daybook) == 0


@pytest.mark.parametrize(("day", "found"), [("2025-11-09", ["sub-1"]), ("2025-11-10", [])])
async def test_an_earlier_invoice_that_is_voided_since_is_heard(
    daybook: Daybook, day: str, found: list[str]
) -> None:
    await given(daybook)
    await daybook.record("invoice.recorded", AT, **invoice("open", AT))
    await daybook.record("invoice.recorded", f"{day}T12:00:00Z", **invoice("void", AT))

    assert await overdue(daybook) == found
    assert await overdue_cents(daybook) == 1000


PAYMENT = {"payment_id": "pay-1", "status": "succeeded", "currency": "usd", "amount": 1000}
REFUND = {
    "refund_id": "re-1",
    "status": "succeeded",
    "currency": "usd",
    "amount": 1000,
    "payment_id": "pay-1",
}


@pytest.mark.parametrize(("day", "found"), [("2025-11-09", ["sub-1"]), ("2025-11-10", [])])
async def test_a_payment_that_names_an_earlier_invoice_is_heard(
    daybook: Daybook, day: str, found: list[str]
) -> None:
    await given(daybook)
    await daybook.record("invoice.recorded", AT, **invoice("open", AT))
    await daybook.record("payment.recorded", f"{day}T12:00:00Z", **PAYMENT, invoice_id="in-1")

    assert await overdue(daybook) == found


@pytest.mark.parametrize("linked_by", ["invoice", "invoice payment", "payment"])
async def test_a_later_event_of_a_linked_payment_is_heard(daybook: Daybook, linked_by: str) -> None:
    await given(daybook)
    names = {"payment_ids": ["pay-1"]} if linked_by == "invoice" else {}
    await daybook.record("invoice.recorded", AT, **invoice("paid", AT, **names))
    names = {"invoice_id": "in-1"} if linked_by == "payment" else {}
    await daybook.record("payment.recorded", AT, **PAYMENT, **names)
    if linked_by == "invoice payment":
        await daybook.record("invoice_payment.recorded", AT, invoice_id="in-1", payment_id="pay-1")
    early, late = "2025-11-09T12:00:00Z", "2025-11-10T12:00:00Z"
    await daybook.record("refund.recorded", early, **REFUND, created_at=early)
    assert await overdue(daybook) == ["sub-1"]

    await daybook.record("refund.recorded", late, **REFUND, created_at=early)

    assert await overdue(daybook) == []
    assert await overdue_cents(daybook) == 1000


async def test_a_payment_of_no_invoice_is_no_event_of_the_contract(daybook: Daybook) -> None:
    await given(daybook)
    await daybook.record("invoice.recorded", AT, **invoice("open", AT))
    await daybook.record("payment.recorded", "2025-11-12T12:00:00Z", **PAYMENT, customer_id="cust-1")

    assert await overdue(daybook) == ["sub-1"]


async def test_a_contract_that_has_ended_or_bills_nothing_more_is_not_overdue(daybook: Daybook) -> None:
    await given(daybook, "1", cancel_at="2025-11-14T00:00:00Z")
    await given(daybook, "2", status="canceled")
    await given(daybook, "3", collection_paused=True)

    assert await overdue(daybook, "2025-11-13") == ["sub-1"]
    assert await overdue(daybook, "2025-11-14") == []


async def test_a_contract_with_several_schedules_counts_once(daybook: Daybook) -> None:
    items = [
        {"interval": "month", "every": 1, "unit_amount": "1000"},
        {"interval": "year", "every": 1, "unit_amount": "5000", "next_bill_at": "2025-11-08T12:00:00Z"},
    ]
    await given(daybook, items=items)

    assert await overdue(daybook, "2025-11-11") == ["sub-1"]
    assert await overdue(daybook) == ["sub-1"]


async def test_the_count_is_of_one_currency_and_account(daybook: Daybook) -> None:
    await given(daybook)
    await given(daybook, "2", currency="eur")
    data = subscription("3", 1000, next_bill_at=f"{BILL_DAY}T12:00:00Z")
    await daybook.record("subscription.recorded", AT, account="north", **data)

    assert await overdue(daybook) == ["sub-1", "sub-3"]
    assert await overdue(daybook, currency="eur") == ["sub-2"]
    assert await overdue(daybook, account="north") == ["sub-3"]


async def test_without_the_parameter_all_are_listed(daybook: Daybook) -> None:
    await given(daybook)
    await given(daybook, "2", bill_day="2025-12-10")
    await daybook.catch_up()

    for query in ({}, {"overdue": "false"}):
        rows = (await daybook.get("/api/v1/contracts", today=LATE, **query))["contracts"]
        assert [row["contract_id"] for row in rows] == ["sub-1", "sub-2"]


async def test_they_can_be_had_as_csv(daybook: Daybook) -> None:
    await given(daybook)
    await given(daybook, "2", bill_day="2025-12-10")
    await daybook.catch_up()

    answer = await daybook.ask("/api/v1/contracts", overdue="true", today=LATE, format="csv")

    assert [line.split(",")[0] for line in answer.text.splitlines()] == ["contract_id", "sub-1"]


async def test_a_subscription_of_stripe_is_overdue_too(daybook: Daybook) -> None:
    made = stripe_event("customer.subscription.created", stripe_subscription("1", 1000))
    assert (await daybook.post(STRIPE, made)).status_code == 200  # it bills on 22 November

    assert await overdue(daybook, "2025-11-24") == []
    assert await overdue(daybook, "2025-11-25") == ["sub_1"]


async def test_an_observed_contract_is_overdue_until_it_is_observed_again(daybook: Daybook) -> None:
    record = {
        "id": 7,
        "merchantId": 1000000001,
        "customerName": "Avery Stone",
        "every": "1 Month",
        "amount": "249",
        "status": "Active",
        "startDate": "2025-10-15T00:00:00Z",
        "nextBillDate": "2025-11-15T00:00:00Z",
    }
    assert (await daybook.post(MX, record)).status_code == 200

    assert await overdue(daybook, "2025-11-17") == []
    assert await overdue(daybook, "2025-11-18") == ["7"]

    daybook.clock.now = datetime(2025, 11, 16, 10, 0, tzinfo=UTC)
    assert (await daybook.post(MX, record | {"nextBillDate": "2025-12-15T00:00:00Z"})).status_code == 200
    assert await overdue(daybook, "2025-12-01") == []
