"""What steers Daybook is checked, and a value of another type is named: SQLite accepts any in any column."""

import sqlite3
from contextlib import closing
from functools import partial

import pytest

from service.bootstrap import open_books, open_ledger
from service.intake.versions import VERSIONS, find_due
from service.ledger import chain
from service.maintenance.status import find_status
from service.settings import Settings
from service.verify import Fault, verify_all, verify_chain, verify_totals
from tests.support.temporary_books import NOW


def change(settings: Settings, file: str, *statements: str) -> None:
    with closing(sqlite3.connect(settings.data_dir / file)) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount


async def fault_in_ledger(settings: Settings) -> tuple[str, str | None]:
    ledger = open_ledger(settings)
    try:
        with pytest.raises(Fault) as found:
            await verify_chain(ledger)
    finally:
        await ledger.close()
    return found.value.where.table, found.value.where.key


# What steers


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE INTO cursors VALUES ('translated|stripe', '99', 1)",
        "UPDATE cursors SET body = 'any text' WHERE name = 'translated|stripe'",
        "UPDATE cursors SET body = (SELECT body FROM cursors WHERE name = 'translated|standard') "
        "WHERE name = 'translated|stripe'",
        "UPDATE cursors SET kept_at_us = kept_at_us + 1 WHERE name = 'translated|stripe'",
    ],
)
async def test_a_cursor_of_another_hand_counts_as_none_and_is_found(
    settings: Settings, statement: str
) -> None:
    ledger = open_ledger(settings)
    names = [f"translated|{name}" for name in VERSIONS]
    for name, version in zip(names, VERSIONS.values(), strict=True):
        await ledger.save_cursor(name, str(version).encode(), NOW)
    assert await ledger.read(partial(find_due, vault=ledger.vault)) == []

    await ledger.close()
    change(settings, "ledger.db", statement)

    ledger = open_ledger(settings)
    assert await ledger.read(partial(find_due, vault=ledger.vault)) == ["stripe"]
    await ledger.close()
    assert await fault_in_ledger(settings) == ("cursors", "translated|stripe")


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("UPDATE alembic_version SET version_num = '0001'", "alembic_version"),
        ("DELETE FROM alembic_version", "alembic_version"),
        ("UPDATE compatibility SET oldest = '0001'", "compatibility"),
        ("DELETE FROM compatibility", "compatibility"),
        ("INSERT INTO compatibility VALUES ('0001')", "compatibility"),
    ],
)
async def test_another_schema_than_there_is_is_found(settings: Settings, statement: str, table: str) -> None:
    change(settings, "ledger.db", statement)

    assert await fault_in_ledger(settings) == (table, None)


async def test_a_gross_total_is_compared_with_its_rows(settings: Settings) -> None:
    change(settings, "books.db", "UPDATE mrr_days_gross SET gross_cents = 1")
    store = open_books(settings)
    try:
        with pytest.raises(Fault, match="mrr_days_gross, group usd"):
            await verify_totals(store)
    finally:
        await store.close()


# Values of another type


@pytest.mark.parametrize(
    ("file", "statement", "table"),
    [
        ("ledger.db", "UPDATE deliveries SET body = 5 WHERE position = 5", "deliveries"),
        ("ledger.db", "UPDATE events SET data = 5 WHERE position = 5", "events"),
        ("ledger.db", "UPDATE events SET occurred_at_us = 'soon' WHERE position = 5", "events"),
        ("ledger.db", "UPDATE keys SET sealed = 5 WHERE owner = 'general'", "keys"),
        ("ledger.db", "INSERT INTO quarantine VALUES (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)", "quarantine"),
        ("ledger.db", "INSERT INTO quarantine_chain VALUES (1, 1, 1, 1)", "quarantine_chain"),
        ("ledger.db", "UPDATE set_aside SET up_to = 'end'", "set_aside"),
        ("books.db", "UPDATE checkpoints SET position = 'end'", "checkpoints"),
        ("books.db", "UPDATE mrr_steps SET mrr_cents = 'much'", "mrr_steps"),
        ("books.db", "UPDATE cash SET causes = 5.5", "cash"),
    ],
)
async def test_verify_names_the_table(settings: Settings, file: str, statement: str, table: str) -> None:
    change(settings, file, statement)

    with pytest.raises(Fault) as found:
        await verify_all(settings)

    assert found.value.where.table == table


@pytest.mark.parametrize(
    ("file", "statement", "table", "key"),
    [
        (
            "ledger.db",
            "INSERT INTO fetches VALUES ('stripe', 'evt_1', 'once', 1, 1)",
            "fetches",
            "stripe|evt_1",
        ),
        ("books.db", "UPDATE checkpoints SET position = 'end' WHERE book = 1", "checkpoints", "1|0"),
    ],
)
async def test_status_names_the_table_and_the_row(
    settings: Settings, file: str, statement: str, table: str, key: str
) -> None:
    change(settings, file, statement)

    with pytest.raises(Fault) as found:
        await find_status(settings)

    assert (found.value.where.table, found.value.where.key) == (table, key)


async def test_an_event_that_nothing_reads_is_named_though_the_chain_was_written_anew(
    settings: Settings,
) -> None:
    with closing(sqlite3.connect(settings.data_dir / "ledger.db")) as connection, connection:
        connection.row_factory = sqlite3.Row
        connection.execute("UPDATE events SET data = X'7B' WHERE position = 5")
        digest = chain.GENESIS
        for row in connection.execute("SELECT * FROM events ORDER BY position").fetchall():
            digest = chain.link(digest, dict(row))
            connection.execute("UPDATE events SET digest = ? WHERE position = ?", [digest, row["position"]])

    with pytest.raises(Fault, match="the event at position 5 can't be read"):
        await verify_all(settings)
