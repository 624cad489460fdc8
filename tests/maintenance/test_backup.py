"""A backup is whole, checked, and of one moment; a restore takes the place of nothing by mistake."""

import asyncio
import fcntl
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import json
from typer.testing import CliRunner

from service.cli import app
from service.core.errors import Integrity, SettingsError
from service.maintenance.backup import MANIFEST, Refused, back_up, restore
from service.settings import Settings, load
from service.verify import verify_all
from tests.support.small_ledger import EVENTS, record_one_more
from tests.support.temporary_books import NOW


def elsewhere(settings: Settings) -> Settings:
    return load(data_dir=settings.data_dir.parent / "restored")


def rows(settings: Settings, file: str, query: str) -> list[tuple]:
    with closing(sqlite3.connect(settings.data_dir / file)) as connection:
        return connection.execute(query).fetchall()


async def test_a_backup_is_restored_and_verifies(small_daybook: Settings, tmp_path: Path) -> None:
    where, made = back_up(small_daybook, tmp_path / "backups", NOW)
    await record_one_more(small_daybook)

    found, held, aside = restore(elsewhere(small_daybook), tmp_path / "backups", NOW)

    assert (found, held, aside) == (where, made, None)
    assert (made.position, made.books_position) == (len(EVENTS), len(EVENTS))
    verified = await verify_all(elsewhere(small_daybook))
    assert (verified.events, verified.lag_events) == (len(EVENTS), 0)


def test_a_backup_is_of_files_that_only_their_owner_reads(small_daybook: Settings, tmp_path: Path) -> None:
    where, made = back_up(small_daybook, tmp_path / "backups", NOW)

    files = {path.name: path for path in where.iterdir()}
    assert sorted(files) == [MANIFEST, "books.db", "ledger.db", "master.key"]
    assert {name: held.bytes for name, held in made.files.items()} == {
        name: path.stat().st_size for name, path in files.items() if name != MANIFEST
    }
    assert stat.S_IMODE(files["master.key"].stat().st_mode) == 0o600


async def test_books_in_a_backup_are_never_ahead_of_its_ledger(
    small_daybook: Settings, tmp_path: Path
) -> None:
    """Whatever is written between the two copies."""

    @contextmanager
    def watch(what: str, _total: int | None) -> Iterator[Callable[[int], None]]:
        yield lambda _count: None
        if what.startswith("copy"):
            asyncio.run(record_one_more(small_daybook, f"evt_after_{what}"))

    _, made = await asyncio.to_thread(back_up, small_daybook, tmp_path / "backups", NOW, watch)

    assert (made.books_position, made.position) == (len(EVENTS), len(EVENTS) + 1)
    restore(elsewhere(small_daybook), tmp_path / "backups", NOW)
    assert (await verify_all(elsewhere(small_daybook))).lag_events == 1


async def test_a_copy_is_of_one_moment_and_ends_though_others_write(
    small_daybook: Settings, tmp_path: Path
) -> None:
    """Without an open view SQLite begins a copy again at each write."""
    with closing(sqlite3.connect(small_daybook.data_dir / "ledger.db")) as writer:
        writer.execute("CREATE TABLE ballast (bytes BLOB)")
        writer.executemany("INSERT INTO ballast VALUES (?)", [(bytes(4_000),)] * 4_000)
        writer.commit()
        steps = 0

        def write(_pages: int) -> None:
            nonlocal steps
            steps += 1
            assert steps < 50
            writer.execute("INSERT INTO ballast VALUES (zeroblob(4000))")
            writer.commit()

        @contextmanager
        def watch(what: str, _total: int | None) -> Iterator[Callable[[int], None]]:
            yield write if what == "copy ledger.db" else lambda _count: None

        back_up(small_daybook, tmp_path / "backups", NOW, watch)

    assert 3 < steps < 8
    restore(elsewhere(small_daybook), tmp_path / "backups", NOW)
    assert rows(elsewhere(small_daybook), "ledger.db", "SELECT count(*) FROM ballast") == [(4_000,)]


def test_backups_stand_beside_each_other_and_the_last_is_restored(
    small_daybook: Settings, tmp_path: Path
) -> None:
    first, _ = back_up(small_daybook, tmp_path / "backups", NOW)
    second, _ = back_up(small_daybook, tmp_path / "backups", NOW + timedelta(days=1))

    assert restore(elsewhere(small_daybook), tmp_path / "backups", NOW)[0] == second
    assert restore(elsewhere(small_daybook), first, NOW, force=True)[0] == first
    with pytest.raises(Refused, match="there already"):
        back_up(small_daybook, tmp_path / "backups", NOW)


@contextmanager
def broken(_what: str, _total: int | None) -> Iterator[Callable[[int], None]]:
    raise OSError("the disk is full")
    yield lambda _count: None


def test_a_backup_that_failed_or_was_killed_leaves_nothing(small_daybook: Settings, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    (backups / ".partial-killed").mkdir(parents=True)

    with pytest.raises(OSError, match="full"):
        back_up(small_daybook, backups, NOW, broken)

    assert [path.name for path in backups.iterdir()] == [".lock"]
    with pytest.raises(SettingsError, match="no backup"):
        restore(elsewhere(small_daybook), backups, NOW)


def test_a_backup_without_books_is_whole(small_daybook: Settings, tmp_path: Path) -> None:
    for path in small_daybook.data_dir.glob("books.db*"):
        path.unlink()
    assert run(small_daybook, "explain", "mrr/mrr_cents")[0] == 3  # which opens, and so makes, an empty file

    _, made = back_up(small_daybook, tmp_path / "backups", NOW)

    assert (made.books_position, "ledger.db" in made.files, "books.db" in made.files) == (None, True, False)


def test_one_backup_is_written_at_a_time(small_daybook: Settings, tmp_path: Path) -> None:
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="another backup"):
            back_up(small_daybook, tmp_path, NOW)


@pytest.mark.parametrize("name", ["ledger.db", "books.db", "master.key", MANIFEST])
def test_a_damaged_backup_changes_nothing(small_daybook: Settings, tmp_path: Path, name: str) -> None:
    where, _ = back_up(small_daybook, tmp_path / "backups", NOW)
    content = bytearray((where / name).read_bytes())
    content[len(content) // 2] ^= 1
    (where / name).write_bytes(content)
    before = rows(small_daybook, "ledger.db", "SELECT * FROM events")

    with pytest.raises(Integrity, match="damaged"):
        restore(small_daybook, where, NOW, force=True)

    assert rows(small_daybook, "ledger.db", "SELECT * FROM events") == before
    assert not list(small_daybook.data_dir.glob(".restore-*"))


async def test_a_ledger_is_only_replaced_by_force_and_then_kept(
    small_daybook: Settings, tmp_path: Path
) -> None:
    back_up(small_daybook, tmp_path / "backups", NOW)
    await record_one_more(small_daybook)

    with pytest.raises(Refused, match="--force"):
        restore(small_daybook, tmp_path / "backups", NOW)
    _, _, aside = restore(small_daybook, tmp_path / "backups", NOW, force=True)

    assert (await verify_all(small_daybook)).events == len(EVENTS)
    assert (await verify_all(load(data_dir=aside))).events == len(EVENTS) + 1


def test_a_log_that_was_left_of_another_ledger_is_not_played_into_the_restored_one(
    small_daybook: Settings, tmp_path: Path
) -> None:
    back_up(small_daybook, tmp_path / "backups", NOW)
    target = elsewhere(small_daybook)
    target.data_dir.mkdir()
    (target.data_dir / "ledger.db-wal").write_bytes(b"of another")

    _, _, aside = restore(target, tmp_path / "backups", NOW)

    assert (aside / "ledger.db-wal").read_bytes() == b"of another"
    assert rows(target, "ledger.db", "SELECT count(*) FROM events") == [(len(EVENTS),)]


RUNNING = """
import sys
from pathlib import Path
from service.processes.lifeline import hold_lifeline
lifeline = hold_lifeline(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
READING = """
import sqlite3, sys
reader = sqlite3.connect(sys.argv[1] + "/ledger.db")
reader.execute("SELECT count(*) FROM events").fetchone()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("process", [RUNNING, READING], ids=["run", "web"])
def test_a_ledger_in_use_is_not_replaced(small_daybook: Settings, tmp_path: Path, process: str) -> None:
    back_up(small_daybook, tmp_path / "backups", NOW)
    command = [sys.executable, "-c", process, str(small_daybook.data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        running.stdout.readline()

        with pytest.raises(Refused, match="stop it first"):
            restore(small_daybook, tmp_path / "backups", NOW, force=True)

        running.stdin.close()
    restore(small_daybook, tmp_path / "backups", NOW, force=True)


def run(settings: Settings, *arguments: str) -> tuple[int, str]:
    """A command's exit code, and what it said."""
    found = CliRunner().invoke(app, arguments, env={"DAYBOOK_DATA_DIR": str(settings.data_dir)})
    return found.exit_code, found.output


def test_the_commands_say_what_they_did_or_why_not(small_daybook: Settings, tmp_path: Path) -> None:
    backups = str(tmp_path / "backups")

    code, said = run(small_daybook, "backup", backups)
    assert (code, f"up to position {len(EVENTS)}" in said) == (0, True)
    code, said = run(small_daybook, "restore", backups)
    assert (code, "--force" in said) == (4, True)
    code, said = run(small_daybook, "restore", backups, "--force", "--json")
    assert (code, json.decode(said)["position"]) == (0, len(EVENTS))
    assert run(elsewhere(small_daybook), "restore", str(tmp_path))[0] == 2
    (manifest,) = Path(backups).glob(f"*/{MANIFEST}")
    manifest.write_text("{}")
    assert run(elsewhere(small_daybook), "restore", backups)[0] == 1
    (small_daybook.data_dir / "books.db").write_bytes(b"no database at all, but some text in its place")
    assert run(small_daybook, "backup", f"{backups}_too")[0] == 3


def test_with_postgresql_both_say_what_to_do_instead(tmp_path: Path) -> None:
    settings = load(database_url="postgresql+asyncpg://daybook@db.test/daybook")

    with pytest.raises(SettingsError, match="pg_dump"):
        back_up(settings, tmp_path, NOW)
    with pytest.raises(SettingsError, match="pg_dump"):
        restore(settings, tmp_path, NOW)
