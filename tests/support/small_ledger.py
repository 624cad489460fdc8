"""A small ledger with every kind of row in its books, and copies of it to change."""

import shutil
import sqlite3
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from service.books.engine import Engine
from service.books.tables import PARTITIONS
from service.bootstrap import open_books, open_ledger, prepare
from service.core.events import AppliedDiscount, BilledItem, Customer, Discount, Product, SetAside, Unused
from service.settings import Settings, load
from tests.support.events import (
    at,
    but,
    changed,
    created,
    dispute,
    event,
    invoice,
    item,
    payment,
    refund,
    settles,
    subscription,
)
from tests.support.partitions import HeldPartitions
from tests.support.temporary_books import NOW, incoming, now

FILES = ("ledger.db", "books.db")
_before = subscription(item(), next_bill_at=at("2026-01-05"))
_after = subscription(item(30_000), next_bill_at=at("2026-01-05"))
_observed = subscription(
    item(10_000), subscription_id="7000", customer_id="mx_1", next_bill_on=date(2025, 11, 10)
)
_past = BilledItem(starts_at=at("2025-09-20"), ends_at=at("2025-10-20"), amount=10_000, interval="month")
_other = {"invoice_id": "in_2", "customer_id": "cus_2"}
_owed = {"invoice_id": "in_3", "customer_id": "cus_2"}

EVENTS = [
    created(_before, "2025-10-05", event_id="evt_created"),
    changed(_after, "2025-11-05", _before, event_id="evt_changed"),
    event(Customer(customer_id="cus_1", name="Ada Example", email="ada@x.test"), "2025-10-05", "evt_name"),
    event(Product(product_id="prod_1", name="Maps"), "2025-10-05", "evt_product"),
    event(invoice("open", subscription_id="sub_1", payment_failed=True), "2025-11-13", "evt_failed"),
    event(
        invoice("paid", subscription_id="sub_1", when="2025-11-14", billed=(_past,)), "2025-11-14", "evt_paid"
    ),
    event(settles(), "2025-11-14", "evt_settles"),
    event(payment(), "2025-11-14", "evt_payment"),
    event(refund(), "2025-11-20", "evt_refund"),
    event(
        SetAside(kind="customer", key="cus_9", event_id="evt_refund", book="mrr", error="KeyError"),
        "2025-12-10",
        "evt_set_aside",
    ),
    event(settles("in_2", "pi_2"), "2025-12-01", "evt_settles_2"),
    event(payment(payment_id="pi_2", customer_id="cus_2"), "2025-12-01", "evt_payment_2"),
    event(payment(1_500, payment_id="pi_3"), "2025-12-07", "evt_payment_alone"),
    event(settles("in_2", "pi_4"), "2025-12-01", "evt_settles_unreported"),
    event(refund(refund_id="re_4", payment_id="pi_4"), "2025-12-09", "evt_refund_unreported"),
    event(
        Unused(original_type="charge.succeeded", ignored="test mode", event_id="evt_test"),
        "2025-12-06",
        "evt_test",
    ),
    event(dispute("lost", payment_id="pi_2"), "2025-12-05", "evt_dispute"),
    event(invoice("open", when="2025-12-02", **_owed), "2025-12-02", "evt_owed"),
    event(payment(300, payment_id="pi_5", **_owed), "2025-12-06", "evt_part"),
    event(_observed, "2025-11-01", "evt_observed", processor="mxmerchant"),
    event(
        but(_observed, next_bill_on=date(2025, 12, 10)),
        "2025-11-12",
        "evt_observed_2",
        processor="mxmerchant",
    ),
    event(
        payment(payment_id="7001", customer_id="mx_1"), "2025-11-11", "evt_payment_mx", processor="mxmerchant"
    ),
    event(payment(status="settled"), "2025-12-08", "evt_unknown", processor="standard.acme"),
    event(
        AppliedDiscount(customer_id="cus_2", discount=Discount(discount_id="di_1", percent_off=Decimal(10))),
        "2025-12-08",
        "evt_discount",
    ),
    event(invoice("paid", when="2025-12-01", **_other), "2025-12-01", "evt_paid_2"),
]


async def write_small_ledger(settings: Settings, *, behind: int = 0) -> None:
    """Append `EVENTS` and advance the books, the last `behind` partitions only to positions of their own."""
    prepare(settings)
    ledger, store = open_ledger(settings), open_books(settings)
    try:
        await ledger.append([incoming(each) for each in EVENTS], NOW)
        level = range(PARTITIONS - behind if settings.database_url else 1)
        await Engine(ledger, store, now, HeldPartitions(level)).catch_up()
        for part in range(PARTITIONS - behind, PARTITIONS):
            await Engine(ledger, store, now, HeldPartitions([part])).catch_up(until=part % len(EVENTS))
    finally:
        await store.close()
        await ledger.close()


async def record_one_more(settings: Settings, event_id: str = "evt_more") -> None:
    """One more event, in the ledger and in the books."""
    ledger, store = open_ledger(settings), open_books(settings)
    await ledger.append([incoming(changed(subscription(), "2026-01-01", event_id=event_id))], NOW)
    await Engine(ledger, store, now).catch_up()
    await store.close()
    await ledger.close()


def copy_of(origin: Path, directory: Path) -> Settings:
    """Settings of a copy in another directory."""
    for name in FILES:
        shutil.copyfile(origin / name, directory / name)
    return load(data_dir=directory)


def checkpoint_files(directory: Path) -> None:
    """Write what SQLite keeps in its write-ahead logs into the files themselves."""
    for name in FILES:
        with closing(sqlite3.connect(directory / name)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def changed_value(value: Any, kind: type = object) -> Any:
    """The value with one bit changed, or one character; of a null, something."""
    if value is None:
        return 1
    if isinstance(value, int):
        return value ^ (1 if kind is bool else 64)
    if not value:
        return "x" if isinstance(value, str) else b"x"
    middle = len(value) // 2
    found = value[middle : middle + 1]
    last = ("1" if found == "0" else "0") if isinstance(value, str) else bytes([found[0] ^ 1])
    return value[:middle] + last + value[middle + 1 :]
