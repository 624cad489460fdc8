"""A business with every kind of row: contracts, bills, money that moves both ways, and predictions."""

from datetime import timedelta
from typing import Any

from service.worker.trainer import train
from tests.support.posted_books import invoices, pays, refunds
from tests.support.running import NOW, Daybook
from tests.support.senders import subscription

ENDING = {"cancel_at": "2025-12-20T12:00:00Z"}


async def post_business(daybook: Daybook) -> None:
    """Contracts that come, grow, shrink, go and come again; bills of every status; money given back."""

    async def told(
        day: str, key: str, cents: int, interval: str = "month", every: int = 1, **more: Any
    ) -> None:
        bill = {"next_bill_at": "2025-11-20T12:00:00Z", **more}
        data = subscription(key, cents, interval, every, **bill)
        await daybook.record("subscription.recorded", f"{day}T10:00:00Z", **data)

    await told("2025-09-02", "1", 5000)
    await told("2025-10-01", "1", 9000)
    await told("2025-11-04", "1", 7000)
    await told("2025-09-05", "2", 2000, "week")
    await told("2025-10-31", "2", 2000, "week", status="canceled")
    await told("2025-11-07", "2b", 3000, "week", customer_id="cust-2")
    await told("2025-11-07", "3", 4000, "week", 4, **ENDING)
    await told("2025-11-08", "4", 6000, "week", 10, next_bill_at="2025-11-25T12:00:00Z")
    await told("2025-11-08", "5", 1000, currency="eur")
    line = {"product_id": "prod-1", "product_name": "Hours"}
    for day, cents in (("2025-09-09", 5000), ("2025-11-09", 2500)):
        lines = [{"amount": cents - 500, **line}, {"amount": 500, "product_id": "prod-2"}]
        await invoices(daybook, "cust-1", day, cents, subscription_id="sub-1", lines=lines)
    await invoices(daybook, "cust-6", "2025-11-10", 800, status="open", payment_failed=True)
    await invoices(daybook, "cust-6", "2025-11-11", 900, status="uncollectible")
    await invoices(daybook, "cust-6", "2025-11-28", 700, status="draft")
    await pays(daybook, "cust-1", "2025-10-12", 1200, payment_id="pay-1")
    await refunds(daybook, "2025-11-12", 300, payment_id="pay-1")
    of = {"payment_id": "pay-1", "currency": "usd", "amount": 200}
    await daybook.record("dispute.recorded", "2025-11-12T12:00:00Z", dispute_id="d", status="lost", **of)


async def post_history(daybook: Daybook) -> None:
    """Two years of buyers and of contracts that end: enough to learn from. And what was learnt."""

    async def buys(customer: str, days_ago: int, cents: int) -> None:
        day = (NOW - timedelta(days=days_ago)).date().isoformat()
        await pays(daybook, customer, day, cents)

    for number in range(16):
        for days_ago in (240, 180, 120, 65):
            await buys(f"buyer-{number}", days_ago + number // 2, 20_000 + 100 * number)
    for number in range(14):
        for days_ago in (700, 380, 40):
            await buys(f"slow-{number}", days_ago + number, 10_000)
    for number in range(30):
        await buys("seasonal", 900 - 30 * number, 50_000)
    for number in range(42):
        await buys("rising", 410 - 10 * number, 5_000 + 2_000 * number)
    await buys("whale", 100, 1_200_000)
    await buys("rare", 600, 3_000)
    await buys("rare", 200, 3_000)
    for number in range(32):
        began = NOW - timedelta(days=300 + number)
        plan = subscription(f"h{number}", 2_000, next_bill_at="2025-11-28T12:00:00Z")
        await daybook.record("subscription.recorded", began.isoformat(), **plan)
        if number % 2:
            ended = began + timedelta(days=100 + 5 * number)
            await daybook.record("subscription.recorded", ended.isoformat(), **plan | {"status": "canceled"})
    plan = subscription("b0", 3_000, customer_id="buyer-0", **ENDING)
    await daybook.record("subscription.recorded", "2025-10-01T10:00:00Z", **plan)
    await daybook.catch_up()
    await train(daybook.state.store, NOW.date())
