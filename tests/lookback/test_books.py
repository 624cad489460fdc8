"""The books at a position are those of a Daybook that holds only the events up to it."""

import asyncio
from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from projections.book import Rules
from service.lookback.files import LookbackSpec
from service.lookback.make_file import make_file, open_file, open_lookback_files
from service.lookback.positions import digest_at
from service.settings import Settings
from tests.support.effort import examples
from tests.support.random_scenarios import Scenario, scenarios
from tests.support.stores import with_rules
from tests.support.temporary_books import TemporaryBooks, document, new_books

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
@examples(2)
def test_the_books_at_a_position_are_those_of_the_events_until_it(data, scenario):
    events = data.draw(st.permutations(scenario.events), label="events")[:8]
    order = data.draw(st.permutations(range(len(events) + 1)), label="positions, as they are asked for")
    asyncio.run(the_books_at_a_position(scenario, events, order))


async def the_books_at_a_position(scenario: Scenario, events, order) -> None:
    rules = Rules(reporting_tz=scenario.zone)
    currencies = scenario.expected.currencies()
    async with new_books(rules) as whole, new_books(rules) as short:
        await whole.append(events)
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
