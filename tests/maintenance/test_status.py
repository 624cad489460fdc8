"""`daybook status`: who holds what, and how far it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

from service.books.engine import Engine
from service.books.tables import PARTITIONS
from service.bootstrap import open_books, open_leases, prepare
from service.ledger.store import Ledger
from service.maintenance.status import read_status
from service.settings import Settings, load
from tests.support.events import event, subscription
from tests.support.temporary_books import NOW, incoming, now
from tests.support.waiting import PATIENCE_SECONDS

STORES = ["postgresql"]

BOOKS = {
    "bills",
    "collections",
    "customers",
    "ignored",
    "mrr",
    "mrr:chartmogul",
    "mrr:stripe",
    "revenue",
    "set_aside",
}


def status(settings: Settings, *options: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DAYBOOK_")}
    clean["DAYBOOK_MASTER_KEY"] = os.environ["DAYBOOK_MASTER_KEY"]
    url = {"DAYBOOK_DATABASE_URL": settings.database_url} if settings.database_url else {}
    said = subprocess.run(
        [sys.executable, "-m", "service.cli", "status", *options],
        env={**clean, **url, "DAYBOOK_DATA_DIR": str(settings.data_dir), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return said.stdout


async def test_status_names_the_holder_and_the_lag_of_every_partition(
    settings: Settings, ledger: Ledger
) -> None:
    store, leases = open_books(settings), open_leases(settings)
    assert leases is not None
    await store.register()
    await leases.renew()
    await ledger.append([incoming(event(subscription(), "2025-01-01"))], NOW)

    behind = await read_status(ledger, store, settings)
    await Engine(ledger, store, now, leases).catch_up()
    reached = await read_status(ledger, store, settings)
    await leases.close()
    left = await read_status(ledger, store, settings)
    await store.close()

    assert (behind.position, behind.leased) == (1, True)
    assert list(behind.workers) == [leases._worker]
    assert [part.partition for part in behind.partitions] == list(range(PARTITIONS))
    assert {part.worker for part in behind.partitions} == {leases._worker}
    assert all(part.lag_events == dict.fromkeys(BOOKS, 1) for part in behind.partitions)
    assert all(part.lag_events == dict.fromkeys(BOOKS, 0) for part in reached.partitions)
    assert left.workers == {}
    assert [each.worker_runs for each in (behind, reached, left)] == [True, True, False]
    assert {part.worker for part in left.partitions} == {None}


def test_the_command_prints_a_table_or_json(settings: Settings) -> None:
    shown, told = status(settings), json.loads(status(settings, "--json"))
    assert "position 0" in shown
    assert "nobody" in shown
    assert len(told["partitions"]) == PARTITIONS


def test_on_sqlite_there_is_one_worker(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path)
    prepare(settings)
    found = json.loads(status(settings, "--json"))
    assert (found["leased"], found["workers"]) == (False, {})
    assert "position 0" in status(settings)
