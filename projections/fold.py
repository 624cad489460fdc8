"""Stages of a book folded in memory, over histories that grow from moment to moment.

The engine's way, without its tables: a history contributes rows, and a later stage reads the rows of one
parent key. Of each moment only the difference to the one before is kept.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal, NamedTuple

from projections.book import Book, Row, Rules, Stage
from service.core.events import Event

AS_STORED = -1  # the moment of what is stored, before all others
_KEYS_AT_ONCE = 100  # parent keys whose stored rows are asked for at once


class Move(NamedTuple):
    """A row that is there from a moment on (`sign` 1), or no longer (-1)."""

    moment: int
    row: Row
    sign: Literal[1, -1]


# Rows of these parent keys that a stage reads beside the folded ones, each with the key that contributed it.
Stored = Callable[[Stage, Sequence[str]], Iterable[tuple[str, Row]]]


class Fold:
    """The rows that some histories, and the rows stored of all others, make in some stages of a book.

    First `read` every history, then `read_rows` once.
    """

    def __init__(self, stages: Sequence[Stage], rules: Rules) -> None:
        self._stages = stages
        self._rules = rules
        self._moves: dict[type[Row], list[Move]] = defaultdict(list)
        self._contributors: dict[type[Row], set[str]] = defaultdict(set)

    def moves(self, row_type: type[Row]) -> Sequence[Move]:
        """How the rows of a type came and went; those of one contributor in the order of the moments."""
        return self._moves[row_type]

    def read(self, name: str, history: Iterable[tuple[int, Sequence[Event]]]) -> None:
        """Read a history: its events in canonical order, at each moment at which they are others."""
        states = list(history)
        for stage in self._stages:
            if isinstance(stage.reads, str) and name.startswith(f"{stage.reads}|"):
                self._contribute(stage, name, states)

    def read_rows(self, stored: Stored = lambda _stage, _keys: ()) -> None:
        """Run the stages that read rows. What is `stored` of a key that contributed here is left out."""
        for stage in self._stages:
            if not isinstance(stage.reads, str):
                children = self._children(stage.reads)
                keys = sorted(children)
                for start in range(0, len(keys), _KEYS_AT_ONCE):
                    self._read_children(stage, children, keys[start : start + _KEYS_AT_ONCE], stored)

    def _children(self, row_types: Iterable[type[Row]]) -> dict[str, list[Move]]:
        """The moves of the rows that have a parent key, by that key."""
        children: dict[str, list[Move]] = defaultdict(list)
        for row_type in row_types:
            for move in self._moves[row_type]:
                if move.row.parent_key:
                    children[move.row.parent_key].append(move)
        return children

    def _read_children(
        self, stage: Stage, children: Mapping[str, Sequence[Move]], keys: Sequence[str], stored: Stored
    ) -> None:
        others: dict[str, list[Row]] = defaultdict(list)
        for contributor, row in stored(stage, keys):
            if contributor not in self._contributors[type(row)]:
                others[row.parent_key].append(row)
        for key in keys:
            self._contribute(stage, key, _states(others[key], children[key]))

    def _contribute(self, stage: Stage, key: str, states: Iterable[tuple[int, Sequence[Any]]]) -> None:
        """Add the moves of the rows that a stage contributes from a key at each moment."""
        for row_type in stage.rows:
            self._contributors[row_type].add(key)
        before: dict[Row, None] = {}
        for moment, state in states:
            now = dict.fromkeys(stage.contribute(state, self._rules))
            moves = [Move(moment, row, -1) for row in before if row not in now]
            moves += [Move(moment, row, 1) for row in now if row not in before]
            for move in moves:
                self._moves[type(move.row)].append(move)
            before = now


def stages_to(book: Book, row_type: type[Row]) -> list[Stage]:
    """The stages of a book on which its rows of a type depend, in order."""
    wanted, stages = {row_type}, []
    for stage in reversed(book.stages):
        if wanted.intersection(stage.rows):
            wanted.update(() if isinstance(stage.reads, str) else stage.reads)
            stages.append(stage)
    return stages[::-1]


def _states(others: Iterable[Row], moves: Iterable[Move]) -> Iterator[tuple[int, list[Row]]]:
    """The rows of one parent key at each moment at which they are others, first as they are stored."""
    by_moment: dict[int, list[Move]] = defaultdict(list, {AS_STORED: []})
    for move in moves:
        by_moment[move.moment].append(move)
    rows = Counter(others)
    for moment, same in sorted(by_moment.items(), key=itemgetter(0)):
        for move in same:
            rows[move.row] += move.sign
        yield moment, list(rows.elements())
