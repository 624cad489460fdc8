import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.settings import Settings, load
from tests.support.postgres import PostgresServer
from tests.support.small_ledger import checkpoint_files, copy_of, write_small_ledger


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged, as values: nothing is printed."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the ledger and its books; only its copies are changed."""
    directory = tmp_path_factory.mktemp("kept")
    asyncio.run(write_small_ledger(load(data_dir=directory)))
    checkpoint_files(directory)
    return directory


@pytest.fixture
def settings(origin: Path, tmp_path: Path) -> Settings:
    """Of a copy."""
    return copy_of(origin, tmp_path)


@pytest.fixture(scope="session")
def template(postgres: PostgresServer) -> str:
    """The name of a database with the ledger and its books, some partitions behind the others."""
    url = postgres.new_database()
    asyncio.run(write_small_ledger(load(database_url=url), behind=5))
    return url.rsplit("/", 1)[1]
