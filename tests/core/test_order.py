"""Canonical order: from what events say, whatever order they come in."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise, permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json
from msgspec.structs import replace

from service.core.events import (
    CREATED,
    DELETED,
    INVOICE_RANK,
    UPDATED,
    Event,
    Invoice,
    Item,
    Payment,
    Subscription,
)
from service.core.order import canonical, undecided_moments

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EARLIER = NOW - timedelta(seconds=1)

quantities = st.lists(st.integers(1, 3), min_size=2, max_size=201)  # so 1 to 200 changes
shuffles = st.randoms(use_true_random=False)


def state(amount: int) -> Subscription:
    return Subscription(
        subscription_id="sub_1",
        customer_id="cus_1",
        status="active",
        currency="usd",
        items=(Item(interval="month", unit_amount=amount),),
    )


def change(
    event_id: str, amount: int, before: int | None = None, rank: int = UPDATED, at: datetime = NOW
) -> Event:
    """An event, in general of one and the same second."""
    was = None if before is None else json.encode(state(before))
    return Event(
        processor="stripe", event_id=event_id, occurred_at=at, rank=rank, data=state(amount), before=was
    )


def changes(amounts: Sequence[int], random: Random) -> list[Event]:
    """The events of one second that lead from the first of these amounts to the last, under random ids."""
    ids = random.sample(range(10**6), len(amounts))
    return [change(f"{i:06d}", new, old) for i, (old, new) in zip(ids, pairwise(amounts), strict=False)]


def shuffled(events: Sequence[Event], random: Random) -> list[Event]:
    return random.sample(events, len(events))


def amounts(events: Sequence[Event]) -> list[int]:
    return [int(event.data.items[0].unit_amount) for event in events]


def followed(events: Sequence[Event]) -> int:
    """How many events follow what they found."""
    return sum(after.before == json.encode(before.data) for before, after in pairwise(events))


def is_undecided(events: Sequence[Event]) -> bool:
    return bool(undecided_moments(canonical(events), Subscription))


# Chains


@pytest.mark.parametrize("begins", ["in an earlier second", "with its creation", "with a state of no rank"])
@given(amounts_in_turn=quantities, random=shuffles)
def test_any_chain_of_one_second_is_followed_to_its_end(
    begins: str, amounts_in_turn: list[int], random: Random
) -> None:
    beginning = {
        "in an earlier second": change("m", amounts_in_turn[0], at=EARLIER),
        "with its creation": change("m", amounts_in_turn[0], rank=CREATED),
        "with a state of no rank": change("m", amounts_in_turn[0]),
    }[begins]
    events = [beginning, *changes(amounts_in_turn, random)]
    ordered = canonical(shuffled(events, random))
    assert followed(ordered) == len(events) - 1
    assert amounts(ordered)[-1] == amounts_in_turn[-1]
    assert canonical(shuffled(events, random)) == ordered
    assert not is_undecided(ordered)


@given(st.integers(2, 12), st.integers(1, 16), shuffles)
def test_flapping_seats_end_where_the_last_change_left_them(low: int, flaps: int, random: Random) -> None:
    events = changes([*[low, low + 1] * flaps, low, 40], random)
    assert amounts(canonical(shuffled([change("m", low, rank=CREATED), *events], random)))[-1] == 40


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=40, unique=True), shuffles)
def test_a_fact_that_two_events_report_changes_no_order(states: list[int], random: Random) -> None:
    once = [change("m", states[0], at=EARLIER), *changes(states, random)]
    again = [
        replace(event, event_id=f"{event.event_id}b", before=random.choice((event.before, None)))
        for event in random.sample(once[1:], random.randint(1, len(once) - 1))
    ]
    ordered = canonical(shuffled([*once, *again], random))
    assert list(dict.fromkeys(amounts(ordered))) == states
    assert amounts(ordered)[-1] == states[-1]
    assert not is_undecided(ordered)


@given(quantities, shuffles)
def test_a_repeated_report_without_a_cause_does_not_move_the_end(states: list[int], random: Random) -> None:
    once = [change("m", states[0], rank=CREATED), *changes(states, random)]
    again = replace(random.choice(once[1:]), event_id="n", before=None)
    ordered = canonical(shuffled([*once, again], random))
    assert amounts(ordered)[-1] == states[-1]
    assert followed(ordered) >= len(once) - 1


def test_a_chain_doubled_in_part_keeps_its_flaps() -> None:
    """The way there is 1, 2, 3, 4, 1, 5, with its first two steps reported twice."""
    events = [change("m", 1, at=EARLIER), *changes([1, 2, 3, 4, 1, 5], Random(3))]
    for ids in (("a", "b"), ("x", "y"), ("y", "a")):
        again = [replace(event, event_id=i) for event, i in zip(events[1:3], ids, strict=True)]
        ordered = canonical([*again, *events])
        assert list(dict.fromkeys(amounts(ordered))) == [1, 2, 3, 4, 5]
        assert not is_undecided(ordered)


def test_twenty_thousand_changes_of_one_second_are_followed() -> None:
    """Far too many to compare each with each."""
    random = Random(1)
    repeated = [random.randint(1, 3) for _ in range(20_001)]
    for states in (range(20_001), repeated):
        events = [change("m", states[0], at=EARLIER), *changes(states, random)]
        ordered = canonical(shuffled(events, random))
        assert followed(ordered) == len(events) - 1
        assert amounts(ordered)[-1] == states[-1]


@given(
    st.none() | st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=6, unique=True),
    st.lists(st.integers(1, 4), max_size=2),
    shuffles,
)
def test_no_order_follows_more_causes(
    known: int | None, steps: list[tuple[int, int]], notes: list[int], random: Random
) -> None:
    steps = steps[: 6 - len(notes)]
    ids = random.sample(range(100), 6)
    events = [
        change(f"{i:02d}", new, old)
        for i, (old, new) in zip(ids, [*steps, *((None, note) for note in notes)], strict=False)
    ]
    first = [] if known is None else [change("m", known, at=EARLIER)]
    best = max(followed([*first, *order]) for order in permutations(events))
    assert followed(canonical([*first, *events])) == best


# What a link is


def test_a_change_of_one_field_is_enough_to_follow() -> None:
    first = change("b", 1)
    missed = replace(first, data=replace(first.data, declined=True))  # and something undid it, unreported
    assert amounts(canonical([change("a", 2, 1), missed])) == [1, 2]


def test_a_state_that_was_left_already_is_followed_by_no_similar_change() -> None:
    """The change of status found 2 seats, but only the events from 1 seat to the end lead there."""
    ended = replace(state(2), status="past_due")
    odd = replace(change("a", 2), data=ended, before=json.encode(replace(state(1), declined=True)))
    late = replace(change("b", 2, 1), data=replace(state(2), declined=True))
    assert canonical([change("m", 1, at=EARLIER), odd, late])[1] == late


def test_each_kind_of_data_follows_its_own_earlier_state() -> None:
    """A payment stands between the two seconds of an invoice that is closed and opened again."""
    open_ = Invoice(invoice_id="in_1", status="open", currency="usd", amount_due=700, created_at=EARLIER)
    given_up = replace(open_, status="uncollectible")
    payment = Payment(payment_id="pi_1", status="failed", currency="usd", amount=700, invoice_id="in_1")
    event = change("m", 1, at=EARLIER)
    before = [replace(event, data=open_), replace(event, event_id="n", data=payment)]
    closed = replace(event, event_id="z", occurred_at=NOW, data=given_up, before=json.encode(open_))
    opened = replace(event, event_id="a", occurred_at=NOW, data=open_, before=json.encode(given_up))
    for order in permutations([*before, closed, opened]):
        assert canonical(order)[2:] == [closed, opened]


# Without links


@given(st.permutations([(rank, name) for rank in (CREATED, UPDATED, DELETED) for name in "abc"]))
def test_without_links_rank_decides_and_then_the_id(places: list[tuple[int, str]]) -> None:
    events = [
        change(f"{name}{rank}", 10 * rank + ord(name), before, rank)
        for (rank, name), before in zip(places, [900, *[None] * 8], strict=True)
    ]
    assert [(e.rank, e.event_id[0]) for e in canonical(events)] == sorted(places)


@given(st.integers(0, 20), shuffles)
def test_a_deletion_stays_last_though_a_chain_leads_to_it(count: int, random: Random) -> None:
    chain = changes(range(1, count + 3), random)
    chain[-1] = replace(chain[-1], rank=DELETED)
    stray = change(random.choice(("0", "~")), 500, 400)
    events = [change("m", 1, rank=CREATED), *chain, stray]
    ordered = canonical(shuffled(events, random))
    assert (ordered[0], ordered[-1]) == (events[0], chain[-1])


def test_an_update_that_found_the_deleted_state_follows_it() -> None:
    deleted, updated = change("z", 2, 1, rank=DELETED), change("a", 3, 2)
    assert canonical([updated, deleted]) == [deleted, updated]


def test_a_paid_invoice_that_opens_again_in_the_same_second_is_open() -> None:
    paid = change("z", 2, 1, rank=INVOICE_RANK["paid"])
    opened = change("a", 1, 2, rank=INVOICE_RANK["open"])
    first = change("m", 1, rank=INVOICE_RANK["open"])
    for order in permutations([paid, opened, first]):
        assert canonical(order) == [first, paid, opened]


# Certainty


def test_a_state_that_only_ids_put_last_is_undecided_whatever_the_ids() -> None:
    first = change("0", 1, rank=CREATED)
    for other in ("a", "z"):
        assert is_undecided([first, change("m", 200), change("n", 500, 200), change(other, 300)])
        assert is_undecided([first, change("m", 200), change(f"{other}2", 200), change("n", 300)])
        assert is_undecided([first, change("m", 200, 1), change(other, 300, 299)])
    assert not is_undecided([first, change("z", 200, 1), change("a", 500, 200)])
    assert not is_undecided([first, change("z", 200), change("a", 200)])
    assert not is_undecided([first, change("m", 200), change("a", 300, rank=DELETED)])


@given(st.lists(st.integers(1, 9), min_size=2, max_size=9, unique=True), shuffles)
def test_a_circuit_is_decided_only_where_its_beginning_is_known(states: list[int], random: Random) -> None:
    circuit = changes([*states, states[0]], random)
    assert is_undecided(circuit)
    assert is_undecided([change("m", 77, at=EARLIER), *circuit])
    for beginning in (change("m", states[0], at=EARLIER), change("m", states[0], rank=CREATED)):
        ordered = canonical([beginning, *circuit])
        assert amounts(ordered) == [*states, states[0]]
        assert not is_undecided(ordered)


def test_a_return_from_a_state_that_no_event_reports_is_undecided() -> None:
    """Whether 2 came back before or after 3 is unknown."""
    events = [change("m", 1, at=EARLIER), change("a", 2, 1), change("b", 2, 50), change("c", 3, 2)]
    assert is_undecided(events)
    assert not is_undecided([events[0], events[1], events[3]])


def test_states_of_other_kinds_make_no_moment_undecided() -> None:
    invoice = Invoice(invoice_id="in_1", status="open", currency="usd", amount_due=700, created_at=NOW)
    events = [change("m", 1), replace(change("n", 1), data=invoice)]
    assert not is_undecided(events)
    assert not undecided_moments(canonical(events), Invoice)
