"""The same with ledger and books in PostgreSQL; what is looked back at is in files, as on one machine."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lookback.test_books import the_books_at_a_position
from tests.lookback.test_reads import HEAD, MONTH_END, NOW, tell, told_as
from tests.lookback.test_restated import each_event_restates, recordings
from tests.support.effort import examples
from tests.support.random_scenarios import scenarios
from tests.support.running import running

STORES = ["postgresql"]

pytestmark = pytest.mark.usefixtures("on_postgresql")


async def test_a_month_end_and_what_was_restated_since(data_dir: Path):
    async with running(data_dir) as daybook:
        await tell(daybook)
        daybook.clock.now = NOW

        then = await daybook.get("/api/v1/mrr", known_at="2025-10-31")
        now = await daybook.get("/api/v1/mrr", today="2025-10-31")
        at_head = await daybook.get("/api/v1/mrr", position=HEAD)
        restated = (await daybook.get("/api/v1/restatements", from_="2025-11-01"))["restatements"]

    assert (then["mrr_cents"], then["meta"]["position"]) == (500, MONTH_END)
    assert now["mrr_cents"] == at_head["mrr_cents"] == 0
    assert told_as(restated, "position", "figure", "before_cents", "after_cents") == [
        (5, "billed_cents", 1000, 1300),
        (5, "collected_cents", 1700, 2000),
        (6, "refunded_cents", 0, 200),
        (7, "mrr", 500, 0),
    ]


@given(st.data(), scenarios())
@examples(1)
def test_the_books_at_a_position_are_those_of_the_events_until_it(data, scenario):
    events = data.draw(st.permutations(scenario.events))[:5]
    asyncio.run(the_books_at_a_position(scenario, events, range(len(events) + 1), live=len(events)))


@given(st.data(), scenarios())
@examples(2)
def test_each_event_restates_what_the_books_say_otherwise_after_it(data, scenario):
    recorded = data.draw(recordings(scenario), label="events, as recorded")[:10]
    asyncio.run(
        each_event_restates(scenario.zone, recorded, 0, len(recorded), [len(recorded) // 2, len(recorded), 0])
    )
