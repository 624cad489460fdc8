from collections.abc import Iterator

import pytest

from tests.books import shelf


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def each_store(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is promised of a store is promised of both."""
    if request.param == "sqlite":
        yield
        return
    with shelf.on(request.getfixturevalue("postgres")):
        yield
