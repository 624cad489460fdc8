"""Canonical order: from what events say, never from when or how often they arrived.

By (when it happened, cause, lifecycle rank, event id). A processor's clock may be coarse (Stripe's
`created` is in whole seconds, and Stripe says not to order by it), so within one moment an event
follows the one whose data is what it says was there before.
"""

from collections.abc import Iterable
from itertools import groupby

from msgspec import json
from msgspec.structs import fields

from service.core.events import Event

_BEAM = 64  # partial orders kept while a moment's events are chained; exact up to six of them


def canonical(history: Iterable[Event]) -> list[Event]:
    """The events of one history in canonical order; the same for any order of the input."""
    ordered: list[Event] = []
    by_rank = sorted(history, key=lambda e: (e.occurred_at, e.rank, e.event_id))
    for _, moment in groupby(by_rank, key=lambda e: e.occurred_at):
        events = list(moment)
        if len(events) > 1 and any(e.before for e in events):
            events = _chain(ordered[-1] if ordered else None, events)
        ordered += events
    return ordered


def tied(first: Event, second: Event) -> bool:
    """Whether only their ids put `second` after `first`: one moment and rank, no link, other data."""
    same = (first.occurred_at, first.rank) == (second.occurred_at, second.rank)
    return same and first.data != second.data and not _link(first, second)


def _chain(previous: Event | None, moment: list[Event]) -> list[Event]:
    """`moment` in the order with the most causal links; ties keep the order given."""
    links = {
        (a, b): _link(first, second) for a, first in enumerate(moment) for b, second in enumerate(moment)
    }
    links |= {(-1, b): _link(previous, second) for b, second in enumerate(moment)}
    paths: list[tuple[int, tuple[int, ...]]] = [(0, ())]
    for _ in moment:
        best: dict[tuple[frozenset[int], int], tuple[int, tuple[int, ...]]] = {}
        for cost, path in paths:
            for i in range(len(moment)):
                if i not in path:
                    longer = (cost - links[path[-1] if path else -1, i], (*path, i))
                    end = (frozenset(longer[1]), i)
                    best[end] = min(best.get(end, longer), longer)
        paths = sorted(best.values())[:_BEAM]
    return [moment[i] for i in paths[0][1]]


def _link(first: Event | None, second: Event) -> int:
    """How well `second` follows `first`.

    4 if it found all as `first` left it, 2 if only what it changed was so, 1 if it tells the same state
    again (a fact told by two events, between which nothing else happened), else 0.
    """
    if first is None or type(first.data) is not type(second.data):
        return 0
    if second.before is not None:
        before = json.decode(second.before, type=type(second.data))
        if first.data == before:
            return 4
        changed = [f.name for f in fields(before) if getattr(before, f.name) != getattr(second.data, f.name)]
        if changed and all(getattr(first.data, f) == getattr(before, f) for f in changed):
            return 2
    return int(first.data == second.data)
