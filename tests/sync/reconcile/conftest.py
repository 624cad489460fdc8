import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.bootstrap import prepare
from service.settings import load
from tests.support.stores import prepared_database
from tests.support.stripe_api import StripeApi, served
from tests.support.sync_daybook import Daybook, opened


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged, as values: nothing is printed."""
    logging.getLogger("uvicorn.error").disabled = True
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def api() -> Iterator[StripeApi]:
    with served(StripeApi()) as api:
        yield api


@pytest.fixture(params=["sqlite", "postgresql"])
async def on_each_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Daybook]:
    """A Daybook on each kind of store."""
    of_server = request.param == "postgresql"
    url = prepared_database(request.getfixturevalue("postgres")) if of_server else None
    settings = load(_env_file=None, data_dir=tmp_path, database_url=url)
    if url is None:
        prepare(settings)
    async with opened(settings) as daybook:
        yield daybook


@pytest.fixture
async def daybook(tmp_path: Path) -> AsyncIterator[Daybook]:
    settings = load(_env_file=None, data_dir=tmp_path)
    prepare(settings)
    async with opened(settings) as daybook:
        yield daybook
