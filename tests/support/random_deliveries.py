"""Random histories delivered in any order, some events again, by workers of which some die."""

from collections.abc import Sequence
from contextlib import suppress

from hypothesis import strategies as st
from msgspec import Struct

from projections.kept import MOST_KEPT
from service.core.events import Event
from tests.support.random_scenarios import Scenario
from tests.support.temporary_books import TemporaryBooks, in_batches

KEPT_STATES = (0, 3, MOST_KEPT)  # of contracts, in a worker's memory


class Killed(Exception):
    """A worker that dies in the middle of a transaction."""


class Deliveries(Struct):
    """Events in batches, each with whether a worker dies over it; and how much its worker keeps in memory."""

    batches: list[tuple[Sequence[Event], bool]]
    kept_states: int


@st.composite
def deliveries(draw, scenario: Scenario) -> Deliveries:
    """A scenario's events, some delivered again: in any order, or most of them as they happened."""
    again = draw(st.lists(st.sampled_from(scenario.events), max_size=8))
    if draw(st.booleans()):
        events = draw(st.permutations([*scenario.events, *again]))
    else:
        events = sorted(scenario.events, key=lambda event: event.occurred_at)
        for event in again:
            events.insert(draw(st.integers(0, len(events))), event)
    batches = in_batches(events, draw(st.lists(st.integers(1, 25), max_size=6)))
    return Deliveries([(batch, draw(st.booleans())) for batch in batches], draw(st.sampled_from(KEPT_STATES)))


def die(*_args) -> None:
    raise Killed


async def deliver(books: TemporaryBooks, planned: Deliveries) -> None:
    """Deliver batch by batch, each taken in by a worker; some of them die before they commit.

    Where one died, the next takes a few events at a time, of small batches each by itself.
    """
    for batch, dies in planned.batches:
        await books.append(batch)
        if dies:
            with suppress(Killed):
                await books.advance(die)
        await books.advance(batch=max(len(batch) // 7, 1) if dies else 1000, kept_states=planned.kept_states)
