"""The version of what is stored: the same until something is committed, whoever commits it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.bootstrap import open_versions
from service.ledger.store import Ledger
from service.settings import Settings
from service.storage.database import ledger_path, run_on_postgres
from service.storage.versions import PostgresVersions, Versions
from tests.support.postgres import PostgresServer
from tests.support.stores import EACH_STORE, new_data_dir, settings_of

STORES = EACH_STORE
NOW = datetime(2025, 11, 13, tzinfo=UTC)


@pytest.fixture
async def versions(settings: Settings) -> AsyncIterator[Versions]:
    opened = open_versions(settings)
    yield opened
    await opened.close()


async def test_a_version_stays_until_something_is_committed(versions: Versions, ledger: Ledger) -> None:
    await ledger.save_cursor("a task", b"1", NOW)
    first = await versions.current()
    assert await versions.current() == first

    await ledger.save_cursor("a task", b"2", NOW)
    assert await versions.current() != first


async def test_those_who_ask_at_once_all_see_what_was_committed_before(
    versions: Versions, ledger: Ledger
) -> None:
    before = await versions.current()
    asking = [asyncio.create_task(versions.current()) for _ in range(5)]
    await ledger.save_cursor("a task", b"1", NOW)
    after = await asyncio.gather(*(versions.current() for _ in range(5)))
    await asyncio.gather(*asking)

    assert len({*after}) == 1
    assert before not in after


async def test_a_file_that_can_not_be_asked_has_a_version_that_equals_no_other(tmp_path: Path) -> None:
    settings = settings_of(new_data_dir(tmp_path / "data"))
    file, hidden = ledger_path(settings.data_dir), tmp_path / "hidden"
    file.rename(hidden)
    versions = open_versions(settings)
    assert await versions.current() != await versions.current()

    hidden.rename(file)
    assert await versions.current() == await versions.current()
    await versions.close()


async def test_a_lost_connection_has_a_version_that_equals_no_other(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    versions = PostgresVersions(url)
    first = await versions.current()
    await asyncio.to_thread(
        run_on_postgres,
        url,
        lambda connection: connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        ),
    )

    lost = await versions.current()
    assert lost not in (first, await versions.current())
    assert await versions.current() == await versions.current()
    await versions.close()
