"""How each connection is set up: what waits for the disk, what it sees, and for how long it waits."""

from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from service.books.store import BookStore
from service.bootstrap import open_books
from service.ledger.append import read_head
from service.ledger.store import Ledger
from service.settings import Settings
from tests.support.deliveries import NOW, delivery

STORES = ["postgresql"]


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[BookStore]:
    opened = open_books(settings)
    yield opened
    await opened.close()


def setting(name: str) -> Callable[[Connection], str]:
    """A setting of the session, in its own unit (times are in ms)."""
    query = text("SELECT setting FROM pg_settings WHERE name = :name")
    return lambda connection: str(connection.execute(query, {"name": name}).scalar_one())


async def test_the_ledgers_commits_wait_for_the_disk_and_the_books_do_not(
    ledger: Ledger, store: BookStore
) -> None:
    assert await ledger._database.write(setting("synchronous_commit")) == "on"
    assert await store.write(setting("synchronous_commit")) == "off"


@pytest.mark.parametrize(
    ("limit", "most_ms"),
    [
        ("transaction_timeout", 20_000),
        ("lock_timeout", 5_000),
        ("idle_in_transaction_session_timeout", 5_000),
    ],
)
async def test_no_writer_keeps_the_others_waiting_without_end(
    ledger: Ledger, store: BookStore, limit: str, most_ms: int
) -> None:
    for write in (ledger._database.write, store.write):
        assert 0 < int(await write(setting(limit))) <= most_ms


@pytest.mark.parametrize(
    ("name", "value"), [("default_transaction_read_only", "on"), ("transaction_isolation", "repeatable read")]
)
async def test_readers_see_one_state_and_write_nothing(
    ledger: Ledger, store: BookStore, name: str, value: str
) -> None:
    for database in (ledger._database, store._database):
        assert await database.read(setting(name)) == value
        async with database.reading() as connection:
            assert await connection.run_sync(setting(name)) == value


async def test_an_append_that_does_not_get_its_turn_fails_and_keeps_nothing(
    ledger: Ledger, settings: Settings
) -> None:
    # given somebody who holds the turn for as long as they like
    holder = await asyncpg.connect(str(settings.database_url).replace("+asyncpg", ""))
    async with holder.transaction():
        await holder.execute("SELECT FROM daybook.turn FOR UPDATE")

        # when one appends, then it fails: it does not wait for as long as they like
        with pytest.raises(DBAPIError, match="lock timeout"):
            await ledger.append([delivery("a")], NOW)
    await holder.close()

    # and what it would have kept is new when it comes again
    assert (await ledger.read(read_head)).position == 0
    (again,) = await ledger.append([delivery("a")], NOW)
    assert (again.position, again.duplicate) == (1, False)
