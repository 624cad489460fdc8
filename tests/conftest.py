import os
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
from tests.waiting import PATIENCE_SECONDS

# Random where people run it, so that it keeps looking; the same examples every time where a machine does.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("people", deadline=None)
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
