"""A ledger that lost events that it had acknowledged records nothing more until an operator accepts that."""

import hmac
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec import json
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection, delete, insert

from service.bootstrap import existing_ledger, prepare
from service.clock import utc_now
from service.core.errors import LostEvents
from service.ledger import tables
from service.ledger.append import read_head
from service.ledger.master_key import open_vault
from service.ledger.schema import run_on_file
from service.ledger.witness import Loss, Witness, find_loss, record_accepted
from service.settings import Settings
from service.verify import Fault, verify_all
from tests.support.cli import Run
from tests.support.postgres import PostgresServer
from tests.support.processes import DaybookProcesses, post
from tests.support.running import Daybook, running, settings_for
from tests.support.senders import STANDARD
from tests.support.stores import new_data_dir, prepared_database
from tests.support.temporary_books import NOW
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE_SECONDS, eventually, wait_until

FILES = ("ledger.db", "ledger.db-wal", "ledger.db-shm")


def known(data_dir: Path) -> int:
    """The position that the witness in the data directory knows."""
    path = data_dir / "witness.json"
    return json.decode(path.read_bytes(), type=Witness).position if path.exists() else 0


# A damaged write-ahead log


def exit_code(processes: DaybookProcesses, name: str, *arguments: str) -> int:
    """That of a process that ends at its start."""
    processes.start(name, *arguments)
    return processes.processes.pop(name).wait(PATIENCE_SECONDS)


def test_a_damaged_journal_stops_the_start_and_its_loss_is_accepted_by_position(
    processes: DaybookProcesses,
) -> None:
    # given twenty acknowledged events, and a journal of which the second half can't be read
    for name in ("web", "worker"):
        processes.start(name)
    processes.wait_ready()
    assert [post(processes, number).json()["position"] for number in range(20)] == list(range(1, 21))
    wait_until(lambda: processes.caught_up(20) and known(processes.data_dir) == 20, "witnesses know")
    for name in ("web", "worker"):
        processes.kill(name)
    journal = processes.data_dir / "ledger.db-wal"
    damaged = bytearray(journal.read_bytes())
    middle = len(damaged) * 2 // 3
    damaged[middle : middle + 4096] = bytes(4096)
    journal.write_bytes(damaged)

    # when, then it does not start
    assert [exit_code(processes, name) for name in ("web", "worker", "status", "verify")] == [1, 1, 0, 1]
    assert journal.read_bytes() == damaged
    said = (processes.data_dir / "web.log").read_text()
    found = re.search(r"positions (\d+)–20 are gone: the ledger ends at (\d+)", said)
    assert found, said
    end = int(found[2])
    assert (int(found[1]), 0 < end < 20) == (end + 1, True)
    assert "Redis and the books and the data directory knew position 20" in said
    assert f"--accept-loss {end}" in said
    with closing(sqlite3.connect(processes.data_dir / "books.db")) as books:
        kept = books.execute("SELECT max(position) FROM checkpoints").fetchone()
    assert kept == (20,)

    # when an operator accepts another loss, or this one
    assert exit_code(processes, "web", "--accept-loss", str(end - 1)) == 1
    processes.start("web", "--accept-loss", str(end))
    processes.wait_ready()
    processes.start("worker")

    # then it goes on from there
    assert "loss_accepted" in (processes.data_dir / "web.log").read_text()
    assert post(processes, 100).json()["position"] == end + 2
    wait_until(lambda: processes.caught_up(end + 2), "the books follow")
    wait_until(lambda: known(processes.data_dir) == end + 2, "the witness follows")


# An old copy in the place of the ledger


async def record(daybook: Daybook, count: int) -> None:
    for _ in range(count):
        message_id = f"msg_{token_hex(8)}"
        await daybook.record(
            "customer.recorded", "2025-01-01T00:00:00Z", message_id=message_id, customer_id="cus_1"
        )


@pytest.fixture
async def set_back(data_dir: Path, tmp_path: Path, valkey: ValkeyServer) -> Settings:
    """Settings of a ledger of two events; three more are known to all witnesses."""
    kept = tmp_path / "kept"
    kept.mkdir()
    async with running(data_dir, redis_url=valkey.connection_url) as daybook:
        await record(daybook, 2)
    shutil.copyfile(data_dir / "ledger.db", kept / "ledger.db")
    async with running(data_dir, redis_url=valkey.connection_url) as daybook:
        await record(daybook, 3)
        await daybook.catch_up()
        await eventually(lambda: daybook.state.witnesses._kept == 5, "the witnesses know")
    for name in FILES:
        (data_dir / name).unlink(missing_ok=True)
    shutil.copyfile(kept / "ledger.db", data_dir / "ledger.db")
    return settings_for(data_dir, redis_url=valkey.connection_url)


def forget(settings: Settings, *names: str) -> None:
    if "the data directory" in names:
        (settings.data_dir / "witness.json").unlink()
    if "the books" in names:
        (settings.data_dir / "books.db").unlink()


@pytest.mark.parametrize("witness", ["the data directory", "Redis", "the books"])
async def test_each_witness_is_enough(set_back: Settings, valkey: ValkeyServer, witness: str) -> None:
    forget(set_back, *{"the data directory", "the books"} - {witness})
    if witness != "Redis":
        valkey.client().flushall()

    with pytest.raises(LostEvents, match=rf"positions 3–5 are gone: the ledger ends at 2; {witness} knew"):
        prepare(set_back)


def test_one_lost_position_is_told_as_one() -> None:
    loss = Loss(position=24, known=Witness(position=25, digest="", at=NOW), witnesses=("Redis",), heads=())

    assert str(loss).startswith("position 25 is gone: the ledger ends at 24; Redis knew position 25")


async def test_without_any_witness_there_is_no_alarm(set_back: Settings, valkey: ValkeyServer) -> None:
    forget(set_back, "the data directory", "the books")
    valkey.client().flushall()

    prepare(set_back)


async def test_only_the_loss_that_is_there_is_accepted(set_back: Settings, logged: list[Any]) -> None:
    for position in (0, 1, 3, 5):
        with pytest.raises(LostEvents):
            prepare(set_back, accept_loss=position)

    prepare(set_back, accept_loss=2)
    prepare(set_back)

    assert [line["event"] for line in logged if line["event"] in ("loss_accepted", "books_ahead")] == [
        "books_ahead",
        "loss_accepted",
    ]
    assert known(set_back.data_dir) == 3  # with the event of the acceptance


async def test_after_an_accepted_loss_the_books_are_those_of_the_ledger(
    set_back: Settings, data_dir: Path
) -> None:
    prepare(set_back, accept_loss=2)
    async with running(data_dir, redis_url=set_back.redis_url) as daybook:
        await record(daybook, 4)
        await daybook.catch_up()

        assert (await daybook.ask("/readyz")).status_code == 200
        assert (await verify_all(set_back)).events == 7


def write(settings: Settings, change: Callable[[Connection], None]) -> None:
    run_on_file(settings.data_dir, change)


async def test_a_row_that_says_that_a_loss_was_accepted_is_worth_nothing(set_back: Settings) -> None:
    row = {"name": "accepted loss", "body": b'"2999-01-01T00:00:00Z"', "kept_at_us": 1}
    write(set_back, lambda connection: connection.execute(insert(tables.Cursor.__table__), row))  # type: ignore[attr-defined]

    with pytest.raises(LostEvents, match="positions 3–5 are gone"):
        prepare(set_back)


async def test_an_acceptance_that_was_made_without_the_master_key_is_worth_nothing(
    set_back: Settings,
) -> None:
    """Its event is a whole link of the chain, which anybody can compute."""

    def forge(connection: Connection) -> None:
        loss = find_loss(connection, {"a file": replace(witness(set_back), at=utc_now())}, None)
        assert loss
        record_accepted(connection, loss, vault, utc_now())

    vault = open_vault(set_back)
    # Sealing takes the master key, too; a forger would take others' bytes.
    vault._keyed_digest = hmac.new(bytes(32), digestmod="sha256")
    write(set_back, forge)

    with pytest.raises(LostEvents, match="positions 4–5 are gone"):
        prepare(set_back)


async def test_a_loss_is_accepted_only_where_the_ledger_still_ends(set_back: Settings) -> None:
    """Two starts may accept it at once: the second one finds the event of the first."""
    vault = open_vault(set_back)

    def accept_twice(connection: Connection) -> None:
        loss = find_loss(connection, {"a file": witness(set_back)}, None)
        assert loss
        record_accepted(connection, loss, vault, utc_now())
        with pytest.raises(LostEvents):
            record_accepted(connection, loss, vault, utc_now())

    write(set_back, accept_twice)


def witness(settings: Settings) -> Witness:
    return json.decode((settings.data_dir / "witness.json").read_bytes(), type=Witness)


async def test_a_witness_of_the_future_is_accepted_by_what_it_knows(
    set_back: Settings, valkey: ValkeyServer
) -> None:
    valkey.client().flushall()
    late = json.encode(replace(witness(set_back), at=utc_now() + timedelta(days=9_999)))
    path = set_back.data_dir / "witness.json"
    path.write_bytes(late)
    prepare(set_back, accept_loss=2)

    path.write_bytes(late)
    prepare(set_back)

    other = replace(json.decode(late, type=Witness), position=4)
    path.write_bytes(json.encode(other))
    with pytest.raises(LostEvents):
        prepare(set_back)


async def test_an_acceptance_that_was_deleted_or_changed_is_found(set_back: Settings) -> None:
    prepare(set_back, accept_loss=2)
    entry = delete(tables.Subject.__table__).where(tables.Subject.subject == "loss|daybook||ledger")  # type: ignore[attr-defined]
    write(set_back, lambda connection: connection.execute(entry))
    prepare(set_back.model_copy(update={"redis_url": None}))

    with pytest.raises(Fault, match="the index of histories lacks loss"):
        await verify_all(set_back)


async def test_other_events_in_place_of_known_ones_are_a_loss(set_back: Settings, data_dir: Path) -> None:
    """A ledger that went on from an old copy, where nobody asked its witnesses, is as long as they know."""
    aside = data_dir / "witness.aside"
    (data_dir / "witness.json").rename(aside)
    forget(set_back, "the books")
    lonely = set_back.model_copy(update={"redis_url": None})
    prepare(lonely)
    async with running(data_dir) as daybook:
        await record(daybook, 5)
    aside.rename(data_dir / "witness.json")

    with pytest.raises(
        LostEvents, match=r"another event is at position 5: the ledger, now at 7, was replaced"
    ):
        prepare(lonely)


async def test_a_ledger_that_is_gone_is_a_loss(set_back: Settings) -> None:
    (set_back.data_dir / "ledger.db").unlink()

    with pytest.raises(LostEvents, match="positions 1–5 are gone: the ledger ends at 0"):
        prepare(set_back)


async def test_a_damaged_witness_says_nothing(set_back: Settings, valkey: ValkeyServer) -> None:
    forget(set_back, "the books")
    valkey.client().flushall()
    (set_back.data_dir / "witness.json").write_bytes(b'{"position"')

    prepare(set_back)


async def test_a_restore_of_an_older_backup_says_what_to_do(
    daybook: Daybook, data_dir: Path, command: Run
) -> None:
    await record(daybook, 2)
    assert (await command("backup", data_dir.parent / "backups")).exit_code == 0
    await record(daybook, 3)
    await eventually(lambda: daybook.state.witnesses._kept == 5, "the witnesses know")
    # as after a stop
    await daybook.state.store.close()
    await daybook.state.ledger.close()

    restored = await command("restore", data_dir.parent / "backups", "--force")

    assert restored.exit_code == 0, restored.output
    assert "daybook run --accept-loss 2" in restored.stdout


# PostgreSQL fails over to a standby that lacks the last commits


async def lost_positions(daybook: Daybook) -> float:
    text = (await daybook.http.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return families["daybook_ledger_lost_positions"].samples[0].value


def fail_over(server: PostgresServer, name: str, *, keep: str | None = None, to: str | None = None) -> None:
    """End all connections to a database; copy it as `keep`, or put the copy `to` in its place."""
    server.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    if keep:
        wait_until(lambda: copied(server, name, keep), "it is copied")
    if to:
        server.sql(f"DROP DATABASE {name} WITH (FORCE)")
        server.sql(f"ALTER DATABASE {to} RENAME TO {name}")
    server.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def copied(server: PostgresServer, name: str, copy: str) -> bool:
    try:
        server.sql(f"CREATE DATABASE {copy} TEMPLATE {name}")
    except RuntimeError:  # a connection that was told to end has not ended yet
        return False
    return True


async def test_a_standby_that_lacks_acknowledged_events_is_not_written(
    postgres: PostgresServer, tmp_path: Path, logged: list[Any]
) -> None:
    url = prepared_database(postgres)
    name = urlsplit(url).path.strip("/")
    async with running(tmp_path, database_url=url) as daybook:
        # given
        await record(daybook, 3)
        fail_over(postgres, name, keep=f"{name}_standby")
        await record(daybook, 2)
        await eventually(lambda: daybook.state.witnesses._kept == 5, "the witnesses know")
        assert await lost_positions(daybook) == 0

        # when
        fail_over(postgres, name, to=f"{name}_standby")
        answer = await daybook.post(STANDARD, STANDARD.event("9", 100))

        # then
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:daybook:problem:lost-events")
        assert "positions 4–5 are gone: the ledger ends at 3" in answer.json()["detail"]
        assert (await daybook.ask("/readyz")).status_code == 503
        assert await lost_positions(daybook) == 2
        assert await daybook.head() == 3
        assert "ledger_lost" in {line["event"] for line in logged}

    # and the next start waits for an operator, too
    settings = settings_for(tmp_path, database_url=url)
    with pytest.raises(LostEvents, match="positions 4–5 are gone"):
        prepare(settings)
    prepare(settings, accept_loss=3)
    async with running(tmp_path, database_url=url) as daybook:
        await record(daybook, 1)
        assert await lost_positions(daybook) == 0
        assert await daybook.head() == 5


async def test_a_failover_that_loses_nothing_is_no_alarm(
    postgres: PostgresServer, tmp_path: Path, logged: list[Any]
) -> None:
    url = prepared_database(postgres)
    name = urlsplit(url).path.strip("/")
    async with running(tmp_path, database_url=url) as one, running(tmp_path, database_url=url) as other:
        await record(one, 2)
        await record(other, 2)
        fail_over(postgres, name, keep=f"{name}_standby")
        fail_over(postgres, name, to=f"{name}_standby")
        await record(other, 1)
        await record(one, 1)

        assert [await each.head() for each in (one, other)] == [6, 6]
    assert "ledger_lost" not in {line["event"] for line in logged}


async def test_witnesses_that_can_not_be_kept_are_in_nobodys_way(data_dir: Path) -> None:
    (data_dir / "witness.json").mkdir()  # which can't be replaced by a file
    async with running(data_dir, redis_url="redis://127.0.0.1:1") as daybook:
        await record(daybook, 2)

        assert (await daybook.state.witnesses.look()).position == 2
        assert (await daybook.ask("/readyz")).status_code == 200


# Another file in the ledger's place while it runs


async def test_a_file_that_was_put_in_the_ledgers_place_takes_no_delivery(tmp_path: Path) -> None:
    async with running(new_data_dir(tmp_path / "data")) as daybook:
        path = daybook.state.settings.data_dir / "ledger.db"
        copy = tmp_path / "copy.db"
        await daybook.post(STANDARD, STANDARD.event("1", 100))
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        await daybook.post(STANDARD, STANDARD.event("2", 100))

        for name in FILES:
            (path.parent / name).unlink(missing_ok=True)
        gone = await daybook.post(STANDARD, STANDARD.event("3", 100))
        shutil.copyfile(copy, path)
        replaced = await daybook.post(STANDARD, STANDARD.event("4", 100))

        assert [answer.status_code for answer in (gone, replaced)] == [503, 503]
        assert "lost" in replaced.text or "lacks" in replaced.text


async def test_a_command_writes_nothing_to_a_ledger_that_lost_events(set_back: Settings) -> None:
    async with existing_ledger(set_back) as ledger:
        for write in (
            ledger.set_aside({"invoice|stripe||in_1": 1}, "mrr", "TooMuchWork", NOW),
            ledger.dismiss([1], "a test", NOW),
        ):
            with pytest.raises(LostEvents, match="positions 3–5 are gone"):
                await write
        assert (await ledger.read(read_head)).position == 2
