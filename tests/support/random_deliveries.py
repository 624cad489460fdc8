"""Random histories delivered in any order, some events again, by workers of which some die."""

import os
from contextlib import suppress

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.support.random_scenarios import Scenario
from tests.support.temporary_books import TemporaryBooks, in_batches

EXAMPLES = int(os.environ.get("DAYBOOK_EXAMPLES", "0"))


def examples(count: int):
    """How many scenarios a test looks at. Telling why one failed costs more than finding a smaller one."""
    return settings(
        max_examples=EXAMPLES or count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[phase for phase in Phase if phase is not Phase.explain],
    )


class Killed(Exception):
    """A worker that dies in the middle of a transaction."""


@st.composite
def deliveries(draw, scenario: Scenario):
    """A scenario's events in any order, some delivered again, in batches; and after which a worker dies."""
    again = draw(st.lists(st.sampled_from(scenario.events), max_size=8))
    events = draw(st.permutations([*scenario.events, *again]))
    batches = in_batches(events, draw(st.lists(st.integers(1, 25), max_size=6)))
    return [(batch, draw(st.booleans())) for batch in batches]


def die(*_args) -> None:
    raise Killed


async def deliver(books: TemporaryBooks, batches) -> None:
    """Deliver batch by batch, each taken in by a new worker; some of them die before they commit.

    Where one died, the next takes a few events at a time, of small batches each by itself.
    """
    for batch, dies in batches:
        await books.append(batch)
        if dies:
            with suppress(Killed):
                await books.advance(die)
        await books.advance(batch=max(len(batch) // 7, 1) if dies else 1000)
