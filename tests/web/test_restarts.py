"""A web process that dies at once, again and again, is started ever more rarely."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import DaybookProcesses, wait_until
from tests.support.web_processes import post, serving, start

WORKERS = 2
SECONDS = 8.0  # of dying at once: at 0.0, 0.4, 1.2, 2.8 and 6.0 s, and a little later


@pytest.fixture
def daybook(tmp_path: Path) -> Iterator[DaybookProcesses]:
    with DaybookProcesses(tmp_path) as daybook:
        yield daybook


def test_a_process_that_dies_at_once_is_started_ever_more_rarely(daybook: DaybookProcesses) -> None:
    command = start(daybook, WORKERS)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        for process in serving(command):
            process.kill()
        time.sleep(0.02)

    died = (daybook.data_dir / "web.log").read_text().count("process_died")
    assert WORKERS * 3 <= died <= WORKERS * 5

    wait_until(lambda: len(serving(command)) == WORKERS, 60, "they are there again")
    assert post(daybook, 1).status_code == 200
    command.send_signal(signal.SIGTERM)
    assert command.wait(10) == 0
