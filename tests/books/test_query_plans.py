"""What an event costs is what it changes: no hot statement walks a table that grows.

SQLite says what it runs (a trace on each connection), and how it would run it (EXPLAIN QUERY PLAN).
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import event as sqlalchemy_event

from service.books.tables import ROWS, TOTALS
from service.rebuild.builds import prune
from service.rebuild.cutover import rebuild
from service.rebuild.fill import unseen
from service.settings import load
from service.storage.database import books_path, ledger_path
from tests.support.events import at, but, created, event, invoice, payment, refund, settles, subscription
from tests.support.temporary_books import Shelf, new_shelf, now

GROWING = {*(table.name for table in (*ROWS.values(), *TOTALS.values())), "events", "deliveries", "subjects"}
LAST_OF_ALL = re.compile(r"ORDER BY events\.position DESC\s+LIMIT 1\b")  # one step from the end of the key
COUNTS = re.compile(r"SELECT count\(\*\) AS count_1\s+FROM subjects$")  # once, of how much there is to do
HOT = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


def life(number: int) -> list:
    plan = subscription(
        subscription_id=f"sub_{number}", customer_id=f"cus_{number}", next_bill_at=at("2025-12-01")
    )
    bill = invoice(
        "paid", invoice_id=f"in_{number}", customer_id=f"cus_{number}", subscription_id=f"sub_{number}"
    )
    pays = f"pi_{number}"
    return [
        created(plan, "2025-01-10"),
        event(but(plan, declined=True), "2025-02-10"),
        event(but(bill, status="open", amount_paid=0, payment_failed=True), "2025-11-12"),
        event(bill, "2025-11-13"),
        event(settles(bill.invoice_id, pays), "2025-11-13"),
        event(payment(payment_id=pays, customer_id=f"cus_{number}"), "2025-11-13"),
        event(refund(payment_id=pays, refund_id=f"re_{number}"), "2025-11-20"),
        event(but(plan, status="canceled"), "2025-11-21"),
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


async def test_a_statement_that_walks_a_table_is_found():
    async with new_shelf() as shelf:
        walks = ["SELECT * FROM bills WHERE amount_cents = 1", "SELECT count(*) FROM cash"]
        assert len(scans(books_path(shelf.directory), [*walks, "SELECT * FROM bills WHERE id = 1"])) == 2


@pytest.mark.parametrize("analyzed", [False, True], ids=["as it grew", "with statistics"])
async def test_no_hot_statement_walks_a_table_that_grows(analyzed):
    async with new_shelf() as shelf:
        await shelf.tell(*(told for number in range(300) for told in life(number)))
        if analyzed:
            for path in (ledger_path(shelf.directory), books_path(shelf.directory)):
                with closing(sqlite3.connect(path)) as connection:
                    connection.execute("ANALYZE")
        with traced() as statements:
            opened = Shelf(load(data_dir=shelf.directory), shelf.rules)
            await opened.tell(*life(299), *life(1_000))
            await opened.ledger.close()
        hot = [s for s in statements if s.lstrip().upper().startswith(HOT)]
        touched = {name for name in GROWING for statement in hot if re.search(rf"\b{name}\b", statement)}
        assert touched >= GROWING - {"customers"}
        for path in (ledger_path(shelf.directory), books_path(shelf.directory)):
            assert scans(path, hot) == []


async def test_a_rebuild_walks_no_table_either():
    async with new_shelf() as shelf:
        await shelf.tell(*(told for number in range(300) for told in life(number)))
        with traced() as statements:
            opened = Shelf(load(data_dir=shelf.directory), shelf.rules)
            async with opened.store() as store:
                assert (await rebuild(opened.settings, opened.ledger, store, now, processes=1)).live
                await prune(store, unseen)
            await opened.ledger.close()
        hot = [s for s in statements if s.lstrip().upper().startswith(HOT) and not COUNTS.match(s)]
        for path in (ledger_path(shelf.directory), books_path(shelf.directory)):
            assert scans(path, hot) == []
