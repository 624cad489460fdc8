"""Which events a book can't be made from: the first one with which its fold fails, and its histories."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from projections.book import Book, Rules, Total
from projections.fold import (
    FoldError,
    HistoryRows,
    MemoryRows,
    Stored,
    Sums,
    check_gross,
    fold,
    new_sums,
    ordered,
    sum_changes,
)
from service.core.events import Event

Placed = Mapping[str, Sequence[tuple[int, Event]]]  # events with their positions, by history
_Fold = Callable[[Mapping[str, Sequence[Event]]], None]


def find_first_unread(
    placed: Placed,
    book: Book,
    rules: Rules,
    stored: Stored = lambda _row_type, _column, _keys: (),
    stored_gross: Callable[[Total], Sums] = new_sums,
) -> dict[str, int]:
    """The positions from which on histories must not be read, so that the book can be made; none if it can.

    The histories are folded in front of the `stored` rows, of which `stored_gross` gives the gross totals.
    They are found by halves: with all events before such a position the fold passes, and with the one there
    it fails.
    """
    rules = rules.with_policy(book.policy)
    gross = [(total, stored_gross(total)) for total in book.gross_totals]

    def run(histories: Mapping[str, Sequence[Event]]) -> None:
        contributed = HistoryRows(ordered(histories)).of(book.stages, rules)
        changes = fold(book.stages, contributed, MemoryRows(stored), rules)
        for total, sums in gross:
            check_gross(total, sums, sum_changes(total, changes))

    positions = sorted({position for events in placed.values() for position, _ in events})
    index = bisect_left(positions, True, key=lambda position: _fails(run, _up_to(placed, position)))
    if index == len(positions):
        return {}
    first = positions[index]
    before = _up_to(placed, first - 1)
    touched = [name for name, events in placed.items() if any(at == first for at, _ in events)]
    alone = [name for name in touched if _fails(run, {**before, **_up_to({name: placed[name]}, first)})]
    return dict.fromkeys(alone or touched, first)


def _up_to(placed: Placed, position: int) -> dict[str, list[Event]]:
    return {name: [event for at, event in events if at <= position] for name, events in placed.items()}


def _fails(run: _Fold, histories: Mapping[str, Sequence[Event]]) -> bool:
    try:
        run(histories)
    except FoldError:
        return True
    return False
