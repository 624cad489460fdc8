"""`daybook backfill` killed hard at random moments, before and after webhooks: one set of books.

More of them: `TEST_EFFORT=10 pytest tests/sync/backfill/test_kills.py`.
"""

import asyncio
import os
from pathlib import Path
from random import Random
from threading import Timer

import pytest

from service.settings import Settings
from service.verify import verify_chain
from tests.support import preloaded
from tests.support.effort import times
from tests.support.one_world import an_api
from tests.support.postgres import PostgresServer
from tests.support.stores import new_data_dir, settings_of
from tests.support.stripe_api import KEY, Shop, StripeApi, cut_off, refusal
from tests.support.stripe_years import Account, customers
from tests.support.sync_daybook import SECONDS, open_sync_daybook
from tests.sync.backfill import at_one_moment

KILLS = times(4)  # before each of four backfills that end
KILLS_ON_POSTGRESQL = times(1)
SEED = 5
PAGE = 20

Books = tuple[dict[str, str], list[str]]


class Backfills:
    """Runs of the command on one ledger, of which some are killed at moments that a seed chooses."""

    def __init__(self, settings: Settings, api: StripeApi, rng: Random) -> None:
        self._api, self._rng = api, rng
        self._directory = settings.data_dir
        self._environment = {
            **os.environ,
            "DAYBOOK_DATA_DIR": str(settings.data_dir),
            "DAYBOOK_STRIPE_API_KEY": KEY,
            "DAYBOOK_STRIPE_API_URL": api.url,
            **({"DAYBOOK_DATABASE_URL": settings.database_url} if settings.database_url else {}),
        }

    def run(self, kills: int) -> None:
        """Begin so many runs that are killed, then one that ends."""
        for _ in range(kills):
            assert self._run_until(self._rng.randint(1, 6), self._rng.uniform(0, 0.06)) < 0
        self._api.faults = [lambda _: None] * self._rng.randrange(20) + [lambda _: refusal(429), cut_off]
        assert self._run_until(None, 0) == 0

    def _run_until(self, request: int | None, seconds: float) -> int:
        """Run until some time after the API was asked so often, or to the end; the exit code."""
        left = request
        with open(self._directory / "backfill.log", "ab") as log:
            process = preloaded.start(
                *(at_one_moment.__name__, str(SECONDS)),  # so that any order records the same events
                environment=self._environment,
                directory=self._directory,
                output=log,
            )

        def count(_path: str) -> None:
            nonlocal left
            left = left and left - 1
            if left == 0:
                Timer(seconds, process.kill).start()

        self._api.before = count
        return process.wait()


def a_shop(customer_count: int) -> Shop:
    account = Account()
    for _ in customers(account, customer_count, SEED):
        pass
    return account.shop


async def books_of(settings: Settings, api: StripeApi, order: str, kills: int) -> Books:
    """The digests and events after webhooks and backfills in an order, each of them twice."""
    backfills = Backfills(settings, api, Random(f"{SEED}-{order}"))
    async with open_sync_daybook(settings) as daybook:
        for step in order * 2:
            if step == "w":
                await daybook.deliver(*api.shop.events)
            else:
                await asyncio.to_thread(backfills.run, kills)
                await daybook.catch_up()
        assert await verify_chain(daybook.ledger)
        return await daybook.book_digests(), sorted(await daybook.event_ids())


async def books_in_one_go(settings: Settings, api: StripeApi) -> Books:
    async with open_sync_daybook(settings) as daybook:
        await daybook.deliver(*api.shop.events)
        await daybook.backfill(api)
        return await daybook.book_digests(), sorted(await daybook.event_ids())


async def assert_one_world(
    directory: Path, customer_count: int, kills: int, server: PostgresServer | None = None
) -> None:
    with an_api(a_shop(customer_count)) as api:
        settings = {
            name: settings_of(new_data_dir(directory / name, server)) for name in ("wb", "bw", "one go")
        }
        expected = await books_in_one_go(settings["one go"], api)
        api.longest_page = PAGE
        for order in ("wb", "bw"):
            assert await books_of(settings[order], api, order, kills) == expected


@pytest.mark.timeout(3_600)
async def test_backfills_that_are_killed_and_webhooks_give_one_set_of_books_in_either_order(
    tmp_path: Path,
) -> None:
    await assert_one_world(tmp_path, 12, KILLS)


@pytest.mark.timeout(3_600)
async def test_backfills_that_are_killed_give_the_same_books_on_postgresql(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    await assert_one_world(tmp_path, 4, KILLS_ON_POSTGRESQL, postgres)
