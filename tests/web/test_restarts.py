"""A web process that dies at once, again and again, is started ever more rarely."""

import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import accumulate
from pathlib import Path

import psutil
import pytest

from tests.support.processes import DaybookProcesses
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.support.web_processes import post, serving, start

WORKERS = 2
PAUSES_SECONDS = (0.2, 0.4, 0.8, 1.6)  # at least, before a process that dies at once is started again


@pytest.fixture
def daybook(tmp_path: Path) -> Iterator[DaybookProcesses]:
    with DaybookProcesses(tmp_path) as daybook:
        yield daybook


def test_a_process_that_dies_at_once_is_started_ever_more_rarely(daybook: DaybookProcesses) -> None:
    command = start(daybook, WORKERS)

    def kill_all() -> list[datetime]:
        """Whoever is there; when each of those died who were started in another's place."""
        for process in serving(command):
            with suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
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
