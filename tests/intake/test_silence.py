"""Silence: what is usual for a processor, and who has not been heard for longer."""

from bisect import bisect_right
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from service.core.delivery import Proof
from service.core.events import Event, Unused
from service.intake.silence import EventPoint, ProcessorActivity, SilenceMonitor, usual_gap
from service.ledger.draft import Incoming
from service.settings import Settings
from tests.support.stores import EACH_STORE
from tests.support.sync_daybook import SyncDaybook, open_sync_daybook

NOW = datetime(2025, 10, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


class Log:
    """Events at their positions, and how many were looked up."""

    def __init__(self, marks: list[EventPoint]) -> None:
        self.marks = marks
        self.positions = [position for position, _ in marks]
        self.looked_up = 0

    def up_to(self, position: int) -> EventPoint:
        self.looked_up += 1
        return self.marks[bisect_right(self.positions, position) - 1]

    def after(self, position: int) -> EventPoint:
        self.looked_up += 1
        return self.marks[bisect_right(self.positions, position)]

    def usual(self) -> timedelta:
        return usual_gap(self.marks[0], self.marks[-1], self.up_to, self.after)


def log_of(gaps: list[timedelta], step: int = 1) -> Log:
    """Events with these gaps, at every `step`th position."""
    moment, marks = 0, [(1, 0)]
    for number, gap in enumerate(gaps, start=1):
        moment += gap // MICROSECOND
        marks.append((1 + step * number, moment))
    return Log(marks)


@given(
    gaps=st.lists(st.timedeltas(timedelta(), timedelta(days=3)), min_size=1, max_size=80),
    step=st.integers(1, 50),
)
def test_the_second_longest_gap_is_usual_unless_it_is_too_short_to_matter(
    gaps: list[timedelta], step: int
) -> None:
    log = log_of(gaps, step)
    between = sorted((b[1] - a[1] for a, b in pairwise(log.marks)), reverse=True)
    second = timedelta(microseconds=between[1]) if len(between) > 1 else timedelta()

    found = log.usual()

    assert found == second if second > timedelta(minutes=40) else found <= timedelta(minutes=40)


def test_an_outage_is_not_usual_and_a_weekend_is() -> None:
    assert log_of([HOUR] * 50 + [100 * HOUR] + [HOUR] * 50).usual() == HOUR
    assert log_of(([HOUR] * 50 + [60 * HOUR]) * 2).usual() == 60 * HOUR


def test_a_million_events_in_a_second_change_nothing_and_cost_little() -> None:
    month = [HOUR, 3 * HOUR, 2 * HOUR] * 100
    imported = log_of([*month, *[MICROSECOND] * 1_000_000, *month])

    assert imported.usual() == 3 * HOUR
    assert imported.looked_up < 2_000


def test_where_too_much_would_be_looked_up_it_says_more_and_not_less() -> None:
    assert log_of([HOUR] * 3_000).usual() >= HOUR


@pytest.mark.parametrize(
    ("usual", "silent_for", "is_silent"),
    [
        (timedelta(), HOUR, False),
        (timedelta(), HOUR + MICROSECOND, True),
        (10 * HOUR, 15 * HOUR, False),
        (10 * HOUR, 15 * HOUR + MICROSECOND, True),
        (None, 10_000 * HOUR, False),
    ],
)
def test_the_limit_is_half_as_long_again_and_an_hour_at_least(
    usual: timedelta | None, silent_for: timedelta, *, is_silent: bool
) -> None:
    heard = ProcessorActivity(processor="stripe", last_at=NOW - silent_for, usual_gap=usual)

    assert bool(heard.silence(NOW)) == is_silent


@pytest.fixture
async def daybook(settings: Settings) -> AsyncIterator[SyncDaybook]:
    async with open_sync_daybook(settings) as daybook:
        yield daybook


async def record(daybook: SyncDaybook, processor: str, *moments: datetime) -> None:
    for moment in moments:
        event = Event(
            processor=processor,
            event_id=f"{processor}{moment}",
            occurred_at=moment,
            data=Unused(original_type="any"),
        )
        body = json.encode(event)
        proof = Proof(processor=processor, method="test", received_at=moment)
        told = Incoming(events=[event], content_digest=body[:32], headers=b"{}", body=body, proof=proof)
        await daybook.ledger.append([told], moment)


@pytest.mark.parametrize("store_kind", EACH_STORE, scope="module")
async def test_each_processor_has_its_own_measure(daybook: SyncDaybook) -> None:
    # given one that speaks every four hours, one that does once a day, and one that is new
    moments = [NOW - timedelta(days=40)]
    moments += [NOW - 4 * HOUR * count for count in range(60, 1, -1)]
    for moment in moments:
        await record(daybook, "often", moment)
        if moment.hour == 0 or moment == moments[0]:
            await record(daybook, "daily", moment)
    await record(daybook, "new", NOW - 20 * HOUR, NOW - 19 * HOUR)

    found = {each.processor: each for each in await SilenceMonitor(daybook.ledger).read_activity(NOW)}

    assert {name: each.usual_gap for name, each in found.items()} == {
        "often": 4 * HOUR,
        "daily": 24 * HOUR,
        "new": None,
    }
    assert {name: each.silence(NOW) for name, each in found.items()} == {
        "often": {
            "processor": "often",
            "last_event_at": "2025-10-05T04:00:00Z",
            "usual_gap_seconds": 14_400,
            "silent_seconds": 28_800,
        },
        "daily": None,
        "new": None,
    }


async def test_what_is_usual_is_looked_up_now_and_then_and_by_an_index(daybook: SyncDaybook) -> None:
    await record(daybook, "often", *(NOW - 4 * HOUR * count for count in range(60, 0, -1)))
    silence = SilenceMonitor(daybook.ledger)
    said: list[str] = []
    engine = daybook.ledger._database._reader  # type: ignore[attr-defined]
    connect = engine.raw_connection()
    connect.driver_connection.set_trace_callback(said.append)
    connect.close()

    await silence.read_activity(NOW)
    first = len(said)
    await silence.read_activity(NOW + timedelta(minutes=9))
    second = len(said)
    await silence.read_activity(NOW + timedelta(minutes=10))

    assert first > 10
    assert not [line for line in said[first:second] if "recorded_at_us" in line]
    assert len(said) > second
    with engine.connect() as connection:
        for line in {line for line in said if line.startswith("SELECT")}:
            plan = " ".join(row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {line}"))
            assert "SCAN" not in plan, plan
