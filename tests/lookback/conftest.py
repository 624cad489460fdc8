import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.bootstrap import prepare
from tests.books import shelf
from tests.postgres import PostgresServer
from tests.stores import prepared_database
from tests.web.running import Daybook, running, settings_for


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DAYBOOK_")]:
        if name != "DAYBOOK_MASTER_KEY":  # of the tests themselves
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged, as values: nothing is printed."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as a first start leaves it; tests take copies, since migrating takes a while."""
    directory = tmp_path_factory.mktemp("prepared")
    prepare(settings_for(directory))
    return directory


@pytest.fixture
def data_dir(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "data"))


@pytest.fixture
def postgres_data_dir(postgres: PostgresServer, tmp_path: Path) -> Path:
    """A data directory whose ledger and books are in PostgreSQL."""
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "database_url").write_text(prepared_database(postgres))
    return directory


@pytest.fixture
async def daybook(data_dir: Path) -> AsyncIterator[Daybook]:
    async with running(data_dir) as started:
        yield started


@pytest.fixture(scope="module")
def on_postgresql(postgres: PostgresServer) -> Iterator[None]:
    """Shelves are made in PostgreSQL."""
    with shelf.on(postgres):
        yield


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def each_store(request: pytest.FixtureRequest) -> None:
    """What is promised of a store is promised of both."""
    if request.param == "postgresql":
        request.getfixturevalue("on_postgresql")
