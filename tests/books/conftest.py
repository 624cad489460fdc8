from collections.abc import Iterator

import pytest

from tests.support import temporary_books


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def each_store(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is promised of a store is promised of both."""
    if request.param == "sqlite":
        yield
        return
    with temporary_books.on(request.getfixturevalue("postgres")):
        yield
