from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.settings import Settings, load
from tests.support.small_ledger import keep


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged, as values: nothing is printed."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
async def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A small ledger with its books and a master key of its own."""
    monkeypatch.delenv("DAYBOOK_MASTER_KEY")
    settings = load(data_dir=tmp_path / "data")
    await keep(settings)
    return settings
