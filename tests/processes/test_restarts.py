"""A web process that dies at once, again and again, is started ever more rarely."""

import json
import signal
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate
from pathlib import Path

import pytest

from tests.processes.daybook import Daybook
from tests.processes.webs import post, serving, start
from tests.waiting import PATIENCE_SECONDS, wait_until

WORKERS = 2
PAUSES_SECONDS = (0.2, 0.4, 0.8, 1.6)  # at least, before a process that dies at once is started again


@pytest.fixture
def daybook(tmp_path: Path) -> Iterator[Daybook]:
    running = Daybook(tmp_path)
    yield running
    running.stop()


def test_what_dies_at_once_is_started_ever_more_rarely(daybook: Daybook) -> None:
    command = start(daybook, WORKERS)

    def kill_all() -> list[datetime]:
        """Whoever is there; when each of those died who were started in another's place."""
        for process in serving(command):
            process.kill()
        lines = (daybook.data_dir / "web.log").read_text().splitlines()
        told = [json.loads(line) for line in lines if "process_died" in line]
        return [datetime.fromisoformat(line["timestamp"]) for line in told]

    died = wait_until(
        lambda: found if len(found := kill_all()) > WORKERS * len(PAUSES_SECONDS) else None,
        "each has died five times",
    )

    for deaths, seconds in enumerate(accumulate(PAUSES_SECONDS), start=1):
        assert (died[WORKERS * deaths] - died[0]).total_seconds() >= seconds

    wait_until(lambda: len(serving(command)) == WORKERS, "they are there again")
    assert post(daybook, 1).status_code == 200
    command.send_signal(signal.SIGTERM)
    assert command.wait(PATIENCE_SECONDS) == 0
