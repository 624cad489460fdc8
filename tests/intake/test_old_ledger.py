"""A ledger that the release before wrote gives the books of a fresh one, once it is retranslated.

`tests/fixtures/old_ledger` says how it was made.
"""

import asyncio
import gzip
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, select

from service.bootstrap import LEDGER_SCHEMA, prepare
from service.intake.retranslate import RetranslationReport, Retranslator
from service.intake.versions import VERSIONS
from service.ledger import tables
from service.ledger.range_partitions import ensure_partitions
from service.maintenance.preview import preview
from service.storage.database import ledger_path, run_on_postgres, sqlite_engine
from service.verify import digests, verify_chain
from tests.support.paths import FIXTURES
from tests.support.running import Clock, Daybook, running, settings_for
from tests.support.senders import SENDERS
from tests.support.stores import EACH_STORE, NewDataDir, settings_of
from tests.support.waiting import PATIENCE_SECONDS

STORES = EACH_STORE

TODAY = date(2025, 11, 13)
OLD = FIXTURES / "old_ledger"
DELIVERIES = [
    json.loads(line) for line in gzip.decompress((OLD / "deliveries.jsonl.gz").read_bytes()).splitlines()
]
TABLES = [
    model.__table__  # type: ignore[attr-defined]
    for model in (
        tables.Event,
        tables.EventId,
        tables.Delivery,
        tables.Subject,
        tables.Quarantine,
        tables.QuarantineRecord,
        tables.Key,
        tables.Cursor,
    )
]
DIES = """
import os, signal, sys
from service.cli import app
from service.intake import retranslate
from service.storage.database import PostgresDatabase, SqliteDatabase

left = int(sys.argv.pop())

def mortal(write):
    async def write_and_die(self, work):
        def dying(connection):
            global left
            result, left = work(connection), left - 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return await write(self, dying)

    return write_and_die

for database in (PostgresDatabase, SqliteDatabase):
    database.write = mortal(database.write)
retranslate._PAGE = 10
app()
"""
State = tuple[dict[str, str], dict[tuple[str, str], int]]


def old_data_dir(directory: Path, new_data_dir: NewDataDir) -> Path:
    """A data directory with the old ledger, brought to today's schema; on PostgreSQL row by row."""
    data_dir = new_data_dir(directory)
    url = settings_of(data_dir).database_url
    place = data_dir / "sqlite" if url else data_dir
    place.mkdir(exist_ok=True)
    ledger_path(place).write_bytes(gzip.decompress((OLD / "ledger.db.gz").read_bytes()))
    prepare(settings_for(place, database_url=None))
    if url:
        engine = sqlite_engine(ledger_path(place), "read")
        with engine.begin() as source:
            rows = {table.name: source.execute(select(table)).mappings().all() for table in TABLES}
        engine.dispose()
        run_on_postgres(url, lambda connection: fill(connection, rows), LEDGER_SCHEMA)
        shutil.rmtree(place)
    return data_dir


def fill(connection: Connection, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    last = rows["events"][-1]
    ensure_partitions(connection, 0, last["position"])
    for table in TABLES:
        connection.execute(table.delete())
        if rows[table.name]:
            connection.execute(table.insert(), [without_number(row) for row in rows[table.name]])
    connection.execute(
        tables.Turn.__table__.update().values(position=last["position"], digest=last["digest"])
    )


def without_number(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the number that PostgreSQL gives, which is the same one."""
    return {name: value for name, value in row.items() if name != "id"}


async def post_all(daybook: Daybook) -> None:
    """Post what the older release got, signed with the secrets of today's tests."""
    senders = {sender.path: sender for sender in SENDERS}
    for delivery in DELIVERIES:
        daybook.clock.now = datetime.fromisoformat(delivery["at"])
        message_id = delivery["headers"].get("webhook-id")
        body = delivery["body"].encode()
        answer = await daybook.post(senders[delivery["path"]], body, message_id=message_id)
        assert answer.status_code == 200


async def state(daybook: Daybook) -> State:
    """The digests of all books, and what is in quarantine."""
    await daybook.catch_up()
    return await digests(daybook.state.store), await daybook.quarantine()


async def due(daybook: Daybook) -> list[str]:
    answer: list[str] = (await daybook.get("/readyz"))["retranslation_due"]
    return answer


@pytest.fixture(scope="module")
def fresh(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> State:
    """What today's Daybook makes of the same deliveries."""

    async def make() -> State:
        async with running(new_data_dir(tmp_path_factory.mktemp("fresh") / "data"), Clock()) as daybook:
            await post_all(daybook)
            assert await due(daybook) == []
            return await state(daybook)

    return asyncio.run(make())


@pytest.fixture
def old(new_data_dir: NewDataDir, tmp_path: Path) -> Path:
    return old_data_dir(tmp_path / "old", new_data_dir)


def retranslator_of(daybook: Daybook, **how: Any) -> Retranslator:
    """One that takes the chain as proof: the secrets of the older release are not set any more."""
    state = daybook.state
    return Retranslator(state.ledger, daybook.clock, state.settings, by_chain=True, **how)


async def retranslate(daybook: Daybook) -> RetranslationReport:
    retranslator = retranslator_of(daybook, apply=True)
    report = await retranslator.run(0, lambda _: None)
    assert (report.refused, report.left_out) == (0, {})
    return report


async def test_an_old_ledger_gives_the_books_of_a_fresh_one(old: Path, fresh: State) -> None:
    async with running(old, Clock()) as daybook:
        before, _ = await state(daybook)
        assert {name for name, digest in before.items() if digest == fresh[0][name]} == {
            "set_aside"
        }  # nothing is set aside
        assert await due(daybook) == list(VERSIONS)
        seen = retranslator_of(daybook)
        await seen.run(0, lambda _: None)
        foreseen = await preview(daybook.state.ledger, daybook.state.store, seen.events, TODAY)

        report = await retranslate(daybook)

        assert await state(daybook) == fresh
        assert (report.released, report.added) == (seen.report.released, seen.report.added)
        for impact in foreseen:
            if impact.figure == "mrr_cents":
                mrr = await daybook.get("/api/v1/mrr", currency=impact.currency, today=TODAY)
                assert mrr["mrr_cents"] == impact.after_cents
        assert await due(daybook) == []
        head = await daybook.head()
        await retranslate(daybook)  # and then nothing is left to do
        assert await daybook.head() == head == await verify_chain(daybook.state.ledger)


async def test_webhooks_that_come_in_meanwhile_change_nothing(old: Path, fresh: State) -> None:
    async with running(old, Clock()) as daybook:
        await asyncio.gather(retranslate(daybook), post_all(daybook))
        await retranslate(daybook)

        assert (await state(daybook))[0] == fresh[0]


async def test_a_run_killed_in_a_transaction_can_be_repeated(
    old: Path, fresh: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYBOOK_DATA_DIR", str(old))
    if url := settings_of(old).database_url:
        monkeypatch.setenv("DAYBOOK_DATABASE_URL", url)
    rng, codes = Random(1), []
    for commits in (rng.randint(1, 15), rng.randint(1, 15), 10_000):
        ran = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", DIES, "retranslate", "--apply", "--by-chain", str(commits)],
            check=False,
            cwd=old,
            stdout=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
        )
        codes.append(ran.returncode)
        async with running(old, Clock()) as daybook:
            assert await due(daybook) == ([] if ran.returncode == 0 else list(VERSIONS))

    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    async with running(old, Clock()) as daybook:
        assert await state(daybook) == fresh
