"""What no event may hold, so that the books can always be added up."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from msgspec.structs import replace

from service.core.errors import Unreadable
from service.core.events import (
    AppliedDiscount,
    BilledItem,
    Customer,
    Data,
    Discount,
    EndingDiscount,
    Event,
    Invoice,
    InvoiceLine,
    Item,
    Payment,
    Period,
    Phase,
    Refund,
    Schedule,
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
        [Item(interval="day", unit_amount=Decimal(MAX_AMOUNT // 30))],
        [Item(interval="week", unit_amount=Decimal(MAX_AMOUNT // 4))],
        [Item(interval="day", tiers=(Tier(flat_amount=Decimal(MAX_AMOUNT + 1)),))],
    ],
)
def test_the_items_of_a_subscription_are_limited_together(items: list[Item]) -> None:
    with pytest.raises(Unreadable):
        check_limits(event(subscription(*items)))


@pytest.mark.parametrize("percent", ["-1", "100.01", "-1000000000000"])
def test_a_discount_is_from_0_to_100_percent(percent: str) -> None:
    item = Item(interval="month", unit_amount=Decimal(100))
    off = Discount(percent_off=Decimal(percent))
    for data in (
        subscription(item, discounts=(off,)),
        subscription(replace(item, discounts=(off,))),
        AppliedDiscount(customer_id="cus_1", discount=off),
        Customer(customer_id="cus_1", discounts=(off,)),
        Schedule(schedule_id="sched_1", status="active", phases=(Phase(starts_at=NOW, discounts=(off,)),)),
    ):
        with pytest.raises(Unreadable, match="percent"):
            check_limits(event(data))


@pytest.mark.parametrize("percent", ["-100", "-0.01", "100.5"])
def test_a_tax_is_from_0_to_100_percent(percent: str) -> None:
    with pytest.raises(Unreadable, match="tax"):
        check_limits(event(subscription(Item(interval="month", inclusive_tax=Decimal(percent)))))


def test_a_price_may_be_negative_and_a_quantity_may_not() -> None:
    credit = event(subscription(Item(interval="month", unit_amount=Decimal(-500), quantity=Decimal("1.5"))))
    assert check_limits(credit) is credit
    with pytest.raises(Unreadable, match="quantity"):
        check_limits(event(subscription(Item(interval="month", quantity=Decimal("-1.5")))))


@pytest.mark.parametrize("name", ["amount_refunded", "amount_released"])
def test_every_amount_is_limited(name: str) -> None:
    data = Payment(payment_id="pi_1", status="succeeded", currency="idr", amount=1)
    fine = event(replace(data, **{name: MAX_AMOUNT}))
    assert check_limits(fine) is fine
    with pytest.raises(Unreadable):
        check_limits(event(replace(data, **{name: MAX_AMOUNT + 1})))


def test_the_amounts_of_a_schedule_are_limited() -> None:
    items = (Item(interval="year", unit_amount=Decimal(10**9), quantity=10**6 + 1),)
    with pytest.raises(Unreadable):
        check_limits(
            event(Schedule(schedule_id="s", status="active", phases=(Phase(starts_at=NOW, items=items),)))
        )


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


HALF_OFF = Discount(percent_off=Decimal(50))
MONTHLY = Item(interval="month", unit_amount=Decimal(100))
SETTLED = [f"pi_{number}" for number in range(1_001)]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (subscription(*[MONTHLY] * 501), "501 items"),
        (subscription(MONTHLY, discounts=(HALF_OFF,) * 51), "51 discounts in one place"),
        (subscription(replace(MONTHLY, discounts=(HALF_OFF,) * 51)), "51 discounts in one place"),
        (subscription(*[replace(MONTHLY, discounts=(HALF_OFF,) * 50)] * 11), "550 discounts"),
        (Customer(customer_id="cus_1", discounts=(HALF_OFF,) * 51), "51 discounts in one place"),
        (
            AppliedDiscount(customer_id="cus_1", discount=replace(HALF_OFF, product_ids=("prod_1",) * 5_001)),
            "5001 discounted products",
        ),
        (subscription(replace(MONTHLY, tiers=(Tier(),) * 1_001)), "1001 price tiers"),
        (Schedule(schedule_id="s", status="active", phases=(Phase(starts_at=NOW),) * 101), "101 phases"),
        (
            Schedule(
                schedule_id="s", status="active", phases=(Phase(starts_at=NOW, items=(MONTHLY,) * 51),) * 10
            ),
            "510 items",
        ),
        (invoice(lines=(InvoiceLine(amount=1),) * 5_001), "5001 lines"),
        (invoice(billed=(BilledItem(starts_at=NOW, ends_at=NOW, amount=1),) * 1_001), "1001 billed items"),
        (
            invoice(
                billed=(
                    BilledItem(
                        starts_at=NOW,
                        ends_at=NOW,
                        amount=1,
                        ending_discounts=(EndingDiscount(ends_at=NOW, amount=1),) * 51,
                    ),
                )
                * 10
            ),
            "510 ending discounts",
        ),
        (invoice(periods=(Period(starts_at=NOW, ends_at=NOW),) * 1_001), "1001 periods"),
        (invoice(payment_ids=tuple(SETTLED)), "1001 payments"),
    ],
)
def test_an_object_that_holds_more_than_any_real_one_is_refused(data: Data, what: str) -> None:
    with pytest.raises(Unreadable, match=f"it has {what}, and none that is real has more"):
        check_limits(event(data))


def test_an_object_as_large_as_stripe_allows_passes() -> None:
    item = replace(MONTHLY, discounts=(HALF_OFF,) * 20)
    large = event(subscription(*[item] * 20, discounts=(HALF_OFF,) * 20))
    assert check_limits(large) is large
    long = event(invoice(lines=(InvoiceLine(amount=1),) * 250))
    assert check_limits(long) is long
