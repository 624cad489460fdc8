"""Folds of histories that are kept in memory, and go on with later events in place of reading all again.

What a kept fold gives is what folding the whole history anew gives, or it does not go on.
"""

from collections.abc import Sequence

from projections.book import HistoryFold, Row, Rules, Stage
from projections.histories import History
from service.core.events import Event

MOST_KEPT = 20_000  # states of contracts, some 25 MB


class LaterEvents(list[Event]):
    """The events of a history after those that its kept folds have read, in canonical order."""


class KeptFolds:
    """The folds of those histories that had events last, up to some size together.

    They hold at one place: the position up to which they have read, and what else decides what they read.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._folds: dict[str, dict[tuple[Stage, Rules], HistoryFold]] = {}  # which had events last is last
        self._size = 0
        self._place: object = None

    def __contains__(self, name: str) -> bool:
        return name in self._folds

    def leave(self, place: object) -> None:
        """Begin to read on from a place; forget all folds if they hold at another one."""
        if place != self._place:
            self._folds.clear()
            self._size = 0
        self._place = None  # until all of them have read on

    def arrive(self, place: object) -> None:
        """All folds hold at a place now; forget the oldest of them beyond the size."""
        self._place = place
        while self._size > self._most:
            self.forget(next(iter(self._folds)))

    def forget(self, name: str) -> None:
        """Forget the folds of a history."""
        self._size -= sum(fold.size for fold in self._folds.pop(name, {}).values())

    def go_on(self, name: str, later: Sequence[Event]) -> bool:
        """Whether the folds of a history are kept, and go on with later events."""
        folds = self._folds.get(name, {})
        return bool(folds) and all(fold.goes_on(later) for fold in folds.values())

    def make_rows(self, stage: Stage, rules: Rules, name: str, events: Sequence[Event]) -> list[Row]:
        """The rows of a history of which all events are given, or the later ones with which it goes on."""
        folds = self._folds[name] = self._folds.pop(name, {})
        fold = folds.pop((stage, rules), None)
        self._size -= fold.size if fold else 0
        if fold and isinstance(events, LaterEvents):
            fold.read_on(events)
        else:
            assert stage.fold is not None  # noqa: S101 - by `HistoryRows`
            fold = stage.fold(events, rules)
        if not (isinstance(events, History) and events.has_superseded):  # which may come after its superseder
            folds[stage, rules] = fold
            self._size += fold.size
        return fold.rows()
