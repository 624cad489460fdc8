from collections.abc import Iterator

import pytest

from tests.support import temporary_books
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="module")
def on_postgresql(postgres: PostgresServer) -> Iterator[None]:
    """Temporary books are made in PostgreSQL."""
    with temporary_books.on(postgres):
        yield
