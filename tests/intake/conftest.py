import asyncio
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from tests.support.cli import Run
from tests.support.stores import settings_of


@pytest.fixture
def command(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command of `daybook` on the same data; it ends with its exit code and output."""
    monkeypatch.chdir(data_dir)
    settings = settings_of(data_dir)
    monkeypatch.setenv("DAYBOOK_DATA_DIR", str(data_dir))
    if settings.database_url:
        monkeypatch.setenv("DAYBOOK_DATABASE_URL", settings.database_url)

    async def run(*words: Any) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])

    return run
