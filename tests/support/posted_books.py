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
from tests.support.senders import SENDERS, subscription

DEMO = {
    "stripe_webhook_secrets": posts.STRIPE_SECRET,
    "mxmerchant_webhook_secrets": posts.MXMERCHANT_SECRET,
}

LISTS = [read for read in READS if "{customer_id}" not in read.path]

NAME = "Avery Stone"  # of senders' payments, too
EMAIL = "avery@example.com"
_AT = "2025-11-13T10:00:00Z"

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


async def post_everything(daybook: Daybook) -> None:
    """One of everything that a read can show, nulls too. Every name is `NAME`."""
    of = {"currency": "usd", "customer_id": "cust-1", "amount": 500, "payment_id": "pay-1"}
    bill = {"currency": "usd", "amount_due": 500, "created_at": _AT}
    full = {"anchor_at": _AT, "next_bill_at": "2025-11-20T12:00:00Z", "cancel_at": "2026-11-20T12:00:00Z"}
    await daybook.record("subscription.recorded", _AT, **subscription("1", 500, "week", 1, **full))
    await daybook.record("subscription.recorded", _AT, **subscription("2", 500))
    unpriced = {**subscription("3", 0), "items": [{"interval": "month"}], "status": "past_due"}
    await daybook.record("subscription.recorded", _AT, **unpriced)
    await daybook.record("subscription.recorded", _AT, **{**subscription("4", 500), "currency": "eur"})
    await daybook.record("customer.recorded", _AT, customer_id="cust-1", name=NAME, email=EMAIL)
    for status in ("draft", "open", "paid", "uncollectible", "void", "deleted"):
        await daybook.record("invoice.recorded", _AT, invoice_id=f"inv-{status}", status=status, **bill)
    await daybook.record(
        "invoice.recorded",
        _AT,
        invoice_id="inv-7",
        status="open",
        subscription_id="sub-2",
        payment_failed=True,
        **bill,
    )
    await daybook.record("payment.recorded", _AT, status="succeeded", **of)
    await daybook.record("refund.recorded", _AT, status="succeeded", refund_id="r", created_at=_AT, **of)
    await daybook.record("dispute.recorded", _AT, status="lost", dispute_id="d", **of)
    line = {"amount": 500, "product_id": "prod-1", "product_name": "Hours"}
    await pays(daybook, "cust-9", "2025-08-20", 500)
    await invoices(daybook, "cust-1", "2025-11-01", 500, lines=[line])
    for sender in SENDERS:
        await daybook.post(sender, sender.event("1", 24900))
    await daybook.catch_up()


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
