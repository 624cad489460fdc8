"""An event that another supersedes counts no more, wherever and in whatever order they come."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from handlers.standard import translation
from projections import BOOKS
from projections.book import Rules
from service.core.delivery import Proof
from service.core.events import (
    Customer,
    Event,
    Invoice,
    Payment,
    Subscription,
    Superseded,
    Unused,
    original_id,
    revision_id,
    subjects,
    superseding_event,
)
from service.core.order import canonical, effective_events
from tests.support.effort import examples
from tests.support.events import at, created, event, invoice, subscription
from tests.support.folded_books import rows_of
from tests.support.random_scenarios import Scenario, scenarios
from tests.support.temporary_books import new_books


def wrong(event: Event, rng: Random) -> Event:
    """The event as a translator with a fault would tell it: another amount, time, owner, or nothing."""
    data = event.data
    fault = rng.choice(("unused", "owner", "time", "amount"))
    if fault == "time":
        return replace(event, occurred_at=event.occurred_at.replace(year=2024))
    if fault == "owner" and isinstance(data, Subscription):
        return replace(event, data=replace(data, subscription_id=f"{data.subscription_id}-x", items=()))
    if fault == "owner" and isinstance(data, Customer | Invoice):
        return replace(event, data=replace(data, customer_id="cus_wrong"))
    if fault == "amount" and isinstance(data, Payment):
        return replace(event, data=replace(data, amount=data.amount + 1))
    return replace(event, data=Unused(original_type="unknown"), before=None)


def corrected(event: Event, rng: Random) -> list[Event]:
    """An event that was told wrongly once or twice, and was set right each time."""
    wrongly = [wrong(event, rng) for _ in range(rng.randint(1, 2))]
    events = [replace(each, event_id=revision_id(event.event_id, n)) for n, each in enumerate(wrongly, 1)]
    right = replace(event, event_id=revision_id(event.event_id, len(events) + 1))
    pairs = zip(events, [*events[1:], right], strict=True)
    return [*events, right, *(superseding_event(old, new.event_id) for old, new in pairs)]


def told_wrongly(scenario: Scenario, rng: Random) -> list[Event]:
    """A scenario in which some events were set right, and some stand that never were; in any order."""
    events = [each for e in scenario.events for each in (corrected(e, rng) if rng.random() < 0.4 else [e])]
    for number, each in enumerate(rng.sample(scenario.events, min(3, len(scenario.events)))):
        extra = replace(wrong(each, rng), event_id=f"{each.event_id}-never-{number}")
        events += [extra, superseding_event(extra, None)]
    rng.shuffle(events)
    return events


@given(scenarios(), st.integers())
@examples(15)
def test_books_are_those_of_a_ledger_that_was_told_rightly_from_the_start(
    scenario: Scenario, seed: int
) -> None:
    events = told_wrongly(scenario, Random(seed))

    for book in BOOKS:
        rules = Rules(reporting_tz=scenario.zone)
        assert set(rows_of(book, events, rules)) == set(rows_of(book, scenario.events, rules))


@given(scenarios(), st.integers())
@examples(3)
async def test_books_advanced_event_by_event_are_the_same(scenario: Scenario, seed: int) -> None:
    rules = Rules(reporting_tz=scenario.zone)
    events = told_wrongly(scenario, Random(seed))
    async with new_books(rules) as books:
        for start in range(0, len(events), 7):
            await books.record(*events[start : start + 7])
        for read in ("revenue-month-detail", "mrr", "revenue-annual-forecast"):
            asked = (read, "usd", at("2025-04-15").date())
            async with new_books(rules) as straight:
                await straight.record(*scenario.events)
                expected = await straight.read(*asked)
            assert await books.read(*asked) == expected


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=12), st.randoms())
def test_what_counts_depends_on_the_set_alone(known: list[tuple[int, bool]], rng: Random) -> None:
    events = {f"evt_{n}": created(subscription(), "2025-11-13", event_id=f"evt_{n}") for n, _ in known}
    gone = [superseding_event(events[f"evt_{n}"], None) for n, superseded in known if superseded]
    history = [*events.values(), *gone]
    rng.shuffle(history)

    expected = [
        e for name, e in sorted(events.items()) if f"{name}·superseded" not in {g.event_id for g in gone}
    ]
    assert canonical(history) == canonical([*history, *gone]) == expected
    assert {e.event_id for e in effective_events(history)} == {e.event_id for e in expected}


def test_superseding_shows_in_each_history_that_the_event_belonged_to() -> None:
    old = event(invoice(payment_ids=("pi_1", "pi_2")), "2025-11-13", event_id="evt_1")

    marker = superseding_event(old, "evt_1·2")

    assert sorted(subjects(marker)) == sorted(subjects(old)) != []
    assert marker.data == Superseded(
        event_id="evt_1",
        by="evt_1·2",
        histories=(("invoice", "in_1"), ("payment", "pi_1"), ("payment", "pi_2")),
        customer_id="cus_1",
    )
    assert original_id(marker.event_id) == original_id("evt_1·2") == "evt_1"


def test_a_revision_takes_the_place_of_its_original_among_events_of_one_moment() -> None:
    ids = ("evt_1", "evt_10", "evt_2")
    events = [created(subscription(), "2025-11-13", event_id=name) for name in ids]
    old = replace(events[0], rank=events[0].rank)
    revised = replace(old, event_id="evt_1·2")

    history = canonical([revised, *events[1:], superseding_event(old, "evt_1·2"), old])

    assert [original_id(e.event_id) for e in history] == [e.event_id for e in canonical(events)]


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_a_history_of_which_nothing_counts_has_no_rows(book) -> None:
    assert [stage.contribute([], Rules()) for stage in book.stages] == [[] for _ in book.stages]


def test_no_biller_can_post_a_superseding_event() -> None:
    body = {
        "type": "event.superseded",
        "occurred_at": "2025-11-13T10:00:00Z",
        "data": {"event_id": "msg_1", "histories": [["subscription", "sub-1"]]},
    }
    proof = Proof(
        processor="standard.acme", method="standard-webhooks", received_at=at("2025-11-13"), message_id="m"
    )

    (event,) = translation.translate(body, proof)

    assert isinstance(event.data, Unused)
    assert "event.superseded" not in str(translation.event_schema())
