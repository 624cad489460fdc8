"""One contract of each kind that policies treat differently, told on 2025-11-10."""

from typing import Any

from tests.support.running import Daybook
from tests.support.senders import subscription

TOLD = "2025-11-10T10:00:00Z"
ENDS = "2025-12-05T00:00:00Z"


def off(percent: int, duration: str, **more: Any) -> dict[str, Any]:
    return {"discounts": [{"percent_off": str(percent), "duration": duration, **more}]}


CONTRACTS: dict[str, dict[str, Any]] = {
    "trial": subscription("trial", 10_000) | {"status": "trialing", "trial_end_at": ENDS},
    "late": subscription("late", 20_000) | {"status": "past_due"},
    "paused": subscription("paused", 30_000, collection_paused=True),
    "repeating": subscription("repeating", 40_000, **off(25, "repeating", ends_at="2026-02-10T00:00:00Z")),
    "once": subscription("once", 50_000, **off(50, "once")),
    "forever": subscription("forever", 60_000, **off(10, "forever")),
    "ending": subscription("ending", 70_000, cancel_at=ENDS, next_bill_at=ENDS),
    "weekly": subscription("weekly", 24_900, "week"),
    "plain": subscription("plain", 10_000),
}

# What each contract counts, by hand; what is not named counts the same as under `default`.
DEFAULT = {
    "trial": 0,
    "late": 20_000,
    "paused": 0,
    "repeating": 30_000,
    "once": 50_000,
    "forever": 54_000,
    "ending": 70_000,
    "weekly": 107_817,  # 24900 × 4.33
    "plain": 10_000,
}
STRIPE = DEFAULT | {"repeating": 40_000, "ending": 0, "weekly": 107_900}  # 24900 × 52/12
CHARTMOGUL = DEFAULT | {"paused": 30_000, "once": 25_000, "weekly": 107_900}
BOARD = DEFAULT | {"trial": 10_000, "repeating": 40_000, "forever": 60_000, "weekly": 99_600}
EXPECTED = {"default": DEFAULT, "stripe": STRIPE, "chartmogul": CHARTMOGUL}


async def tell(daybook: Daybook) -> dict[str, str]:
    """Post every contract, each of a customer of its own, and take them in; their causes."""
    causes = {
        name: await daybook.record("subscription.recorded", TOLD, **data) for name, data in CONTRACTS.items()
    }
    await daybook.record("customer.recorded", TOLD, customer_id="cust-ending", name="Avery Stone")
    await daybook.catch_up()
    return causes
