"""The books at a position are those of a Daybook that holds only the events up to it."""

import asyncio
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from projections.book import Rules
from service.books import tables
from service.books.engine import Engine
from service.bootstrap import open_books
from service.lookback import make_file as module
from service.lookback.files import LookbackSpec
from service.lookback.make_file import make_file, open_file, open_lookback_files
from service.lookback.positions import digest_at
from service.lookback.take_back import copy_books, take_back
from service.settings import Settings
from service.storage.database import books_path
from service.verify.replay import digests
from service.verify.totals import verify_totals
from tests.support.effort import examples
from tests.support.events import event, item, subscription
from tests.support.random_scenarios import Scenario, scenarios
from tests.support.stores import with_rules
from tests.support.temporary_books import NOW, TemporaryBooks, document, new_books, now

READS = (
    ("mrr", {}),
    ("mrr-movements", {"from_": "2025-01", "to": "2025-09", "detail": "customers"}),
    ("revenue-month-detail", {"year": "2025", "month": "4"}),
    ("revenue-monthly-totals", {"from_": "2025-01", "to": "2025-09", "detail": "cash"}),
    ("upcoming", {"from_": "2025-01-01", "to": "2025-12-31"}),
)
TODAY = date(2025, 4, 15)


def settings_of(books: TemporaryBooks) -> Settings:
    return with_rules(books.settings, books.rules)


async def record_live(books: TemporaryBooks, events) -> None:
    """Append events, and advance all books over them, as a worker does."""
    await books.append(events)
    store = open_books(settings_of(books))
    await store.register()
    await Engine(books.ledger, store, now).catch_up()
    await store.close()


async def answers(store, currencies) -> list[dict]:
    return [
        await document(store, name, currency, TODAY, **query)
        for currency in sorted(currencies)
        for name, query in READS
    ]


async def wanted_at(books: TemporaryBooks, position: int) -> LookbackSpec:
    digest = await books.ledger.read(lambda connection: digest_at(connection, position))
    return LookbackSpec(position=position, digest=digest)


@given(st.data(), scenarios())
@examples(4)
def test_the_books_at_a_position_are_those_of_the_events_until_it(data, scenario):
    events = data.draw(st.permutations(scenario.events), label="events")[:8]
    order = data.draw(st.permutations(range(len(events) + 1)), label="positions, as they are asked for")
    live = data.draw(st.integers(0, len(events)), label="how many the live books hold")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MAX_CHANGED", data.draw(st.sampled_from((0.01, 4)), label="what is near"))
        asyncio.run(the_books_at_a_position(scenario, events, order, live))


async def the_books_at_a_position(scenario: Scenario, events, order, live: int) -> None:
    rules = Rules(reporting_tz=scenario.zone)
    currencies = scenario.expected.currencies()
    async with new_books(rules) as whole, new_books(rules) as short:
        await record_live(whole, events[:live])
        await whole.append(events[live:])
        expected = []
        for event in (None, *events):
            await short.record(*([event] if event else []))
            async with short.store() as store:
                expected.append(await answers(store, currencies))
        settings = settings_of(whole)
        for position in order:  # each is made from the nearest one that is there
            wanted = await wanted_at(whole, position)
            await make_file(settings, wanted)
            path = open_lookback_files(settings).find(wanted)
            assert path is not None
            store = open_file(settings, path)
            try:
                assert await answers(store, currencies) == expected[position], f"position {position}"
            finally:
                await store.close()


# From the live books

SUB_1 = "subscription|stripe||sub_1"
EVENTS = [
    event(subscription(item(cents), subscription_id=f"sub_{number}"), f"2025-0{month}-10")
    for month, (number, cents) in enumerate([(1, 100), (2, 200), (1, 300), (1, 400), (2, 500)], start=1)
]


async def taken_back_are_those_of_the_engine(books: TemporaryBooks, tmp_path: Path, position: int) -> None:
    (directory := tmp_path / str(position)).mkdir()
    assert copy_books(books.directory, books_path(directory))
    store = open_file(settings_of(books), books_path(directory))
    async with new_books() as others, others.store() as other:
        try:
            await store.register()
            assert await take_back(books.ledger, store, position, most=8)
            await Engine(books.ledger, other, now).catch_up(position)
            made = await digests(other)
            assert all(
                made[name] == digest for name, digest in (await digests(store)).items() if name in made
            )
            assert (await store.read(store.positions)).position == position
            await verify_totals(store)
        finally:
            await store.close()


@pytest.mark.parametrize("position", range(6))
async def test_live_books_are_taken_back(tmp_path: Path, position: int) -> None:
    async with new_books() as books:
        await record_live(books, EVENTS)
        await taken_back_are_those_of_the_engine(books, tmp_path, position)


async def test_what_the_live_books_do_not_know_of_a_history_yet_counts_for_those_taken_back(
    tmp_path: Path,
) -> None:
    """How far it is read is the same at every position."""
    async with new_books() as books:
        await record_live(books, EVENTS)
        await books.ledger.set_aside({SUB_1: 3}, "mrr", "TooMuchWork", NOW)
        await taken_back_are_those_of_the_engine(books, tmp_path, 4)
        await record_live(books, [])
        await books.ledger.lift([SUB_1], NOW)
        await taken_back_are_those_of_the_engine(books, tmp_path, 5)


async def test_models_of_later_rows_are_not_in_them(tmp_path: Path) -> None:
    async with new_books() as books, books.store() as live:
        await record_live(books, EVENTS)
        await live.write(
            lambda c: c.execute(insert(tables.snapshots), {"name": "mrr", "version": 1, "body": b"{}"})
        )
        assert copy_books(books.directory, books_path(tmp_path))
        store = open_file(settings_of(books), books_path(tmp_path))
        await store.register()
        assert await take_back(books.ledger, store, 4, most=8)
        left = await store.read(lambda c: c.execute(select(tables.snapshots)).all())
        await store.close()
    assert left == []


async def test_books_that_are_behind_or_too_far_ahead_are_not_taken_back(tmp_path: Path) -> None:
    async with new_books() as books:
        await record_live(books, EVENTS[:3])
        await books.append(EVENTS[3:])
        assert copy_books(books.directory, books_path(tmp_path))
        store = open_file(settings_of(books), books_path(tmp_path))
        await store.register()
        assert [await take_back(books.ledger, store, at, most=1) for at in (4, 1)] == [False, False]
        await store.close()


def test_without_live_books_nothing_is_copied(tmp_path: Path) -> None:
    assert not copy_books(tmp_path, tmp_path / "copy.db")


async def test_where_the_live_books_are_too_far_ahead_new_ones_are_filled() -> None:
    async with new_books() as books:
        await record_live(books, EVENTS)
        wanted = await wanted_at(books, 1)
        await make_file(settings_of(books), wanted)
        path = open_lookback_files(settings_of(books)).find(wanted)
        assert path
        store = open_file(settings_of(books), path)
        found = await document(store, "mrr", "usd", TODAY)
        await store.close()
    assert found["mrr_cents"] == 100
