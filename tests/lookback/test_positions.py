"""What was known when: moments to positions."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from service.core.events import Event, Unused
from service.core.moments import to_us
from service.lookback.positions import digest_at, last_us, position_known_by
from tests.support.temporary_books import NOW, TemporaryBooks, incoming, new_books

pytestmark = pytest.mark.usefixtures("each_store")


async def record(books: TemporaryBooks, *seconds: int) -> None:
    """One event at each of these seconds after NOW, by the clock of the moment."""
    start = await books.ledger.read(known_until_the_end)
    for number, second in enumerate(seconds, start):
        event = Event(
            processor="acme", event_id=f"evt_{number}", occurred_at=NOW, data=Unused(original_type="x")
        )
        await books.ledger.append([incoming(event)], NOW + timedelta(seconds=second))


def known_until_the_end(connection) -> int:
    return position_known_by(connection, to_us(datetime(2100, 1, 1, tzinfo=UTC)))


async def known(books: TemporaryBooks, seconds: float) -> int:
    moment_us = to_us(NOW + timedelta(seconds=seconds))
    return await books.ledger.read(lambda connection: position_known_by(connection, moment_us))


async def test_what_was_recorded_by_a_moment_is_known_and_nothing_later() -> None:
    async with new_books() as books:
        assert await known(books, 0) == 0
        await record(books, *range(0, 50, 5))

        assert [await known(books, second) for second in (-1, 0, 4, 5, 9, 44, 45, 99)] == [
            *(0, 1, 1, 2, 2, 9, 10, 10)
        ]


async def test_events_of_one_moment_are_known_together() -> None:
    async with new_books() as books:
        await record(books, 1, 2, 2, 2, 3)

        assert [await known(books, second) for second in (1, 1.999999, 2, 3)] == [1, 1, 4, 5]


async def test_what_comes_later_changes_no_answer_even_after_a_clock_went_back() -> None:
    async with new_books() as books:
        await record(books, 10, 20, 30, 12, 22, 40, 50)
        moments = (9, 10, 15, 20, 25, 30, 35, 40, 45, 50)
        answers = [await known(books, second) for second in moments]
        await record(books, *range(60, 90))

        assert [await known(books, second) for second in moments] == answers
        assert answers == sorted(answers)
        assert await known(books, 200) == 37


async def test_the_digest_at_a_position_names_its_events() -> None:
    async with new_books() as books, new_books() as other:

        def digests(connection) -> list[str]:
            return [digest_at(connection, position) for position in range(3)]

        await record(books, 1, 2)
        before = await books.ledger.read(digests)
        await record(books, 3)
        await record(other, 1, 2)

        assert await books.ledger.read(digests) == before
        assert len({*before, *(await other.ledger.read(digests))}) == 5  # only of no event they are the same


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_a_day_ends_with_its_last_microsecond_in_the_reporting_zone(zone: str) -> None:
    end = datetime(2025, 11, 3, tzinfo=ZoneInfo(zone))  # New York's clock went back on the 2nd
    assert last_us(date(2025, 11, 2), ZoneInfo(zone)) == to_us(end) - 1


def test_a_moment_ends_at_itself() -> None:
    assert last_us(NOW, ZoneInfo("Asia/Tokyo")) == to_us(NOW)
