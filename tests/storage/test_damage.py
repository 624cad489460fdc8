"""A damaged file: whoever meets it learns which it is, and what mends it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DatabaseError
from structlog.testing import capture_logs

from service.bootstrap import prepare
from service.settings import load
from service.storage.database import SqliteDatabase, sqlite_engine
from service.storage.statements import HotStatement
from service.storage.tasks import run_safely
from tests.support.processes import DaybookProcesses

MEND = "nothing is lost: stop Daybook, delete books.db, books.db-wal and books.db-shm, and start it"
PAGE = 4_096


def damaged(path: Path, first_page: int = 1) -> Path:
    """The file with noise in all pages but the first ones."""
    content = path.read_bytes()
    path.write_bytes(content[: first_page * PAGE].ljust(len(content), b"\xa5"))
    return path


@pytest.fixture
def books(tmp_path: Path) -> Path:
    path = tmp_path / "books.db"
    engine = sqlite_engine(path, "write")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE rows (value TEXT)"))
        connection.execute(text("INSERT INTO rows VALUES (:value)"), [{"value": "x" * 1_000}] * 100)
    engine.dispose()
    return damaged(path)


def by_a_statement(connection: Connection) -> None:
    connection.execute(text("SELECT * FROM rows")).all()


def by_a_hot_statement(connection: Connection) -> None:
    HotStatement(lambda _: text("SELECT * FROM rows")).run(connection)


@pytest.mark.parametrize("read", [by_a_statement, by_a_hot_statement])
async def test_a_read_of_a_damaged_file_says_what_mends_it(
    books: Path, read: Callable[[Connection], None]
) -> None:
    database = SqliteDatabase(books)

    async def read_all() -> None:
        await database.read(read)

    async def read_in_loop() -> None:
        async with database.reading() as connection:
            await connection.run_sync(read)

    try:
        for each in (read_all, read_in_loop):
            with pytest.raises(DatabaseError, match=MEND):
                await each()
            with capture_logs() as lines:
                await run_safely(each)
            assert MEND in lines[0]["reason"]
    finally:
        await database.close()


def test_another_error_keeps_its_words(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / "books.db", "read")
    with pytest.raises(DatabaseError, match="no such table"), engine.begin() as connection:
        by_a_statement(connection)
    engine.dispose()


def test_a_damaged_ledger_is_another_matter(books: Path) -> None:
    engine = sqlite_engine(books.rename(books.with_name("ledger.db")), "read")
    with (
        pytest.raises(DatabaseError, match="`daybook verify` names what is damaged"),
        engine.begin() as connection,
    ):
        by_a_statement(connection)
    engine.dispose()


def test_a_start_with_damaged_books_says_what_mends_it(tmp_path: Path) -> None:
    prepare(load(data_dir=tmp_path))
    daybook = DaybookProcesses(tmp_path)
    damaged(tmp_path / "books.db")

    command = [sys.executable, "-m", "service.cli", "web"]
    ended = subprocess.run(command, env=daybook.environment, capture_output=True, timeout=60, check=False)

    assert ended.returncode == 3
    assert MEND in ended.stderr.decode()
