from pathlib import Path

import pytest

from tests.support import stores
from tests.support.stores import EACH_STORE, NewDataDir
from tests.transfer.installation import Kept


@pytest.fixture
def kept(new_data_dir: NewDataDir, tmp_path: Path) -> Kept:
    """An empty Daybook."""
    return Kept(new_data_dir(tmp_path / "kept"))


@pytest.fixture
def new(new_data_dir: NewDataDir, tmp_path: Path) -> Kept:
    """Another empty one, in a file."""
    return Kept(new_data_dir(tmp_path / "new"))


@pytest.fixture(params=EACH_STORE)
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """Another empty one, on each store."""
    server = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    return Kept(stores.new_data_dir(tmp_path / "other", server))
