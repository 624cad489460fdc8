import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from service.settings import Settings
from tests.support.stripe_api import StripeApi, serve
from tests.support.sync_daybook import SyncDaybook, open_sync_daybook


@pytest.fixture(autouse=True)
def _quiet_server() -> None:
    """The stand-in's server reports the connections that it resets on purpose."""
    logging.getLogger("uvicorn.error").disabled = True


@pytest.fixture
def api() -> Iterator[StripeApi]:
    with serve(StripeApi()) as api:
        yield api


@pytest.fixture
async def daybook(settings: Settings) -> AsyncIterator[SyncDaybook]:
    async with open_sync_daybook(settings) as daybook:
        yield daybook
