from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.bootstrap import open_ledger
from service.ledger.store import Ledger
from service.settings import Settings, load
from tests.support.postgres import PostgresServer
from tests.support.stores import prepared_database


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged, as values: nothing is printed."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def settings(postgres: PostgresServer, tmp_path: Path) -> Settings:
    """Of an empty Daybook in a database of its own."""
    return load(data_dir=tmp_path, database_url=prepared_database(postgres))


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    await opened.close()


@pytest.fixture
async def another(settings: Settings) -> AsyncIterator[Ledger]:
    """The same ledger, as another process opens it."""
    opened = open_ledger(settings)
    yield opened
    await opened.close()
