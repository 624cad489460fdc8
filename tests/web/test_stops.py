"""SIGTERM while requests are under way: they are answered, the rest is cut, and nothing keeps it up."""

import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from service.storage.database import ledger_path
from tests.support.processes import DaybookProcesses
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.support.web_processes import answer, connected, post, request, scraped, start

pytestmark = pytest.mark.parametrize("workers", [1, 2])


@pytest.fixture
def daybook(tmp_path: Path) -> Iterator[DaybookProcesses]:
    with DaybookProcesses(tmp_path) as daybook:
        yield daybook


def refuses(daybook: DaybookProcesses) -> bool:
    """Whether nobody accepts connections there any more."""
    try:
        with connected(daybook):
            return False
    except ConnectionError:
        return True


def wait_under_way(daybook: DaybookProcesses, kind: str, count: int = 1) -> None:
    in_flight = ("daybook_requests_in_flight", (("kind", kind),))
    wait_until(lambda: scraped(daybook)[in_flight] == count, f"{count} of the kind {kind} are under way")


def test_a_slow_upload_and_reads_that_wait_are_answered(daybook: DaybookProcesses, workers: int) -> None:
    command = start(daybook, workers)
    assert post(daybook, 1).json()["position"] == 1
    head, body = request(2, 200_000)
    waits: list[httpx.Response] = []

    def wait() -> None:
        url = f"{daybook.url}/api/v1/mrr"
        waits.append(httpx.get(url, params={"at_least": 1, "timeout_ms": 30_000}, timeout=PATIENCE_SECONDS))

    waiting = threading.Thread(target=wait)
    waiting.start()
    with connected(daybook) as slow, connected(daybook) as idle:
        slow.sendall(head + body[:1_000])
        wait_under_way(daybook, "webhook")
        wait_under_way(daybook, "waiting_read")
        command.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(daybook), "nobody else is let in")
        slow.sendall(body[1_000:])
        upload = answer(slow)
        assert idle.recv(1) == b""  # closed
    waiting.join()

    assert command.wait(PATIENCE_SECONDS) == 0
    assert upload.startswith(b"HTTP/1.1 200 ")
    assert b'"position":2,' in upload
    assert [one.status_code for one in waits] == [504]  # no worker runs
    with closing(sqlite3.connect(ledger_path(daybook.data_dir))) as ledger:
        assert ledger.execute("SELECT max(position) FROM events").fetchone() == (2,)


def test_clients_that_never_go_on_keep_nothing_up(daybook: DaybookProcesses, workers: int) -> None:
    command = start(daybook, workers)
    head, body = request(1, 500_000)
    with ExitStack() as stack:
        for sent in (b"", b"POST /webhooks", head, head + body[:100_000]):
            stack.enter_context(connected(daybook)).sendall(sent)
        wait_under_way(daybook, "webhook", 2)  # those with a whole head

        command.send_signal(signal.SIGTERM)

        assert command.wait(PATIENCE_SECONDS) == 0


def test_a_ledger_that_hangs_keeps_nothing_up(daybook: DaybookProcesses, workers: int) -> None:
    command = start(daybook, workers)
    answers: list[bytes] = []

    def deliver(number: int) -> None:
        head, body = request(number)
        with connected(daybook) as connection:
            connection.sendall(head + body)
            answers.append(answer(connection))

    with closing(sqlite3.connect(ledger_path(daybook.data_dir), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        delivering = [threading.Thread(target=deliver, args=(number,)) for number in range(20)]
        for thread in delivering:
            thread.start()
        wait_under_way(daybook, "proved_webhook", len(delivering))

        command.send_signal(signal.SIGTERM)

        command.wait(PATIENCE_SECONDS)
        wait_until(lambda: not any(thread.is_alive() for thread in delivering), "all are answered")
        assert not any(one.startswith(b"HTTP/1.1 200 ") for one in answers)
