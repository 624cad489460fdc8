"""To take a figure apart, rows are found by an index: no statement walks a table from end to end.

But for what is made of every row that there is: MRR as it stands, its metrics, and figures of all customers.
"""

import sqlite3
from contextlib import closing
from datetime import date
from functools import partial

from sqlalchemy import Connection

from service.books.view import Scope, View
from service.intake.provenance import trace
from service.reads.explain.catalog import EXPLAINABLE
from service.reads.explain.figures import explain
from service.settings import load
from service.storage.database import books_path, ledger_path
from tests.support.events import at, created, event, payment, refund, subscription
from tests.support.query_plans import events_of, scans, traced
from tests.support.temporary_books import TemporaryBooks, new_books

COMING = {"next_bill_at": at("2025-12-01")}
MONTHS = {"from": "2025-01", "to": "2025-12"}
GIVEN = {
    "month-detail": {"year": "2025", "month": "11"},
    "monthly-totals": MONTHS,
    "movements": MONTHS,
    "upcoming": {"from": "2025-01-01", "to": "2025-12-31"},
    "customer-revenue": {"customer_id": "cus_7"},
    "customer-forecast": {"customer_id": "cus_7"},
}
OF_EVERYTHING = {
    *("mrr", "compare", "metrics", "distribution", "purchase-frequency", "cohorts", "dashboard"),
    "month-detail/summary/book_mrr_cents",
    "current-month/summary/book_mrr_cents",
}
NOT_THERE = ("customers-at-risk", "customer-opportunities", "predictions/", "seasonality/", "survival/")
FIGURES = {
    f"{name}/{figure.replace('*', '0')}": GIVEN.get(name, {})
    for name, told in EXPLAINABLE.items()
    for figure in told.figures
    if OF_EVERYTHING.isdisjoint((name, f"{name}/{figure}"))
    and not any(place in f"{name}/{figure}" for place in NOT_THERE)
} | {"mrr/mrr_cents": {"customer_id": "cus_7"}}
# What no other customer has: something to come, another currency, money that goes back to a customer.
SEVENTH = [
    created(
        subscription(subscription_id=f"sub_of_{currency}", customer_id="cus_7", currency=currency, **COMING),
        "2025-11-01",
    )
    for currency in ("usd", "eur")
] + [
    event(payment(payment_id="pi_of_7", customer_id="cus_7"), "2025-11-02"),
    event(refund(payment_id="pi_of_7", refund_id="re_of_7", when="2025-11-03"), "2025-11-03"),
]


async def test_no_statement_behind_a_figure_walks_a_table() -> None:
    async with new_books() as books:
        await books.record(*(told for number in range(200) for told in events_of(number)), *SEVENTH)
        files = ledger_path(books.directory), books_path(books.directory)

        as_it_grew = await taken_apart(books)
        assert [walk for path in files for walk in scans(path, as_it_grew)] == []

        for path in files:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("ANALYZE")
        with_statistics = await taken_apart(books)
        assert [walk for path in files for walk in scans(path, with_statistics)] == []


async def taken_apart(books: TemporaryBooks) -> list[str]:
    """The statements that take every figure apart, down to its events."""

    def find(connection: Connection, figure: str) -> set[tuple[str, str]]:
        scope = Scope(currency="usd", today=date(2025, 11, 13))
        view = View(connection=connection, books=store.positions(connection).books, scope=scope)
        rows = explain(view, figure, FIGURES[figure], 0, 3)[0].rows
        return {(cause, row.account) for row in rows for cause in row.causes}

    with traced() as statements:
        opened = TemporaryBooks(load(data_dir=books.directory), books.rules)
        async with opened.store() as store:
            found = [await store.read(partial(find, figure=figure)) for figure in FIGURES]
            causes = set().union(*found)
        async with opened.ledger.reading() as reader:
            assert len(await trace(reader, causes, load())) == len(causes) > 3
        await opened.ledger.close()
    assert len(statements) > 100
    return statements
