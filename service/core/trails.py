"""Trails: the steps of one moment, each from a state to a state, in an order in which one leads to the next.

States are nodes and steps are edges, so the order is an Euler path: it takes each step once, however often
a state returns. Hierholzer's algorithm finds it in time that grows like the number of steps.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable

from msgspec import Struct

_OUTSIDE = -1  # the node before the first state of a trail, and after its last one

Trail = list[int]  # steps by their numbers, in order
_Onward = dict[int, list[tuple[int, int | None]]]  # by node: the next nodes, with the step that leads there


class Steps(Struct, kw_only=True):
    """Steps in the order that decides where nothing else does. States are numbers.

    `sources` and `states`: the state before each step and the one after it. A step without a source is a
    note of its state. `known`: the states that held before the moment. `kinds`: the kind of each state.
    """

    sources: list[int | None]
    states: list[int]
    known: list[int]
    kinds: list[Hashable]


def trails(steps: Steps) -> tuple[list[Trail], list[Trail]]:
    """The trails that begin at a known state, and the others by their first steps; none is empty.

    A note stands where its state is first reached, but each trail that begins at a state of notes has one.
    """
    notes: dict[int, Trail] = defaultdict(list)
    for step, source in enumerate(steps.sources):
        if source is None:
            notes[steps.states[step]].append(step)
    starts = _starts_and_steps(steps, list(notes))
    heads = [[notes[start].pop()] if notes[start] else [] for start, _ in reversed(starts)]
    found: list[Trail] = []
    for (start, taken), head in zip(starts, reversed(heads), strict=True):
        trail = sorted([*head, *notes.pop(start, [])])
        for step in taken:
            trail += [step, *notes.pop(steps.states[step], [])]
        found.append(trail)
    count = len(steps.known)
    others = sorted([*found[count:], *notes.values()])
    return [trail for trail in found[:count] if trail], [trail for trail in others if trail]


def unlink_copies(steps: Steps) -> set[int]:
    """Turn steps that repeat another one into notes, where more steps leave a state than come to it.

    Two events report one fact then. They are found as a path of repeated steps, from that state to one to
    which more steps come than leave it. A kind that begins at no known state and no note stays as it is.
    Returns the last ones of these paths, if others could have been taken in their place.
    """
    missing = _missing_arrivals(steps)
    begun = _begun_kinds(steps, missing)
    copies = _copies(steps)
    targets = {steps.states[step] for repeated in copies.values() for step in repeated}
    last_ones: set[int] = set()
    for start in [state for state in missing if steps.kinds[state] in begun]:
        for _ in range(missing[start]):
            path = _path_of_copies(steps, copies, start, missing)
            for step in path:
                steps.sources[step] = None
            missing.subtract([start] if path else [])
            missing.update(steps.states[step] for step in path[-1:])
            last_ones.update(path[-1:])
    ends = {steps.states[step] for step in last_ones}
    others = {state for state in targets - ends if missing[state] < 0}
    return last_ones if others else set()


def _missing_arrivals(steps: Steps) -> Counter[int]:
    """By state: how many more steps leave it than come to it. Below 0, so many trails end there."""
    missing = Counter(dict.fromkeys(steps.known, -1))
    for source, state in zip(steps.sources, steps.states, strict=True):
        if source is not None:
            missing[source] += 1
            missing[state] -= 1
    return missing


def _begun_kinds(steps: Steps, missing: Counter[int]) -> set[Hashable]:
    """The kinds that begin at a known state or, without one, at a note, which counts as an arrival then."""
    begun = {steps.kinds[state] for state in set(steps.known) & {*steps.states, *steps.sources}}
    notes = [state for state, source in zip(steps.states, steps.sources, strict=True) if source is None]
    for state in sorted(notes, key=lambda state: missing[state] <= 0):
        if steps.kinds[state] not in begun:
            begun.add(steps.kinds[state])
            missing[state] -= 1
    return begun


def _copies(steps: Steps) -> dict[int, Trail]:
    """The steps from each state that repeat an earlier step."""
    seen: set[tuple[int, int]] = set()
    copies: dict[int, Trail] = defaultdict(list)
    for step, (source, state) in enumerate(zip(steps.sources, steps.states, strict=True)):
        if source is not None:
            if (source, state) in seen:
                copies[source].append(step)
            seen.add((source, state))
    return copies


def _path_of_copies(steps: Steps, copies: dict[int, Trail], start: int, missing: Counter[int]) -> Trail:
    """Copies that lead from `start` to a state where a trail ends, or none; taken out of `copies`."""
    path: Trail = []
    node, visited = start, {start}
    while missing[node] >= 0:
        if copies[node]:
            step = copies[node].pop()
            if steps.states[step] not in visited:
                node = steps.states[step]
                visited.add(node)
                path.append(step)
        elif path:
            path.pop()
            node = steps.states[path[-1]] if path else start
        else:
            break
    return path


def _starts_and_steps(steps: Steps, noted: list[int]) -> list[tuple[int, Trail]]:
    """Each trail's first state and its steps: from the known states, then from others, then circuits.

    A circuit begins at a state that has a note, else before its first step.
    """
    onward = _onward(steps)
    found: list[tuple[int, Trail]] = []
    for start in (_OUTSIDE, *noted, *(source for source in steps.sources if source is not None)):
        for node, step in _circuit(onward, start) if onward[start] else []:
            if step is None:
                found.append((node, []))
            else:
                found[-1][1].append(step)
    return [(start, taken) for start, taken in found if start != _OUTSIDE]


def _onward(steps: Steps) -> _Onward:
    """The ways from each node, the first one last, with as many to and from outside as make each end meet."""
    onward: _Onward = defaultdict(list)
    for state, count in _missing_arrivals(steps).items():
        for _ in range(abs(count)):
            source, target = (_OUTSIDE, state) if count > 0 else (state, _OUTSIDE)
            onward[source].append((target, None))
    onward[_OUTSIDE] += [(state, None) for state in reversed(steps.known)]
    for step, from_state in reversed(list(enumerate(steps.sources))):
        if from_state is not None:
            onward[from_state].append((steps.states[step], step))
    return onward


def _circuit(onward: _Onward, start: int) -> list[tuple[int, int | None]]:
    """The nodes of a circuit from `start` over all ways that hang together with it, taken out of `onward`.

    Each node stands with the step that leads to it. This is Hierholzer's algorithm.
    """
    way: list[tuple[int, int | None]] = [(start, None)]
    circuit = []
    while way:
        node, _ = way[-1]
        if onward[node]:
            way.append(onward[node].pop())
        else:
            circuit.append(way.pop())
    return circuit[::-1]
