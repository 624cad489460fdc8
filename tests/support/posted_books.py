"""Data directories filled once a session by posting; tests read copies of them."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.demo import posts
from service.reads.catalog import READS
from service.reads.read import Read
from tests.support.running import Clock, Daybook, running

DEMO = {
    "stripe_webhook_secrets": posts.STRIPE_SECRET,
    "mxmerchant_webhook_secrets": posts.MXMERCHANT_SECRET,
}

LISTS = [read for read in READS if "{customer_id}" not in read.path]

JSON = {"Content-Type": "application/json"}


def filled(
    data_dir: Path, fill: Callable[[Daybook], Awaitable[None]], now: datetime | None = None, **given: Any
) -> Path:
    """The data directory, with what `fill` posts, and its books. Without `now` it posts as the demo does."""

    async def run() -> None:
        clock, settings = (Clock(now), given) if now else (Clock(datetime.now(UTC)), DEMO)
        async with running(data_dir, clock, **settings) as daybook:
            await fill(daybook)
            await daybook.catch_up()

    asyncio.run(run())
    return data_dir


async def post_november(daybook: Daybook) -> None:
    for post in posts.stripe_posts():
        answer = await daybook.http.post(post.path, content=post.body, headers=post.headers | JSON)
        assert answer.json()["duplicate"] is False


async def post_mx_contracts(daybook: Daybook) -> None:
    post = posts.mxmerchant_post()
    answer = await daybook.http.post(post.path, content=post.body, headers=post.headers | JSON)
    assert answer.json()["duplicate"] is False


def path_of(read: Read, customer_id: str) -> str:
    """Where a read is, of this customer if it is of one."""
    return read.path.replace("{customer_id}", customer_id)


async def some_path(daybook: Daybook, read: Read) -> str:
    """The same of a customer with a contract, of the account "" if one has any."""
    contracts = (await daybook.get("/api/v1/contracts"))["contracts"]
    return path_of(read, min(contracts, key=lambda row: row["account"])["customer_id"])


# Orders, in the ledger's own words


async def pays(daybook: Daybook, customer_id: str | None, day: str, cents: int, **more: Any) -> str:
    """A payment that belongs to no invoice; its cause."""
    data = {"payment_id": f"pay-{customer_id}-{day}", "status": "succeeded", "currency": "usd", **more}
    account = data.pop("account", "")
    at = data.pop("at", f"{day}T12:00:00Z")
    return await daybook.record(
        "payment.recorded", at, account=account, customer_id=customer_id, amount=cents, **data
    )


async def invoices(daybook: Daybook, customer_id: str | None, day: str, cents: int, **more: Any) -> str:
    """An invoice of a day, paid unless `more` says otherwise; its cause."""
    at = f"{day}T12:00:00Z"
    data = {
        "invoice_id": f"inv-{customer_id}-{day}",
        "customer_id": customer_id,
        "status": "paid",
        "currency": "usd",
        "amount_due": cents,
        "created_at": at,
        **more,
    }
    if data["status"] == "paid":
        data = {"amount_paid": cents, "amount_remaining": 0, "paid_at": at, **data}
    return await daybook.record("invoice.recorded", data.pop("told_at", at), **data)


async def refunds(daybook: Daybook, day: str, cents: int, **more: Any) -> str:
    """A refund that succeeded on a day; its cause."""
    at = f"{day}T12:00:00Z"
    data = {"refund_id": f"ref-{day}", "status": "succeeded", "currency": "usd", "created_at": at, **more}
    return await daybook.record("refund.recorded", data.pop("told_at", at), amount=cents, **data)
