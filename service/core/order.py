"""Canonical order: computed from the events' content, never from when or how often they arrived.

Events are ordered by (time, causal link, lifecycle rank, event id). A processor's clock may be coarse
(Stripe's `created` is in whole seconds, and Stripe advises against ordering by it), so within one
moment an event follows the event whose data equals its `before`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any

from msgspec import json

from service.core.events import Data, Event, Superseded, original_id
from service.core.trails import Steps, Trail, trails, unlink_copies


def canonical(history: Iterable[Event]) -> list[Event]:
    """The effective events of one history in canonical order; the order of the input does not matter.

    A revision takes the place of the event that it revises.
    """
    ordered: list[Event] = []
    latest: dict[type[Data], Data] = {}  # the last state of each kind of data
    by_rank = sorted(effective_events(history), key=_place)
    for _, events in groupby(by_rank, key=lambda e: e.occurred_at):
        moment = list(events)
        if len(moment) > 1 and any(event.before for event in moment):
            moment = _order_by_links(list(latest.values()), moment)
        ordered += moment
        latest.update((type(event.data), event.data) for event in moment)
    return ordered


def effective_events(history: Iterable[Event]) -> list[Event]:
    """The events of one history without the superseded ones and the `Superseded` events themselves."""
    events = list(history)
    superseded_ids = {event.data.event_id for event in events if isinstance(event.data, Superseded)}
    if not superseded_ids:
        return events
    return [e for e in events if e.event_id not in superseded_ids and not isinstance(e.data, Superseded)]


def undecided_moments(history: Sequence[Event], kind: type[Data]) -> set[datetime]:
    """The moments of a history, in canonical order, at whose end the state of this kind is not certain.

    That is so if only the event ids decide which state is the last one, or if one returned to an earlier
    state from a state that no event reports.
    """
    undecided: set[datetime] = set()
    known: list[Data] = []
    of_kind = [event for event in history if isinstance(event.data, kind)]
    for time, events in groupby(of_kind, key=lambda e: e.occurred_at):
        moment = list(events)
        if len(moment) > 1 and _is_undecided(known, sorted(moment, key=_place)):
            undecided.add(time)
        known = [moment[-1].data]
    return undecided


def _place(event: Event) -> tuple[datetime, int, str]:
    return event.occurred_at, event.rank, original_id(event.event_id)


def _order_by_links(latest: list[Data], moment: list[Event]) -> list[Event]:
    """The events of one moment, trail by trail.

    An event of a higher rank stands after all of lower ranks but those that follow it on its trail, so a
    deletion stays last.
    """
    from_known, others = trails(_steps(latest, moment)[0])
    places = []
    for number, trail in enumerate([*from_known, *others]):
        ranks = accumulate((moment[i].rank for i in reversed(trail)), min)
        places += [(rank, number, -n, trail[-1 - n]) for n, rank in enumerate(ranks)]
    return [moment[i] for *_, i in sorted(places)]


def _is_undecided(latest: list[Data], moment: list[Event]) -> bool:
    """Whether trails of the highest rank end in several states, or one may end elsewhere."""
    steps, doubtful = _steps(latest, moment)
    rank = max(event.rank for event in moment)
    from_known, others = (
        [trail for trail in found if moment[trail[-1]].rank == rank] for found in trails(steps)
    )
    last_ones = {trail[-1] for trail in (*from_known, *others)}
    later = [*from_known, *(trail[1:] for trail in others)]  # an event may begin its trail without doubt
    ends = {steps.states[i] for i in last_ones.union(*(doubtful.intersection(trail) for trail in later))}
    return len(ends) > 1 or any(_may_begin_elsewhere(steps, moment, trail) for trail in others)


def _may_begin_elsewhere(steps: Steps, moment: list[Event], trail: Trail) -> bool:
    """Whether a trail is a circuit, and only the ids decide at which of its states it begins and ends."""
    taken = [i for i in trail if steps.sources[i] is not None]
    if not taken or steps.sources[taken[0]] != steps.states[taken[-1]]:
        return False

    def beginning(i: int) -> tuple[bool, int]:
        return steps.sources[i] is None, moment[i].rank

    return len({steps.states[i] for i in trail if beginning(i) == beginning(trail[0])}) > 1


def _steps(latest: list[Data], moment: list[Event]) -> tuple[Steps, set[int]]:
    """The events of one moment as steps, and the notes among them that may be steps which end the moment.

    An event's source is the state that equals its `before`, else one that does in the fields that the
    event changed.
    """
    numbers: dict[Data, int] = {}
    known = [numbers.setdefault(data, len(numbers)) for data in latest]
    states = [numbers.setdefault(event.data, len(numbers)) for event in moment]
    befores = {i: json.decode(e.before, type=type(e.data)) for i, e in enumerate(moment) if e.before}
    sources = [numbers.get(befores[i]) if i in befores else None for i in range(len(moment))]
    unused = Counter([*known, *states])
    unused.subtract(source for source in sources if source is not None)
    similar = _SimilarStates(list(numbers), unused)
    for i, before in befores.items():
        if sources[i] is None:
            sources[i] = similar.find(before, moment[i].data)
    steps = Steps(sources=sources, states=states, known=known, kinds=[type(data) for data in numbers])
    gaps = {i for i in befores if sources[i] is None}
    return steps, gaps | unlink_copies(steps)


class _SimilarStates:
    """States by some of their fields. `unused`: how many more events come to each state than leave it."""

    def __init__(self, states: list[Data], unused: Counter[int]) -> None:
        self._states = states
        self._unused = unused
        self._index: dict[object, dict[object, list[int]]] = {}

    def find(self, before: Data, data: Data) -> int | None:
        """The number of a state that equals `before` where `data` differs from it, and is unused."""
        changed = [name for name in data.__struct_fields__ if getattr(before, name) != getattr(data, name)]
        values = attrgetter(*changed)
        key = (type(data), *changed)
        if key not in self._index:
            self._index[key] = self._by_values(type(data), values)
        found = self._index[key].get(values(before), [])
        while found and self._unused[found[-1]] <= 0:
            found.pop()
        self._unused.subtract(found[-1:])
        return found[-1] if found else None

    def _by_values(self, kind: type[Data], values: Any) -> dict[object, list[int]]:
        """The numbers of the states of one kind by these values, the first one last."""
        by_values: dict[object, list[int]] = defaultdict(list)
        for number in reversed(range(len(self._states))):
            if type(self._states[number]) is kind:
                by_values[values(self._states[number])].append(number)
        return by_values
