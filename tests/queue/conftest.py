from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from service.worker import main
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE_SECONDS


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    running = ValkeyServer()
    running.start()
    yield running
    running.terminate()  # also if a test stopped or killed it


@pytest.fixture(autouse=True)
def _no_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent channel is not renewed during a test: that wakes a worker, too."""
    monkeypatch.setattr(main, "_MESSAGE_TIMEOUT_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def losses() -> Iterator[Callable[[], list[str]]]:
    """What was logged of work that failed. A worker that starts again wakes, too: that must not pass."""
    with capture_logs() as logs:
        yield lambda: [f"{line['event']}: {line['error']}" for line in logs if "error" in line]
