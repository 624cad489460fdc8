from pathlib import Path

import pytest

from tests.books.conftest import each_store
from tests.web.conftest import _no_settings_from_outside, data_dir, daybook, logged, new_data_dir, prepared

__all__ = [
    "_no_settings_from_outside",
    "data_dir",
    "daybook",
    "each_store",
    "logged",
    "new_data_dir",
    "prepared",
    "rulebook",
    "store",
]

BOARD = """
[policies.board]
statuses = ["active", "past_due", "trialing"]
ignored_discounts = ["once", "repeating", "forever"]
weeks_per_month = "4"
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    """Where the stores are: what is promised of one is promised of both."""
    where: str = request.param
    return where


@pytest.fixture
def rulebook(tmp_path: Path) -> Path:
    """An operator's file with a policy of their own."""
    path = tmp_path / "rulebook.toml"
    path.write_text(BOARD)
    return path
