"""What an event costs is what it changes: no hot statement walks a table that grows.

SQLite says what it runs (a trace on each connection), and how it would run it (EXPLAIN QUERY PLAN).
"""

import re
import sqlite3
from contextlib import closing

import pytest

from service.core.progress import no_progress
from service.rebuild.builds import prune
from service.rebuild.cutover import rebuild
from service.settings import load
from service.storage.database import books_path, ledger_path
from tests.support.query_plans import GROWING, HOT, events_of, scans, traced
from tests.support.temporary_books import TemporaryBooks, new_books, now

COUNTS = re.compile(r"SELECT count\(\*\) AS count_1\s+FROM subjects$")  # once, of how much there is to do


async def test_a_statement_that_walks_a_table_is_found():
    async with new_books() as books:
        walks = ["SELECT * FROM bills WHERE amount_cents = 1", "SELECT count(*) FROM cash"]
        assert len(scans(books_path(books.directory), [*walks, "SELECT * FROM bills WHERE id = 1"])) == 2


@pytest.mark.parametrize("analyzed", [False, True], ids=["as it grew", "with statistics"])
async def test_no_hot_statement_walks_a_table_that_grows(analyzed):
    async with new_books() as books:
        await books.record(*(told for number in range(300) for told in events_of(number)))
        if analyzed:
            for path in (ledger_path(books.directory), books_path(books.directory)):
                with closing(sqlite3.connect(path)) as connection:
                    connection.execute("ANALYZE")
        with traced() as statements:
            opened = TemporaryBooks(load(data_dir=books.directory), books.rules)
            await opened.record(*events_of(299), *events_of(1_000))
            await opened.ledger.close()
        hot = [s for s in statements if s.lstrip().upper().startswith(HOT)]
        touched = {name for name in GROWING for statement in hot if re.search(rf"\b{name}\b", statement)}
        assert touched >= GROWING - {"customers"}
        for path in (ledger_path(books.directory), books_path(books.directory)):
            assert scans(path, hot) == []


async def test_a_rebuild_walks_no_table_either():
    async with new_books() as books:
        await books.record(*(told for number in range(300) for told in events_of(number)))
        with traced() as statements:
            opened = TemporaryBooks(load(data_dir=books.directory), books.rules)
            async with opened.store() as store:
                assert (await rebuild(opened.settings, opened.ledger, store, now, processes=1)).live
                await prune(store, no_progress)
            await opened.ledger.close()
        hot = [s for s in statements if s.lstrip().upper().startswith(HOT) and not COUNTS.match(s)]
        for path in (ledger_path(books.directory), books_path(books.directory)):
            assert scans(path, hot) == []
