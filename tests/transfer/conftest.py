from pathlib import Path

import pytest

from tests.support import stores
from tests.support.stores import EACH_STORE, NewDataDir
from tests.transfer.installation import Installation


@pytest.fixture
def daybook(new_data_dir: NewDataDir, tmp_path: Path) -> Installation:
    """An empty Daybook."""
    return Installation(new_data_dir(tmp_path / "data"))


@pytest.fixture
def second(new_data_dir: NewDataDir, tmp_path: Path) -> Installation:
    """Another empty one, in a file."""
    return Installation(new_data_dir(tmp_path / "new"))


@pytest.fixture(params=EACH_STORE)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    """Another empty one, on each store."""
    server = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    return Installation(stores.new_data_dir(tmp_path / "other", server))
