"""What no event may hold, so that the books can always be added up."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from service.core.errors import Unreadable
from service.core.events import (
    Customer,
    Data,
    Discount,
    Event,
    Invoice,
    Item,
    Payment,
    Refund,
    Subscription,
    Tier,
)
from service.core.limits import MAX_AMOUNT, check_limits

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(data: Data, event_id: str = "evt_1") -> Event:
    return Event(processor="stripe", event_id=event_id, occurred_at=NOW, data=data)


def subscription(*items: Item, **fields) -> Subscription:
    return Subscription(
        subscription_id="sub_1", customer_id="cus_1", status="active", currency="usd", items=items, **fields
    )


def invoice(**fields) -> Invoice:
    return Invoice(invoice_id="in_1", status="open", currency="usd", amount_due=1, created_at=NOW, **fields)


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\x1fb"])
def test_an_id_with_a_control_character_is_refused(name: str) -> None:
    for data in (
        event(Customer(customer_id=name)),
        event(Customer(customer_id="cus_1"), event_id=name),
        event(Refund(refund_id=name, status="succeeded", currency="usd", amount=1, created_at=NOW)),
        event(Payment(payment_id="pi_1", status=name, currency="usd", amount=1)),
    ):
        with pytest.raises(Unreadable):
            check_limits(data)


def test_an_amount_at_the_limit_passes_and_one_beyond_it_does_not() -> None:
    fine = event(Payment(payment_id="pi_1", status="succeeded", currency="usd", amount=MAX_AMOUNT))
    assert check_limits(fine) is fine
    with pytest.raises(Unreadable):
        check_limits(
            event(Payment(payment_id="pi_1", status="succeeded", currency="usd", amount=MAX_AMOUNT + 1))
        )


@pytest.mark.parametrize(
    "items",
    [
        [Item(interval="day", unit_amount=Decimal(MAX_AMOUNT // 10))] * 11,
        [Item(interval="day", unit_amount=Decimal(10**9), quantity=10**9)],
        [Item(interval="day", tiers=(Tier(flat_amount=Decimal(MAX_AMOUNT + 1)),))],
    ],
)
def test_the_items_of_a_subscription_are_limited_together(items: list[Item]) -> None:
    with pytest.raises(Unreadable):
        check_limits(event(subscription(*items)))


@pytest.mark.parametrize("percent", ["-1", "100.01", "-1000000000000"])
def test_a_discount_is_from_0_to_100_percent(percent: str) -> None:
    item = Item(interval="month", unit_amount=Decimal(100))
    with pytest.raises(Unreadable):
        check_limits(event(subscription(item, discounts=(Discount(percent_off=Decimal(percent)),))))


def test_an_id_is_no_longer_than_an_index_takes() -> None:
    def long_named(name: str) -> list[Event]:
        return [
            event(Customer(customer_id="cus_1"), event_id=name),
            event(invoice(customer_id=name)),
            event(invoice(payment_ids=(name,))),
            event(Payment(payment_id="pi_1", status="failed", currency="usd", amount=1, invoice_id=name)),
        ]

    for fine in long_named("x" * 255):
        assert check_limits(fine) is fine
    for long in (*long_named("x" * 601), *long_named("\N{OLD PERSIAN SIGN A}" * 151)):
        with pytest.raises(Unreadable):
            check_limits(long)


def test_an_event_belongs_to_so_many_histories_at_most() -> None:
    assert check_limits(event(invoice(payment_ids=tuple(f"pi_{n}" for n in range(900)))))
    with pytest.raises(Unreadable):
        check_limits(event(invoice(payment_ids=tuple(f"pi_{n}" for n in range(1_001)))))
