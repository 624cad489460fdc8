"""A running Daybook whose translators can be made older ones, and its commands."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import json
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from service.bootstrap import prepare
from service.cli import app
from tests.support.running import Daybook, running, settings_for
from tests.support.stores import prepared_database

Run = Callable[..., Awaitable[Result]]


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is logged, as values: nothing is printed; and no settings come from outside."""
    for name in [name for name in os.environ if name.startswith("DAYBOOK_") and name != "DAYBOOK_MASTER_KEY"]:
        monkeypatch.delenv(name)
    with capture_logs() as entries:
        yield entries


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as a first start leaves it."""
    directory = tmp_path_factory.mktemp("laid-out")
    prepare(settings_for(directory))
    return directory


@pytest.fixture(params=["sqlite", "postgresql"])
def new_data_dir(request: pytest.FixtureRequest, laid_out: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes an empty Daybook's directory; what is promised of a store is promised of both."""

    def make(name: str) -> Path:
        directory = Path(shutil.copytree(laid_out, tmp_path / name))
        if request.param == "postgresql":
            url = prepared_database(request.getfixturevalue("postgres"))
            (directory / "database_url").write_text(url)
        return directory

    return make


@pytest.fixture
def data_dir(new_data_dir: Callable[[str], Path]) -> Path:
    """The directory of the Daybook that a test runs."""
    return new_data_dir("data")


@pytest.fixture
async def daybook(data_dir: Path) -> AsyncIterator[Daybook]:
    async with running(data_dir) as started:
        yield started


@pytest.fixture
def command(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command of `daybook` on the same data; it ends with its exit code and output."""
    monkeypatch.chdir(data_dir)
    monkeypatch.setattr("service.logs.configure", lambda: None)  # its stream ends with the command
    settings = settings_for(data_dir)
    monkeypatch.setenv("DAYBOOK_DATA_DIR", str(data_dir))
    if settings.database_url:
        monkeypatch.setenv("DAYBOOK_DATABASE_URL", settings.database_url)

    async def run(*words: Any) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])

    return run


def document(result: Result, exit_code: int = 0) -> Any:
    """What a command said with `--json`."""
    assert result.exit_code == exit_code, result.output
    return json.decode(result.stdout)
