from pathlib import Path

import pytest

from tests.support.posted_books import filled, post_mx_contracts, post_november
from tests.support.stores import NewDataDir


@pytest.fixture(scope="module")
def november(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """november_2025.csv as signed Stripe webhooks, in the books."""
    return filled(new_data_dir(tmp_path_factory.mktemp("november") / "data"), post_november)


@pytest.fixture(scope="module")
def mx_contracts(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mx_contracts.json as a relay signs it, in the books."""
    return filled(new_data_dir(tmp_path_factory.mktemp("mx") / "data"), post_mx_contracts)
