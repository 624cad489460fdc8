"""`daybook web --workers N`: processes that share a port, a ledger and their metrics, and end together."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.support.preloaded import Process
from tests.support.processes import DaybookProcesses
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.support.web_processes import connected, ended, post, request, scraped, serving, start

WORKERS = 2
RECORDED = (
    "daybook_deliveries_total",
    (("outcome", "recorded"), ("processor", "standard")),
)
IN_FLIGHT = ("daybook_requests_in_flight", (("kind", "webhook"),))


@pytest.fixture
def daybook(tmp_path: Path) -> Iterator[DaybookProcesses]:
    with DaybookProcesses(tmp_path) as daybook:
        yield daybook


def metrics_directory(command: Process) -> Path:
    return Path(serving(command)[0].environ()["PROMETHEUS_MULTIPROC_DIR"])


def test_web_processes_share_one_ledger_and_each_answers_the_metrics_of_all(
    daybook: DaybookProcesses,
) -> None:
    command = start(daybook, WORKERS)
    wait_until(lambda: len(serving(command)) == WORKERS, "all are there")

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: post(daybook, number), range(100)))
        again = list(threads.map(lambda number: post(daybook, number), range(100)))

    assert sorted(one.json()["position"] for one in answers) == list(range(1, 101))
    assert [one.json() for one in again] == [
        {"received": True, "position": one.json()["position"], "duplicate": True} for one in answers
    ]
    wait_until(  # every process that wrote has a file of its own
        lambda: len(list(metrics_directory(command).glob("counter_*.db"))) == WORKERS, "all have started"
    )
    scrapes = [scraped(daybook) for _ in range(3 * WORKERS)]
    assert {scrape[RECORDED] for scrape in scrapes} == {100}
    assert {scrape["daybook_append_seconds_count", ()] for scrape in scrapes} == {200}
    assert {scrape["daybook_ledger_position", ()] for scrape in scrapes} == {100}
    assert {scrape[IN_FLIGHT] for scrape in scrapes} == {0}
    assert (daybook.data_dir / "web.log").read_text().count("Daybook listens on") == 1


def test_a_web_process_that_dies_is_started_again_and_no_counter_falls(daybook: DaybookProcesses) -> None:
    command = start(daybook, WORKERS)
    before = serving(command)
    for number in range(10):
        assert post(daybook, number).status_code == 200

    head, body = request(10, 100_000)
    with connected(daybook) as slow:
        slow.sendall(head + body[:1_000])
        wait_until(lambda: scraped(daybook)[IN_FLIGHT] == 1, "an upload is under way")
        for process in before:
            process.kill()
    wait_until(lambda: len(set(serving(command)) - set(before)) == WORKERS, "others are there")

    assert post(daybook, 10).json()["position"] == 11
    assert scraped(daybook)[RECORDED] == 11
    assert scraped(daybook)[IN_FLIGHT] == 0  # what was under way has died, too
    assert (daybook.data_dir / "web.log").read_text().count("process_died") == WORKERS
    command.send_signal(signal.SIGTERM)
    assert command.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("workers", [1, WORKERS])
def test_a_signal_stops_every_web_process(daybook: DaybookProcesses, workers: int, number: int) -> None:
    command = start(daybook, workers)
    wait_until(lambda: workers == 1 or len(serving(command)) == workers, "all are there")
    post(daybook, 1)
    children = psutil.Process(command.pid).children(recursive=True)
    directory = metrics_directory(command) if workers > 1 else None

    command.send_signal(number)

    assert command.wait(PATIENCE_SECONDS) == 0
    wait_until(lambda: ended(children), "no process is left")
    assert directory is None or not directory.exists()
    assert "Traceback" not in (daybook.data_dir / "web.log").read_text()


def test_web_processes_end_when_their_parent_is_killed_hard(daybook: DaybookProcesses) -> None:
    command = start(daybook, WORKERS)
    wait_until(lambda: len(serving(command)) == WORKERS, "all are there")
    children = psutil.Process(command.pid).children(recursive=True)

    command.kill()
    command.wait()

    wait_until(lambda: ended(children), "no process is left")


def test_a_wrong_setting_is_one_line_and_exit_code_2(daybook: DaybookProcesses) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "service.cli", "web", "--workers", "2"],
        env={**daybook.environment, "DAYBOOK_PORT": "many"},
        cwd=daybook.data_dir,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )

    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("daybook: DAYBOOK_PORT holds 'many'; it may hold: ")
    assert ran.stderr.count("\n") == 1


def test_a_web_that_can_not_start_at_all_ends_with_exit_code_3(daybook: DaybookProcesses) -> None:
    no_directory = daybook.data_dir / "file"
    no_directory.touch()
    ran = subprocess.run(
        [sys.executable, "-m", "service.cli", "web", "--workers", "2"],
        env={**daybook.environment, "DAYBOOK_DATA_DIR": str(no_directory)},
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )

    assert ran.returncode == 3
    assert b"Daybook listens" not in ran.stdout
