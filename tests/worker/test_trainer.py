"""The worker learns by itself, what it has learnt outlives it, and a restart loses none of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import json

from tests.support.processes import NO_TLS, DaybookProcesses, signed
from tests.support.waiting import PATIENCE_SECONDS, wait_until

CUSTOMERS, ORDERS = 16, 6
DAYS = (200, 190, 160, 130, 30, 2)  # before now, of each customer's orders: gaps of 10 to 100 days
PATH = "/api/payment/analytics/customers/cus_1/revenue"


@pytest.fixture
def daybook(tmp_path: Path) -> Iterator[DaybookProcesses]:
    with DaybookProcesses(tmp_path) as daybook:
        yield daybook


def post_orders(daybook: DaybookProcesses) -> None:
    """A history of customers who buy every ten days or so, up to yesterday."""
    today = datetime.now(UTC)
    with httpx.Client(base_url=daybook.url, timeout=PATIENCE_SECONDS, verify=NO_TLS) as http:
        for number in range(CUSTOMERS * ORDERS):
            customer, order = divmod(number, ORDERS)
            at = today - timedelta(days=DAYS[order] + customer % 5)
            body = json.encode(
                {
                    "type": "payment.recorded",
                    "occurred_at": at.isoformat(),
                    "data": {
                        "payment_id": f"pay_{number}",
                        "customer_id": f"cus_{customer}",
                        "status": "succeeded",
                        "currency": "usd",
                        "amount": 1_000,
                    },
                }
            )
            answer = http.post(
                "/webhooks/standard/biller", content=body, headers=signed(f"evt_{number}", body)
            )
            assert answer.status_code == 200


def learnt(daybook: DaybookProcesses) -> dict[str, Any] | None:
    """The predictions of the first customer, once they are learnt of every order."""
    answer = httpx.get(daybook.url + PATH, timeout=PATIENCE_SECONDS, verify=NO_TLS)
    if answer.status_code != 200:
        return None
    found: dict[str, Any] = answer.json()["predictions"]
    return found if found["learnt"] and found["learnt"]["position"] == CUSTOMERS * ORDERS else None


def test_the_worker_learns_and_a_killed_one_loses_nothing_of_it(daybook: DaybookProcesses) -> None:
    # all orders before the worker: after it has learnt of some, it rests before it learns of the others
    daybook.start("web")
    daybook.wait_ready()
    post_orders(daybook)
    daybook.kill("web")
    daybook.start("run")
    daybook.wait_ready()
    first = wait_until(lambda: learnt(daybook), "all is learnt")
    basis = first["basis"]["next_purchase_probability"]
    assert (basis["method"], basis["n"]) == ("kaplan-meier", CUSTOMERS * ORDERS)

    daybook.kill("run")
    daybook.start("run")
    daybook.wait_ready()

    assert wait_until(lambda: learnt(daybook), "it still stands") == first
