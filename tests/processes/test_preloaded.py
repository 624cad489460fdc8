"""A command that a fork runs does what the command that Python starts does."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import preloaded
from tests.support.preloaded import Process
from tests.support.processes import DaybookProcesses, start_python
from tests.support.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def daybook(tmp_path: Path) -> DaybookProcesses:
    return DaybookProcesses(tmp_path)


def end_of(start: Any, daybook: DaybookProcesses, *arguments: str) -> tuple[int, str]:
    """How a command ends, and what it printed."""
    path = daybook.data_dir / "printed"
    with open(path, "wb") as output:
        started = start(
            *("service.cli", *arguments),
            environment=daybook.environment,
            directory=daybook.data_dir,
            output=output,
        )
    return started.wait(PATIENCE_SECONDS), path.read_text()


@pytest.mark.parametrize("arguments", [["status", "--json"], ["worker"], ["rebuild", "nothing"], ["--help"]])
def test_it_ends_and_prints_as_the_command_does(daybook: DaybookProcesses, arguments: list[str]) -> None:
    daybook.environment["COLUMNS"] = "90"

    assert end_of(preloaded.start, daybook, *arguments) == end_of(start_python, daybook, *arguments)


def test_it_is_killed_or_asked_to_stop_as_any_process_is(daybook: DaybookProcesses) -> None:
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)):
        daybook.start("web")
        wait_until(daybook.listens, "it answers")
        web = daybook.processes["web"]
        assert isinstance(web, Process)
        assert web.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            web.wait(0)

        daybook.kill("web", number)

        assert (web.poll(), web.wait()) == (code, code)
        assert not daybook.listens()
