import os
from base64 import b64encode
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.postgres import PostgresServer

# Random where people run it, so that it keeps looking; the same examples every time where a machine does.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("people", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "people")


# Databases are copied from templates, whose keys this one opens.
os.environ["DAYBOOK_MASTER_KEY"] = b64encode(b"the master key of tests, 32 byte").decode()


@pytest.fixture(autouse=True)
def _logging_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command run in this process sets up no logging: it would keep that test's stream for ever."""
    monkeypatch.setattr("service.logs.configure", lambda: None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test process: quick, since it forgets nothing but what a power cut would lose."""
    with PostgresServer(fsync=False) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an empty database for this test alone."""
    return postgres.new_database()
