import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.stores import prepare
from tests.web.books import filled, post_mx_contracts, post_november
from tests.web.running import Daybook, running, settings_for


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DAYBOOK_")]:
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
    """A data directory of the test's own."""
    return Path(shutil.copytree(prepared, tmp_path / "data"))


@pytest.fixture
async def daybook(data_dir: Path) -> AsyncIterator[Daybook]:
    async with running(data_dir) as started:
        yield started


@pytest.fixture(scope="session")
def november(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """november_2025.csv as signed Stripe webhooks, in the books."""
    return filled(prepared, tmp_path_factory.mktemp("november") / "data", post_november)


@pytest.fixture(scope="session")
def mx_contracts(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mx_contracts.json as a relay signs it, in the books."""
    return filled(prepared, tmp_path_factory.mktemp("mx") / "data", post_mx_contracts)


@pytest.fixture(scope="session")
def demo(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, as `daybook demo` posts them."""

    async def post_both(daybook: Daybook) -> None:
        await post_november(daybook)
        await post_mx_contracts(daybook)

    return filled(prepared, tmp_path_factory.mktemp("demo") / "data", post_both)
