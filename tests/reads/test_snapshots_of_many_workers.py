"""Many workers, one of which makes the standing documents: when all are done, and of the newest rows."""

from collections.abc import AsyncIterator
from functools import partial

import pytest

from service.books.engine import Engine
from service.books.store import BookStore
from service.books.tables import PARTITIONS
from service.bootstrap import open_books
from service.ledger.store import Ledger
from service.reads import snapshots
from service.settings import Settings
from tests.reads.test_snapshots import DOLLARS, STANDING, TODAY, fresh, standing
from tests.support.partitions import HeldPartitions
from tests.support.temporary_books import NOW, incoming, now

STORES = ["postgresql"]


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[BookStore]:
    opened = open_books(settings)
    await opened.register()
    yield opened
    await opened.close()


async def test_the_leading_worker_knows_when_the_others_are_done(store: BookStore, ledger: Ledger) -> None:
    # given two workers that share the partitions, and events for both
    leading, other = (
        Engine(ledger, store, now, HeldPartitions(range(start, PARTITIONS, 2)), batch=1) for start in (0, 1)
    )
    assert (leading.is_leader, other.is_leader) == (True, False)
    await ledger.append([incoming(event) for event in DOLLARS], NOW)

    # when one after the other has caught up, then the books have when both have
    await leading.catch_up()
    assert await leading.is_behind()
    await other.catch_up()
    assert not await leading.is_behind()

    # and what is made then is what would be made afresh
    assert await snapshots.precompute(store, TODAY) == len(STANDING)
    assert await standing(store, "usd") == await fresh(store, "usd")


async def test_only_a_newer_document_replaces_one(store: BookStore) -> None:
    name = f'mrr|usd|["{TODAY}"]'
    for version, body in ((1, b"old"), (3, b"new"), (2, b"late")):
        await store.write(partial(snapshots._save, rows=[(name, version, body)], today=TODAY))

    found = [await store.read(partial(snapshots.find, name=name, version=version)) for version in (1, 2, 3)]

    assert found == [None, None, b"new"]
