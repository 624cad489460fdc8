"""Canonical order: from what events say, whatever order they come in."""

from datetime import UTC, datetime
from itertools import permutations
from random import Random

from msgspec import json
from msgspec.structs import replace

from service.core.events import CREATED, DELETED, Event, Item, Subscription
from service.core.order import canonical, is_order_undecided

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def state(amount: int) -> Subscription:
    return Subscription(
        subscription_id="sub_1",
        customer_id="cus_1",
        status="active",
        currency="usd",
        items=(Item(interval="month", unit_amount=amount),),
    )


def change(event_id: str, amount: int, before: int | None = None, rank: int = 1) -> Event:
    """An event of one and the same second."""
    was = None if before is None else json.encode(state(before))
    return Event(
        processor="stripe", event_id=event_id, occurred_at=NOW, rank=rank, data=state(amount), before=was
    )


def amounts(events: list[Event]) -> list[int]:
    return [int(event.data.items[0].unit_amount) for event in events]


def test_within_a_second_each_event_follows_what_it_found() -> None:
    for names in permutations("abcd"):
        events = [
            change(names[0], 1, rank=CREATED),
            change(names[1], 2, 1),
            change(names[2], 3, 2),
            change(names[3], 1, 3),
        ]
        for order in permutations(events):
            assert amounts(canonical(order)) == [1, 2, 3, 1]


def test_a_change_of_one_field_is_enough_to_follow() -> None:
    first = change("b", 1)
    missed = replace(first, data=replace(first.data, declined=True))  # and something undid it, untold
    assert amounts(canonical([change("a", 2, 1), missed])) == [1, 2]


def test_without_causes_rank_decides_and_then_the_id() -> None:
    events = [change("c", 3, rank=DELETED), change("b", 2), change("a", 4), change("d", 1, rank=CREATED)]
    for order in permutations(events):
        assert amounts(canonical(order)) == [1, 4, 2, 3]


def test_a_long_chain_of_one_moment_is_followed_link_by_link() -> None:
    events = [
        change("z", 0, rank=CREATED),
        *(change(f"{(n * 37) % 400:03d}", n, n - 1) for n in range(1, 300)),
    ]
    Random(1).shuffle(events)
    assert amounts(canonical(events)) == list(range(300))


def test_a_state_that_only_ids_put_last_is_undecided_whatever_the_ids() -> None:
    for other in ("a", "z"):
        moment = [change("m", 200), change("n", 500, 200), change(other, 300)]
        last = canonical([change("0", 1, rank=CREATED), *moment])[-1]
        assert is_order_undecided(moment, last)
    chained = [change("z", 200, 1), change("a", 500, 200)]
    assert not is_order_undecided(chained, canonical([change("0", 1, rank=CREATED), *chained])[-1])
