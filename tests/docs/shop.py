"""A shop's 2023: what docs/customers.md shows. `user_123` is ten orders of $1,250 with $25 given back."""

from datetime import UTC, datetime

from tests.support.running import Daybook

AT = datetime(2023, 12, 15, 10, 30, tzinfo=UTC)
PREMIUM = ("premium_plan", "Premium Monthly")
SUPPORT = ("support_hours", "Support hours")

# Customer, day, cents, product; a payment where there is none.
ORDERS = (
    ("user_123", "2023-01-15", 10_000, PREMIUM),
    ("user_123", "2023-01-28", 5_000, SUPPORT),
    ("user_123", "2023-03-15", 10_000, PREMIUM),
    ("user_123", "2023-05-15", 10_000, PREMIUM),
    ("user_123", "2023-06-20", 15_000, SUPPORT),
    ("user_123", "2023-07-15", 10_000, PREMIUM),
    ("user_123", "2023-08-30", 20_000, SUPPORT),
    ("user_123", "2023-09-15", 10_000, PREMIUM),
    ("user_123", "2023-11-02", 25_000, None),
    ("user_123", "2023-12-10", 10_000, PREMIUM),
    ("user_456", "2023-07-01", 9_000, PREMIUM),
    ("user_456", "2023-09-20", 9_000, PREMIUM),
    ("user_789", "2023-12-01", 4_900, None),
)


async def post_shop(daybook: Daybook) -> None:
    """Post the shop's history."""
    daybook.clock.now = AT
    for number, (customer_id, day, cents, product) in enumerate(ORDERS, start=1):
        at = f"{day}T10:00:00Z"
        of = {"customer_id": customer_id, "currency": "usd"}
        if product is None:
            await daybook.record(
                "payment.recorded", at, payment_id=f"pay-{number}", status="succeeded", amount=cents, **of
            )
            continue
        line = {"amount": cents, "product_id": product[0], "product_name": product[1]}
        await daybook.record(
            "invoice.recorded",
            at,
            invoice_id=f"inv-{number}",
            status="paid",
            amount_due=cents,
            amount_paid=cents,
            created_at=at,
            finalized_at=at,
            paid_at=at,
            payment_ids=[f"pay-{number}"],
            lines=[line],
            **of,
        )
    given_back = {"refund_id": "ref-1", "payment_id": "pay-5", "status": "succeeded", "amount": 2_500}
    at = "2023-07-02T10:00:00Z"
    await daybook.record(
        "refund.recorded", at, created_at=at, currency="usd", customer_id="user_123", **given_back
    )
    await daybook.record(
        "customer.recorded", at, customer_id="user_123", name="Rowan Vale", email="rowan@example.com"
    )
    await daybook.catch_up()
