"""No hot statement walks a table that grows, whatever the statistics say of it."""

import re

import pytest

from service.books.engine import Engine
from service.bootstrap import open_books, open_ledger
from service.settings import Settings
from tests.support.postgres import PostgresServer
from tests.support.query_plans import GROWING, WALKS, events_of
from tests.support.temporary_books import NOW, incoming, now
from tests.support.waiting import wait_until

STORES = ["postgresql"]


async def take_in(settings: Settings, numbers: range) -> None:
    """Events into the ledger and the books, on connections that end: their counts are then complete."""
    ledger, store = open_ledger(settings), open_books(settings)
    await store.register()
    events = [incoming(told) for number in numbers for told in events_of(number)]
    for start in range(0, len(events), 200):
        await ledger.append(events[start : start + 200], NOW)
    await Engine(ledger, store, now).catch_up()
    await store.close()
    await ledger.close()


@pytest.mark.parametrize("analyzed", [False, True], ids=["as it grew", "with statistics"])
async def test_no_hot_statement_walks_a_table_that_grows(
    settings: Settings, postgres: PostgresServer, analyzed: bool
) -> None:
    database = str(settings.database_url).rsplit("/", 1)[1]
    await take_in(settings, range(300))
    if analyzed:
        postgres.sql("ANALYZE", database)
    postgres.sql("SELECT pg_stat_reset()", database)

    await take_in(settings, range(299, 320))

    found = [line.split()[0] for line in postgres.sql(WALKS, database).splitlines()]
    found = [line.split()[0] for line in postgres.sql(WALKS, database).splitlines()]
    walked = {re.sub(r"_\d+$", "", table) for table in found}  # a part stands for its table
    assert walked & (GROWING | {"event_ids"}) == set()
    postgres.sql("SELECT count(*) FROM daybook.events WHERE rank = 9", database)
    # a connection tells what it walked when it has ended
    wait_until(lambda: "events_00000 1" in postgres.sql(WALKS, database), "a walk is seen")
