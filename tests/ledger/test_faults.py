"""Verification finds a change of any column, of the raw bytes, of the index, of a row or a total."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import json

from handlers import standard
from projections.book import Rules
from service.books.engine import Engine
from service.books.store import BookStore
from service.core.delivery import Proof
from service.core.errors import Integrity, SettingsError
from service.database import books_path, ledger_path
from service.ledger.chain import CHAINED
from service.ledger.draft import Incoming
from service.ledger.schema import NEWEST, migrate
from service.ledger.store import Ledger
from service.ledger.tables import metadata
from service.settings import load
from service.verify import verify_all, verify_chain
from tests.ledger.conftest import NOW, OpenLedger, delivery
from tests.processes.daybook import subscription_event


def tamper(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        changed = connection.execute(statement).rowcount
        connection.commit()
    assert changed > 0


@pytest.mark.parametrize("column", [*CHAINED, "digest"])
async def test_a_change_of_any_column_is_found(ledger: Ledger, tmp_path: Path, column: str) -> None:
    await ledger.append([delivery("a"), delivery("b"), delivery("c")], NOW)
    assert await verify_chain(ledger) == 3

    number = column in ("position", "recorded_at_us", "occurred_at_us", "rank", "delivery")
    value = f"{column} + 100" if number else f"cast(coalesce({column}, '') || 'x' AS BLOB)"
    tamper(ledger_path(tmp_path), f"UPDATE events SET {column} = {value} WHERE event_id = 'b'")

    with pytest.raises(Integrity, match=r"position (2|102)"):
        await verify_chain(ledger)


@pytest.mark.parametrize("column", ["headers", "body", "proof"])
async def test_a_change_of_a_raw_delivery_is_found(ledger: Ledger, tmp_path: Path, column: str) -> None:
    await ledger.append([delivery("a"), delivery("b")], NOW)

    tamper(
        ledger_path(tmp_path),
        f"UPDATE deliveries SET {column} = cast({column} || ' ' AS BLOB) WHERE position = 2",
    )

    with pytest.raises(Integrity, match="raw delivery at position 2"):
        await verify_chain(ledger)


async def test_a_removed_event_is_found(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.append([delivery("a"), delivery("b"), delivery("c")], NOW)

    tamper(ledger_path(tmp_path), "DELETE FROM events WHERE position = 2")

    with pytest.raises(Integrity, match="position 2 is missing"):
        await verify_chain(ledger)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM subjects WHERE position = 2", "lacks"),
        ("INSERT INTO subjects VALUES ('customer|stripe||cus_z', 1)", "no event makes"),
    ],
)
async def test_a_change_of_the_index_of_histories_is_found(
    ledger: Ledger, tmp_path: Path, statement: str, said: str
) -> None:
    await ledger.append([delivery("a"), delivery("b")], NOW)

    tamper(ledger_path(tmp_path), statement)

    with pytest.raises(Integrity, match=said):
        await verify_chain(ledger)


async def with_books(open_ledger: OpenLedger, directory: Path) -> None:
    """A ledger of five subscriptions and the books of it."""
    ledger, store = open_ledger(), BookStore(directory, Rules())
    deliveries = []
    for number in range(5):
        event_id, body = subscription_event(number)
        proof = Proof(processor="standard.biller", method="test", received_at=NOW, message_id=event_id)
        events = standard.translate(json.decode(body), proof)
        deliveries.append(Incoming(events=events, content_digest=b"", headers=b"{}", body=body, proof=proof))
    await ledger.append(deliveries, NOW)
    await store.register()
    await Engine(ledger, store, lambda: NOW).catch_up()
    await store.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE mrr_steps SET mrr_cents = mrr_cents + 1 WHERE contract_id = 'sub_2'", "book mrr differs"),
        (
            "UPDATE contracts SET next_bill_date = '2030-01-01' WHERE contract_id = 'sub_2'",
            "book bills differs",
        ),
        ("DELETE FROM bills WHERE contract_id = 'sub_2'", "book bills differs"),
        ("UPDATE bill_days SET upcoming_cents = upcoming_cents + 1", "book bills differs"),
        ("UPDATE movement_days SET new_cents = new_cents + 1", "book mrr differs"),
    ],
)
async def test_a_change_of_a_row_or_a_total_is_found(
    open_ledger: OpenLedger, tmp_path: Path, statement: str, said: str
) -> None:
    await with_books(open_ledger, tmp_path)
    assert await verify_all(load(data_dir=tmp_path))

    tamper(books_path(tmp_path), statement)

    with pytest.raises(Integrity, match=said):
        await verify_all(load(data_dir=tmp_path))


async def test_migrations_make_the_tables_that_the_code_reads(
    open_ledger: OpenLedger, tmp_path: Path
) -> None:
    open_ledger()
    with closing(sqlite3.connect(ledger_path(tmp_path))) as connection:
        for table in metadata.sorted_tables:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
            assert columns == [column.name for column in table.columns]


async def test_a_ledger_of_a_newer_version_is_refused(open_ledger: OpenLedger, tmp_path: Path) -> None:
    open_ledger()
    tamper(ledger_path(tmp_path), f"UPDATE alembic_version SET version_num = '{int(NEWEST) + 1:04d}'")

    with pytest.raises(SettingsError, match="newer Daybook"):
        migrate(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import Engine, event
from service.ledger.schema import migrate

@event.listens_for(Engine, "before_cursor_execute")
def kill(_connection, _cursor, statement, *_):
    if statement.startswith("CREATE TABLE subjects"):
        os.kill(os.getpid(), signal.SIGKILL)

migrate(Path(sys.argv[1]))
"""


def test_a_kill_in_the_middle_of_a_migration_leaves_a_ledger_that_opens(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL

    migrate(tmp_path)

    with closing(sqlite3.connect(ledger_path(tmp_path))) as connection:
        assert connection.execute("SELECT count(*) FROM subjects").fetchone() == (0,)
