import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.bootstrap import prepare
from tests.support.posted_books import filled, post_mx_contracts, post_november
from tests.support.running import Daybook, running, settings_for
from tests.support.stores import prepared_database


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DAYBOOK_") and name != "DAYBOOK_MASTER_KEY"]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged, as values: nothing is printed."""
    with capture_logs() as entries:
        yield entries


# What is promised of a store is promised of both: these run on each.
ON_EACH_STORE = (
    "customer_lists",
    "customer_orders",
    "customer_predictions",
    "customer_revenue",
    "explain",
    "figures",
    "forecasts",
    "ledger_reads",
    "months",
    "mrr",
    "parameters",
    "webhooks",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.endswith(ON_EACH_STORE) and "store" in metafunc.fixturenames:
        metafunc.parametrize("store", ["sqlite", "postgresql"], scope="module")


@pytest.fixture(scope="module")
def store() -> str:
    """Where the stores are."""
    return "sqlite"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as a first start leaves it; tests take copies, since migrating takes a while."""
    directory = tmp_path_factory.mktemp("prepared")
    prepare(settings_for(directory))
    return directory


NewDataDir = Callable[[Path], Path]


@pytest.fixture(scope="module")
def new_data_dir(store: str, prepared: Path, request: pytest.FixtureRequest) -> NewDataDir:
    """Makes an empty data directory; one that names a database of its own where the stores are there."""

    def make(directory: Path) -> Path:
        if store == "postgresql":
            directory.mkdir(parents=True)
            url = prepared_database(request.getfixturevalue("postgres"))
            (directory / "database_url").write_text(url)
            return directory
        return Path(shutil.copytree(prepared, directory))

    return make


@pytest.fixture
def data_dir(new_data_dir: NewDataDir, tmp_path: Path) -> Path:
    """A data directory of the test's own."""
    return new_data_dir(tmp_path / "data")


@pytest.fixture
async def daybook(data_dir: Path) -> AsyncIterator[Daybook]:
    async with running(data_dir) as started:
        yield started


@pytest.fixture(scope="module")
def november(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """november_2025.csv as signed Stripe webhooks, in the books."""
    return filled(new_data_dir(tmp_path_factory.mktemp("november") / "data"), post_november)


@pytest.fixture(scope="module")
def mx_contracts(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mx_contracts.json as a relay signs it, in the books."""
    return filled(new_data_dir(tmp_path_factory.mktemp("mx") / "data"), post_mx_contracts)


@pytest.fixture(scope="module")
def demo(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, as `daybook demo` posts them."""

    async def post_both(daybook: Daybook) -> None:
        await post_november(daybook)
        await post_mx_contracts(daybook)

    return filled(new_data_dir(tmp_path_factory.mktemp("demo") / "data"), post_both)
