"""Which statements run, and which of them walk a table that grows."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

import sqlalchemy
from sqlalchemy import event as sqlalchemy_event

from service.books.tables import ROWS, TOTALS
from service.core.events import AppliedDiscount, Discount, Event, SetAside, Unused
from tests.support.events import at, but, created, event, invoice, payment, refund, settles, subscription

GROWING = {*(table.name for table in (*ROWS.values(), *TOTALS.values())), "events", "deliveries", "subjects"}
LAST_OF_ALL = re.compile(r"ORDER BY events\.position DESC\s+LIMIT 1\b")  # one step from the end of the key
HOT = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
WALKS = "SELECT relname || ' ' || seq_scan FROM pg_stat_user_tables WHERE seq_scan > 0"  # of PostgreSQL

_TENTH = Discount(discount_id="di_1", percent_off=Decimal(10))


def events_of(number: int) -> list[Event]:
    """A customer's subscription, discount, bill and payments, an event of the other mode, one set aside."""
    plan = subscription(
        subscription_id=f"sub_{number}", customer_id=f"cus_{number}", next_bill_at=at("2025-12-01")
    )
    bill = invoice(
        "paid", invoice_id=f"in_{number}", customer_id=f"cus_{number}", subscription_id=f"sub_{number}"
    )
    pays = f"pi_{number}"
    unreported = f"pi_unreported_{number}"
    return [
        created(plan, "2025-01-10"),
        event(but(plan, declined=True), "2025-02-10"),
        event(but(bill, status="open", amount_paid=0, payment_failed=True), "2025-11-12"),
        event(bill, "2025-11-13"),
        event(settles(bill.invoice_id, pays), "2025-11-13"),
        event(payment(payment_id=pays, customer_id=f"cus_{number}"), "2025-11-13"),
        event(refund(payment_id=pays, refund_id=f"re_{number}"), "2025-11-20"),
        event(settles(bill.invoice_id, unreported), "2025-11-13"),
        event(refund(payment_id=unreported, refund_id=f"re_unreported_{number}"), "2025-11-20"),
        event(payment(payment_id=f"pi_alone_{number}", customer_id=f"cus_{number}"), "2025-11-17"),
        event(payment(payment_id=f"pi_odd_{number}", status="odd"), "2025-11-18", processor="standard.acme"),
        event(but(plan, status="canceled"), "2025-11-21"),
        event(AppliedDiscount(customer_id=plan.customer_id, discount=_TENTH), "2025-01-09"),
        event(Unused(original_type="charge.succeeded", event_id=f"evt_ignored_{number}"), "2025-11-22"),
        event(
            SetAside(
                kind="invoice", key=f"in_gone_{number}", event_id="evt_gone", book="mrr", error="KeyError"
            ),
            "2025-11-23",
        ),
    ]


@contextmanager
def traced() -> Iterator[list[str]]:
    """Every statement that SQLite runs on connections opened meanwhile."""
    statements: list[str] = []

    def trace(connection, _record) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.set_trace_callback(statements.append)
        else:
            connection.run_async(lambda driver: driver.set_trace_callback(statements.append))

    sqlalchemy_event.listen(sqlalchemy.Engine, "connect", trace)
    try:
        yield statements
    finally:
        sqlalchemy_event.remove(sqlalchemy.Engine, "connect", trace)


def scans(path: Path, statements: list[str]) -> list[str]:
    """The steps that walk a growing table, each with its statement."""
    found = []
    with closing(sqlite3.connect(path)) as connection:
        for statement in dict.fromkeys(s for s in statements if s.lstrip().upper().startswith(HOT)):
            try:
                plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            except sqlite3.OperationalError:  # of the other file
                continue
            for *_, step in plan:
                walked = re.match(r"SCAN (?:TABLE )?(\w+)", step)
                if walked and walked[1] in GROWING and not LAST_OF_ALL.search(statement):
                    found.append(f"{step}: {statement[:300]}")
    return found
