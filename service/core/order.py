"""Canonical order: from what events say, never from when or how often they arrived.

By (when it happened, cause, lifecycle rank, event id). A processor's clock may be coarse (Stripe's
`created` is in whole seconds, and Stripe says not to order by it), so within one moment an event
follows the one whose data is what it says was there before.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby

from msgspec import json
from msgspec.structs import fields

from service.core.events import Data, Event, Superseded, original_id

_EXACT = 8  # so many events of one moment are put in the best of all orders; more, link by link


def canonical(history: Iterable[Event]) -> list[Event]:
    """The events of one history that count, in canonical order; the same for any order of the input.

    A revision has the place of the event that it revises.
    """
    ordered: list[Event] = []
    by_rank = sorted(standing(history), key=lambda e: (e.occurred_at, e.rank, original_id(e.event_id)))
    for _, moment in groupby(by_rank, key=lambda e: e.occurred_at):
        events = list(moment)
        if len(events) > 1 and any(e.before for e in events):
            events = _chain(ordered[-1] if ordered else None, events)
        ordered += events
    return ordered


def standing(history: Iterable[Event]) -> list[Event]:
    """The events of one history without those that another of them supersedes, and without what says so."""
    events = list(history)
    gone = {event.data.event_id for event in events if isinstance(event.data, Superseded)}
    if not gone:
        return events
    return [e for e in events if e.event_id not in gone and not isinstance(e.data, Superseded)]


def undecided(rivals: Sequence[Event], last: Event) -> bool:
    """Whether nothing but ids says that `last` is the last of the events of its moment and rank.

    So it is if another of them, with other data, is followed by none either.
    """
    return any(
        rival.data != last.data and not any(_link(rival, other) for other in rivals if other is not rival)
        for rival in rivals
    )


def _chain(previous: Event | None, moment: list[Event]) -> list[Event]:
    """`moment` in the order with the most causal links; ties keep the order given."""
    links = {(-1, b): _link(previous, second) for b, second in enumerate(moment)}
    links |= {
        (a, b): _link(first, second) for a, first in enumerate(moment) for b, second in enumerate(moment)
    }
    order = _best(links, len(moment)) if len(moment) <= _EXACT else _greedy(links, len(moment))
    return [moment[i] for i in order]


Links = dict[tuple[int, int], int]  # how well the second follows the first; -1 is what came before them all


def _best(links: Links, count: int) -> tuple[int, ...]:
    """The best of all orders, found by what is used up and what is last (Held and Karp)."""
    paths: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {(0, -1): (0, ())}
    for _ in range(count):
        longer: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {}
        for (used, last), (cost, path) in paths.items():
            for i in range(count):
                if not used >> i & 1:
                    end, found = (used | 1 << i, i), (cost - links[last, i], (*path, i))
                    longer[end] = min(longer.get(end, found), found)
        paths = longer
    return min(paths.values())[1]


def _greedy(links: Links, count: int) -> list[int]:
    """Each time what follows best; the order given where nothing does."""
    left, order = list(range(count)), [-1]
    while left:
        order.append(max(left, key=lambda i: (links[order[-1], i], -i)))
        left.remove(order[-1])
    return order[1:]


def _link(first: Event | None, second: Event) -> int:
    """How well `second` follows `first`.

    4 if it found all as `first` left it, 2 if only what it changed was so, 1 if it tells the same state
    again (a fact told by two events, between which nothing else happened), else 0.
    """
    if first is None or type(first.data) is not type(second.data):
        return 0
    if second.before is not None:
        before = _before(type(second.data), second.before)
        if first.data == before:
            return 4
        changed = [f.name for f in fields(before) if getattr(before, f.name) != getattr(second.data, f.name)]
        if changed and all(getattr(first.data, f) == getattr(before, f) for f in changed):
            return 2
    return int(first.data == second.data)


@lru_cache(maxsize=256)  # each of a moment's events is compared with every other
def _before(kind: type[Data], before: bytes) -> Data:
    return json.decode(before, type=kind)
