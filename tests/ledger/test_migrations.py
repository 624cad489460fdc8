"""Migrations: the tables that the code reads, older and newer ledgers, and a kill in between."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, inspect

from service.bootstrap import open_ledger, prepare
from service.core.errors import SettingsError
from service.core.events import Event, InvoicePayment, Payment, Superseded, superseding_event
from service.core.order import canonical
from service.ledger.history import read_histories
from service.ledger.schema import NEWEST_REVISION, migrate_file
from service.ledger.store import Ledger
from service.ledger.tables import metadata
from service.settings import Settings, load
from service.storage.database import ledger_path
from service.verify import verify_chain
from tests.ledger.tampering import tamper
from tests.support.deliveries import NOW, delivery
from tests.support.stores import EACH_STORE
from tests.support.temporary_books import incoming

STORES = EACH_STORE


async def test_migrations_make_the_tables_that_the_code_reads(ledger: Ledger, settings: Settings) -> None:
    def columns(connection: Connection) -> dict[str, list[str]]:
        inspector = inspect(connection)
        return {
            name: [column["name"] for column in inspector.get_columns(name)]
            for name in inspector.get_table_names()
        }

    found = await ledger.read(columns)

    for table in (table for table in metadata.sorted_tables if settings.database_url or table.name != "turn"):
        assert found[table.name] == [column.name for column in table.columns]


async def test_a_newer_ledger_is_refused_where_this_version_can_not_work_on_it(
    ledger: Ledger, settings: Settings
) -> None:
    newer = f"{int(NEWEST_REVISION) + 1:04d}"
    await tamper(ledger, f"UPDATE alembic_version SET version_num = '{newer}'")
    prepare(settings)  # what was only added to is no reason to stop

    await tamper(ledger, f"UPDATE compatibility SET oldest = '{newer}'")
    with pytest.raises(SettingsError, match="newer Daybook"):
        prepare(settings)


def of_invoice(event_id: str, invoice_id: str | None) -> Event:
    """A payment's event that names an invoice."""
    data = Payment(payment_id="pay-5", status="succeeded", currency="eur", amount=700, invoice_id=invoice_id)
    return Event(processor="standard.acme", event_id=event_id, occurred_at=NOW, data=data)


async def test_payments_recorded_before_belong_to_the_histories_of_their_invoices(
    ledger: Ledger, settings: Settings
) -> None:
    # given a ledger of the version before, in which a payment's event was replaced by a revision
    first, revised, settles = (
        of_invoice("m-1", "in-5"),
        of_invoice("m-1·2", "in-6"),
        replace(of_invoice("m-2", None), data=InvoicePayment(invoice_id="in-6", payment_id="pay-5")),
    )
    marker = superseding_event(first, revised.event_id)
    assert isinstance(marker.data, Superseded)
    older = replace(marker, data=replace(marker.data, histories=(("payment", "pay-5"),)))
    await ledger.append([incoming(event) for event in (first, older, revised, settles)], NOW)
    names = [f"{kind}|standard.acme||{key}" for kind, key in (("invoice", "in-5"), ("invoice", "in-6"))]
    await tamper(ledger, "DELETE FROM subjects WHERE subject LIKE 'invoice|%'")
    await tamper(ledger, "DROP TABLE fetches")
    await tamper(ledger, "DROP TABLE set_aside")
    await tamper(ledger, "DROP TABLE quarantine_chain")
    await tamper(ledger, "UPDATE alembic_version SET version_num = '0003'")

    prepare(settings)

    histories = await ledger.read(lambda c: read_histories(c, names, 10, ledger.vault))
    assert [[e.event_id for e in canonical(histories[name])] for name in names] == [[], ["m-1·2", "m-2"]]
    assert await verify_chain(ledger) == 4


FIRST_REVISION = "CREATE TABLE alembic_version AS SELECT '0001' AS version_num"
FIRST_EVENT = """INSERT INTO events VALUES
    (1, 0, 'stripe', '', 'a', 'customer.recorded', 0, 0, 'signed', '{}', NULL, x'01', 1, x'02', x'03')"""
FIRST_DELIVERY = "INSERT INTO deliveries VALUES (1, '', '', '')"


async def test_a_first_ledger_is_upgraded_with_what_it_holds(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path)
    first = import_module("service.ledger.migrations.versions.0001_ledger")
    with closing(sqlite3.connect(ledger_path(tmp_path))) as connection:
        for statement in (*first._SQLITE, FIRST_REVISION, FIRST_EVENT, FIRST_DELIVERY):
            connection.execute(statement)
        connection.commit()
    prepare(settings)

    ledger = open_ledger(settings)
    (again,) = await ledger.append([replace(delivery("a"), content_digest=b"\1")], NOW)
    await ledger.close()

    assert (again.position, again.duplicate) == (1, True)


KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import Engine, event
from service.ledger.schema import migrate_file

@event.listens_for(Engine, "before_cursor_execute")
def kill(_connection, _cursor, statement, *_):
    if statement.startswith("CREATE TABLE subjects"):
        os.kill(os.getpid(), signal.SIGKILL)

migrate_file(Path(sys.argv[1]))
"""


def test_a_kill_in_the_middle_of_a_migration_leaves_a_ledger_that_opens(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL

    migrate_file(tmp_path)

    with closing(sqlite3.connect(ledger_path(tmp_path))) as connection:
        assert connection.execute("SELECT count(*) FROM subjects").fetchone() == (0,)
