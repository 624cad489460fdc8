from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.daybook import Daybook
from tests.valkey import ValkeyServer


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def daybook(tmp_path: Path, valkey: ValkeyServer) -> Iterator[Daybook]:
    running = Daybook(tmp_path, valkey.connection_url)
    yield running
    running.stop()
