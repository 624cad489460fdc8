from collections.abc import Iterator

import pytest

from service.lookback import maker
from service.web import reads
from tests.support import temporary_books
from tests.support.postgres import PostgresServer


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy is no reason to tell anybody to come again."""
    monkeypatch.setattr(maker, "_WAIT_SECONDS", 60.0)
    monkeypatch.setattr(reads, "_READ_SECONDS", 90.0)


@pytest.fixture(scope="module")
def on_postgresql(postgres: PostgresServer) -> Iterator[None]:
    """Temporary books are made in PostgreSQL."""
    with temporary_books.on(postgres):
        yield
