"""A PostgreSQL that crashes, hangs or is away: 503 with Retry-After, never a 200 and never a hang."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from service.books.engine import Overtaken
from service.ledger import writer
from service.storage import database
from service.verify import verify_chain
from service.web import health, progress, reads
from tests.support.postgres import PostgresServer
from tests.support.processes import DaybookProcesses
from tests.support.running import Daybook, running
from tests.support.senders import STANDARD
from tests.support.stores import prepared_database
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE_SECONDS, wait_until

READ = "/api/v1/mrr"


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the service's own: a server that hangs makes use of them to the end."""
    for module, name, seconds in (
        (database, "_CONNECT_SECONDS", 1),
        (progress, "LOOK_SECONDS", 1.7),
        (health, "LOOK_SECONDS", 1.7),
        (writer, "_COMMIT_SECONDS", 1.8),
        (database, "_COMMAND_SECONDS", 2.7),
        (reads, "_READ_SECONDS", 3.3),
    ):
        monkeypatch.setattr(module, name, seconds)


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
    body = {
        "type": "customer.recorded",
        "occurred_at": "2025-01-01T00:00:00Z",
        "data": {"customer_id": "cus_1"},
    }
    return await daybook.post(STANDARD, body, message_id=f"msg_{number}")


async def ask(daybook: Daybook) -> httpx.Response:
    return await daybook.ask(READ)


async def until_200(request: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """The answer to a request that is made again where it is 503, as who sends webhooks does."""
    while is_503(answer := await request()):
        pass
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
    assert (await until_200(lambda: post(daybook, 1))).json()["position"] == 1
    await daybook.catch_up()
    assert (await until_200(lambda: ask(daybook))).status_code == 200

    # when the server crashes
    server.stop("immediate")

    # then everything says so, and nothing is answered 200
    assert is_503(await post(daybook, 2))
    assert is_503(await ask(daybook))
    assert (await daybook.ask("/healthz")).status_code == 200
    assert (await daybook.ask("/readyz")).status_code == 503

    # and it goes on when the server is back
    server.start()
    assert (await until_200(lambda: post(daybook, 2))).json()["position"] == 2
    assert (await until_200(lambda: ask(daybook))).status_code == 200
    assert (await until_200(lambda: daybook.ask("/readyz"))).status_code == 200
    for _ in range(2):  # its connection is gone, and the crash may have undone the books' last step
        with suppress(OperationalError, Overtaken):
            await daybook.catch_up()
    await daybook.catch_up()
    assert (await daybook.get(READ))["meta"]["position"] == 2
    assert await verify_chain(daybook.state.ledger) == 2


async def test_a_server_that_hangs_is_503_and_works_again_when_it_goes_on(
    daybook: Daybook, server: PostgresServer
) -> None:
    assert (await until_200(lambda: post(daybook, 1))).status_code == 200
    await daybook.catch_up()
    assert (await until_200(lambda: ask(daybook))).status_code == 200

    server.pause()
    assert is_503(await post(daybook, 2))
    assert is_503(await ask(daybook))
    server.resume()

    # what was under way may be kept: then the processor's retry is a duplicate
    assert (await until_200(lambda: post(daybook, 2))).json()["position"] == 2
    again = await until_200(lambda: post(daybook, 2))
    assert again.json() == {"received": True, "position": 2, "duplicate": True}
    assert (await until_200(lambda: ask(daybook))).status_code == 200
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
        timeout=PATIENCE_SECONDS,
        check=False,
    )

    assert ended.returncode == 3
    (line,) = (line for line in ended.stderr.splitlines() if "no_webhook_secret" not in line)
    assert line.startswith("daybook: a store can't be used")
    assert "secret" not in line


def test_a_worker_told_to_stop_ends_in_time_though_the_server_hangs(
    server: PostgresServer, tmp_path: Path
) -> None:
    with ValkeyServer() as valkey:
        processes = DaybookProcesses(tmp_path, valkey.connection_url)
        processes.environment["DAYBOOK_DATABASE_URL"] = prepared_database(server)
        processes.start("worker")
        log = tmp_path / "worker.log"
        wait_until(lambda: '"event": "leases"' in log.read_text(), "the worker is at work")
        server.pause()
        worker = processes.processes["worker"]
        try:
            processes.kill("worker", signal.SIGTERM)
            assert worker.returncode == -signal.SIGALRM  # by the limit that it set itself
        finally:
            server.resume()
            processes.stop()
