import multiprocessing
import os
import subprocess
from base64 import b64encode
from collections.abc import Iterator

import pytest
from hypothesis import settings

from service.ledger import writer
from service.lookback import maker
from service.maintenance import erasure
from service.queue import client
from service.storage import database
from service.web import app, progress, reads, webhooks
from tests.postgres import PostgresServer
from tests.processes.daybook import Daybook
from tests.storm.cluster import Cluster
from tests.valkey import ValkeyServer
from tests.waiting import PATIENCE_SECONDS

# Random where people run it, so that it keeps looking; the same examples every time where a machine does.
EXAMPLES = int(os.environ.get("DAYBOOK_EXAMPLES") or 100)
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=EXAMPLES)
settings.register_profile("people", deadline=None, max_examples=EXAMPLES)
settings.load_profile("ci" if os.environ.get("CI") else "people")


LIMITS = (
    (app, "LOOK_SECONDS"),
    (client, "TIMEOUT_SECONDS"),
    (database, "_CONNECT_SECONDS"),
    (erasure, "_BOOKS_SECONDS"),
    (erasure, "_FILES_SECONDS"),
    (maker, "_WAIT_SECONDS"),
    (progress, "LOOK_SECONDS"),
    (reads, "_READ_SECONDS"),
    (webhooks, "_BODY_SECONDS"),
    (writer, "_CLOSE_SECONDS"),
    (writer, "_WAIT_SECONDS"),
)

# Databases are copied from templates, whose keys this one opens.
os.environ["DAYBOOK_MASTER_KEY"] = b64encode(b"the master key of tests, 32 byte").decode()


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark what is slow; let each process of `pytest -n` begin with its share of what waits for processes."""
    waits = [item for item in items if _starts_processes(item)]
    for item in items:
        if item in waits or _needs_postgresql(item) or item.path.parent.name == "lookback":
            item.add_marker("slow")
    if (count := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
        first, others = sorted(waits, key=_longest_first), [item for item in items if item not in waits]
        # `--dist worksteal` gives each process as many tests, one after another, and takes from the end
        ends = [len(items) * number // count for number in range(count + 1)]
        items.clear()
        for number in range(count):
            share = first[number::count]
            size = ends[number + 1] - ends[number] - len(share)
            items += [*share, *others[:size]]
            del others[:size]


def _starts_processes(item: pytest.Function) -> bool:
    """Whether its module holds what starts a process or a server."""
    starters = (subprocess, multiprocessing, Cluster, Daybook, ValkeyServer)
    return any(held is starter for held in vars(item.module).values() for starter in starters)


def _needs_postgresql(item: pytest.Function) -> bool:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return "postgres" in item.fixturenames or "postgresql" in params.values()


def _longest_first(item: pytest.Function) -> float:
    limit = item.get_closest_marker("timeout")
    return -limit.args[0] if limit else 0


@pytest.fixture(autouse=True)
def _logging_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command run in this process sets up no logging: it would keep that test's stream for ever."""
    monkeypatch.setattr("service.logs.configure", lambda: None)


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """Let the service wait as long as tests do: on a busy machine it would else give up what goes well.

    Tests of something that hangs set their own limits.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, name in LIMITS:
            patch.setattr(module, name, PATIENCE_SECONDS)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test process: quick, since it forgets nothing but what a power cut would lose."""
    with PostgresServer(fsync=False) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an empty database for this test alone."""
    return postgres.new_database()
