"""`daybook run`: everything with one command, ready at once, stopped cleanly, going on after a kill."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from service.processes.lifeline import command_line
from tests.support.processes import DaybookProcesses, post
from tests.support.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def daybook(tmp_path: Path):
    running = DaybookProcesses(tmp_path)  # no Redis URL: the embedded Valkey
    yield running
    for name in running.processes:
        wait_until(lambda: not family(running), f"{name} and its children have ended")
    running.stop()


def family(daybook: DaybookProcesses) -> list[psutil.Process]:
    """Every living process of this data directory, by its environment or its command line."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            belongs = process.environ().get("DAYBOOK_DATA_DIR") == str(daybook.data_dir)
            if (belongs or str(daybook.data_dir) in words) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_one_command_runs_it_all_and_sigint_stops_it_all(daybook: DaybookProcesses) -> None:
    daybook.start("run")
    daybook.wait_ready()
    assert post(daybook, 1).json()["position"] == 1
    wait_until(daybook.caught_up, "the event is in the books")
    daybook.processes["run"].send_signal(signal.SIGINT)

    assert daybook.processes["run"].wait(PATIENCE_SECONDS) == 0
    wait_until(lambda: not family(daybook), "no process is left")


def test_killed_hard_and_started_again_it_goes_on(daybook: DaybookProcesses) -> None:
    daybook.start("run")
    daybook.wait_ready()
    post(daybook, 1)
    daybook.kill("run")

    daybook.start("run")
    wait_until(lambda: daybook.caught_up(1), "it goes on")
    assert post(daybook, 2).json()["position"] == 2
    wait_until(lambda: daybook.caught_up(2), "new events are taken in")
    daybook.processes["run"].send_signal(signal.SIGTERM)
    assert daybook.processes["run"].wait(PATIENCE_SECONDS) == 0


def test_a_second_run_on_the_same_directory_is_refused(daybook: DaybookProcesses) -> None:
    daybook.start("run")
    daybook.wait_ready()
    first = daybook.processes["run"]

    daybook.start("run")

    assert daybook.processes["run"].wait(PATIENCE_SECONDS) == 2
    assert "another Daybook runs on" in (daybook.data_dir / "run.log").read_text()
    assert daybook.ready()
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE_SECONDS) == 0


def test_it_runs_where_its_environment_is_not_active_on_the_port_that_is_asked_for(
    daybook: DaybookProcesses, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "service").mkdir(parents=True)
    (elsewhere / "service" / "__init__.py").write_text("raise ImportError('another package')")
    daybook.environment |= {"PATH": os.defpath, "DAYBOOK_PORT": "1"}  # where nobody but root may listen
    with open(tmp_path / "run.log", "ab") as log:
        daybook.processes["run"] = subprocess.Popen(
            [*command_line("run"), "--port", str(daybook.port)],
            env=daybook.environment,
            cwd=elsewhere,
            stdout=log,
            stderr=log,
        )

    daybook.wait_ready()
    daybook.processes["run"].send_signal(signal.SIGTERM)

    assert daybook.processes["run"].wait(PATIENCE_SECONDS) == 0
