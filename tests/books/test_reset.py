"""Books that are ahead of a restored ledger are begun anew once its loss is accepted."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from service.books.engine import Engine
from service.bootstrap import open_books, open_ledger, prepare
from service.core.errors import LostEvents
from service.ledger.tables import Delivery, Event, EventId, Subject, Turn
from service.settings import Settings, load
from service.verify import Fault, verify_all
from tests.support.events import changed, item, subscription
from tests.support.postgres import PostgresServer
from tests.support.small_ledger import EVENTS, record_one_more, write_small_ledger
from tests.support.temporary_books import NOW, incoming, now


async def other_events(settings: Settings) -> None:
    """Other events where a restore took some away, and one more; and the books go on."""
    ledger, store = open_ledger(settings), open_books(settings)
    for number in range(2):
        told = changed(subscription(item(99_000 + number)), "2026-02-01", event_id=f"evt_other_{number}")
        await ledger.append([incoming(told)], NOW)
    await Engine(ledger, store, now).catch_up()
    await store.close()
    await ledger.close()


def only_if_ahead(logged: list[Any]) -> list[int]:
    return [line["books"] for line in logged if line["event"] == "books_ahead"]


async def test_books_ahead_of_a_restored_ledger_are_reset_on_sqlite(
    small_daybook: Settings, tmp_path: Path, logged: list[Any]
) -> None:
    # given a ledger that is restored from before the last event, and books that are not
    shutil.copyfile(small_daybook.data_dir / "ledger.db", tmp_path / "earlier.db")
    await record_one_more(small_daybook)
    prepare(small_daybook)
    assert not only_if_ahead(logged)
    (tmp_path / "earlier.db").rename(small_daybook.data_dir / "ledger.db")
    with pytest.raises(
        Fault, match=f"holds position {len(EVENTS) + 1}, and the ledger ends at {len(EVENTS)}"
    ):
        await verify_all(small_daybook)

    # when its loss is accepted, and other events come
    with pytest.raises(LostEvents, match="the books knew"):
        prepare(small_daybook)
    prepare(small_daybook, accept_loss=len(EVENTS))
    await other_events(small_daybook)

    # then the books are those of the ledger that is there
    assert only_if_ahead(logged) == [len(EVENTS) + 1]
    assert (await verify_all(small_daybook)).events == len(EVENTS) + 3  # with that of the acceptance


async def test_books_ahead_of_a_restored_ledger_are_reset_on_postgresql(
    postgres: PostgresServer, tmp_path: Path, logged: list[Any]
) -> None:
    settings = load(data_dir=tmp_path, database_url=postgres.new_database())
    await write_small_ledger(settings)
    ledger = open_ledger(settings)
    before = await ledger.read(lambda c: c.execute(Turn.__table__.select()).one())
    await record_one_more(settings)
    prepare(settings)
    assert not only_if_ahead(logged)

    def restore(connection: Any) -> None:
        for table in (Event, EventId, Delivery, Subject):
            connection.execute(delete(table).where(table.position > before.position))
        connection.execute(update(Turn).values(position=before.position, digest=before.digest))

    await ledger._database.write(restore)
    await ledger.close()
    with pytest.raises(LostEvents, match="the books knew"):
        prepare(settings)
    prepare(settings, accept_loss=before.position)
    await other_events(settings)

    assert only_if_ahead(logged) == [len(EVENTS) + 1]
    assert (await verify_all(settings)).events == len(EVENTS) + 3
