"""Canonical order: computed from the events' content, never from when or how often they arrived.

Events are ordered by (time, causal link, lifecycle rank, event id). A processor's clock may be coarse
(Stripe's `created` is in whole seconds, and Stripe advises against ordering by it), so within one
moment an event follows the event whose data equals its `before`.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby

from msgspec import json
from msgspec.structs import fields

from service.core.events import Data, Event, Superseded, original_id

_MAX_EXACT = 8  # up to so many events of one moment the best of all orders is found; above, a greedy one


def canonical(history: Iterable[Event]) -> list[Event]:
    """The effective events of one history in canonical order; the order of the input does not matter.

    A revision takes the place of the event that it revises.
    """
    ordered: list[Event] = []
    by_rank = sorted(
        effective_events(history), key=lambda e: (e.occurred_at, e.rank, original_id(e.event_id))
    )
    for _, moment in groupby(by_rank, key=lambda e: e.occurred_at):
        events = list(moment)
        if len(events) > 1 and any(e.before for e in events):
            events = _order_by_links(ordered[-1] if ordered else None, events)
        ordered += events
    return ordered


def effective_events(history: Iterable[Event]) -> list[Event]:
    """The events of one history without the superseded ones and the `Superseded` events themselves."""
    events = list(history)
    superseded_ids = {event.data.event_id for event in events if isinstance(event.data, Superseded)}
    if not superseded_ids:
        return events
    return [e for e in events if e.event_id not in superseded_ids and not isinstance(e.data, Superseded)]


def is_order_undecided(candidates: Sequence[Event], last: Event) -> bool:
    """Whether only the event ids make `last` the last of `candidates`, the events of its moment and rank.

    That is so if another candidate with different data has no causal successor among them either.
    """
    return any(
        candidate.data != last.data
        and not any(_link_strength(candidate, other) for other in candidates if other is not candidate)
        for candidate in candidates
    )


def _order_by_links(previous: Event | None, moment: list[Event]) -> list[Event]:
    """The events of one moment in the order with the strongest causal links; ties keep the order given."""
    links = {(-1, b): _link_strength(previous, second) for b, second in enumerate(moment)}
    links |= {
        (a, b): _link_strength(first, second)
        for a, first in enumerate(moment)
        for b, second in enumerate(moment)
    }
    order = (
        _exact_order(links, len(moment)) if len(moment) <= _MAX_EXACT else _greedy_order(links, len(moment))
    )
    return [moment[i] for i in order]


Links = dict[tuple[int, int], int]  # strength of (first, second) by index; -1 is the last earlier event


def _exact_order(links: Links, count: int) -> tuple[int, ...]:
    """The order with the strongest links of all, by dynamic programming over (used events, last event).

    This is the algorithm of Held and Karp.
    """
    paths: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {(0, -1): (0, ())}
    for _ in range(count):
        longer: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {}
        for (used, last), (cost, path) in paths.items():
            for i in range(count):
                if not used >> i & 1:
                    end, candidate = (used | 1 << i, i), (cost - links[last, i], (*path, i))
                    longer[end] = min(longer.get(end, candidate), candidate)
        paths = longer
    return min(paths.values())[1]


def _greedy_order(links: Links, count: int) -> list[int]:
    """Always the event with the strongest link to the previous one; without links the order given."""
    remaining, order = list(range(count)), [-1]
    while remaining:
        order.append(max(remaining, key=lambda i: (links[order[-1], i], -i)))
        remaining.remove(order[-1])
    return order[1:]


def _link_strength(first: Event | None, second: Event) -> int:
    """The strength of the causal link from `first` to `second`.

    4 if the `before` of `second` equals the data of `first`, 2 if it does in the fields that `second`
    changed, 1 if both have equal data (one fact reported by two events), else 0.
    """
    if first is None or type(first.data) is not type(second.data):
        return 0
    if second.before is not None:
        before = _decode_before(type(second.data), second.before)
        if first.data == before:
            return 4
        changed = [f.name for f in fields(before) if getattr(before, f.name) != getattr(second.data, f.name)]
        if changed and all(getattr(first.data, f) == getattr(before, f) for f in changed):
            return 2
    return int(first.data == second.data)


@lru_cache(maxsize=256)  # each event of a moment is compared with every other one
def _decode_before(kind: type[Data], before: bytes) -> Data:
    return json.decode(before, type=kind)
