import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.bootstrap import prepare
from service.settings import load
from tests.support.postgres import PostgresServer
from tests.support.stores import prepared_database
from tests.transfer.installation import Kept


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is logged, as values; settings come from nowhere but the test."""
    for name in [n for n in os.environ if n.startswith("DAYBOOK_") and n != "DAYBOOK_MASTER_KEY"]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("service.logs.configure", lambda: None)  # it would write where a command wrote
    with capture_logs() as entries:
        yield entries


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as a first start leaves it."""
    directory = tmp_path_factory.mktemp("empty")
    prepare(load(data_dir=directory))
    return directory


@pytest.fixture
def kept(empty: Path, tmp_path: Path) -> Kept:
    """An empty Daybook."""
    return another(empty, tmp_path / "kept")


@pytest.fixture
def new(empty: Path, tmp_path: Path) -> Kept:
    """Another empty one, in a file."""
    return another(empty, tmp_path / "new")


@pytest.fixture(params=["sqlite", "postgresql"])
def other(request: pytest.FixtureRequest, empty: Path, tmp_path: Path) -> Kept:
    """Another empty one, on each store."""
    if request.param == "sqlite":
        return another(empty, tmp_path / "other")
    server: PostgresServer = request.getfixturevalue("postgres")
    return Kept(tmp_path / "other", prepared_database(server))


def another(empty: Path, directory: Path) -> Kept:
    shutil.copytree(empty, directory)
    return Kept(directory)
