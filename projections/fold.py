"""The fold of the books: how rows follow from histories, stage by stage, wherever the rows are kept.

    contributed = HistoryRows(histories).of(book.stages, rules)
    changes = fold(book.stages, contributed, rows, rules)

A stage that reads histories contributes rows from each of them. A later stage contributes rows from what is
under each parent key of a row that changed. `rows` keep what each key has contributed: in the books' tables
(`service/books/rows.py`), or in memory, alone or in front of the tables (`MemoryRows`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from operator import attrgetter
from typing import Any, Literal, Protocol

from msgspec import Struct
from msgspec.structs import fields

from projections.book import Book, Row, Rules, Stage, Total
from projections.histories import History
from projections.kept import KeptFolds, LaterEvents
from service.core.errors import DaybookError
from service.core.events import Event
from service.core.order import canonical

# What a number in a row may be, and a gross total: a store has 64 bits, and PostgreSQL's workers, who don't
# see each other's last step, may together go somewhat beyond.
MAX_NUMBER = 2**62
_KEYS_AT_ONCE = 100
_NOT_OF_THE_INPUT = (MemoryError,)  # says nothing of what was folded

Rows = dict[Row, None]  # each row once
Contributed = Mapping[str, Rows]  # by the key that contributed them: a history's name, or a parent key
Sums = dict[tuple[Any, ...], list[int]]  # by group
KeyColumn = Literal["key", "parent_key"]
# Rows of a type with these keys in a column, each with the key that contributed it.
Stored = Callable[[type[Row], KeyColumn, Sequence[str]], Iterable[tuple[str, Row]]]


class FoldError(DaybookError):
    """A book's function raised something, given the history, or the rows of the parent key, `key`.

    The cause is what it raised, or an OverflowError for a number that is too large; `key` is empty where that
    is a sum over histories. `book` is the book's name, once it is known.
    """

    def __init__(self, key: str, is_of_history: bool) -> None:
        super().__init__(key, is_of_history)
        self.key = key
        self.is_of_history = is_of_history
        self.book = ""

    def __str__(self) -> str:
        return f"book {self.book} can't be made: {self.error}"

    @property
    def error(self) -> str:
        """The type of what was raised."""
        return type(self.__cause__).__name__


class RowChanges(Struct):
    """The rows that were removed from a book and added to it."""

    removed: list[Row]
    added: list[Row]

    def extend(self, later: "RowChanges") -> None:
        """Add later changes to these."""
        self.removed += later.removed
        self.added += later.added


class RowStore(Protocol):
    """The rows of a book, wherever they are kept."""

    def children(self, stage: Stage, keys: Sequence[str]) -> Iterator[dict[str, list[Row]]]:
        """The rows that a later stage reads under each of these parent keys, some keys at a time."""

    def replace(self, stage: Stage, contributed: Contributed) -> RowChanges:
        """Put a stage's rows in the place of all that it had contributed from the same keys."""


class ParentKeys:
    """The parent keys of some rows, by the rows' type."""

    def __init__(self) -> None:
        self._keys: dict[type[Row], set[str]] = defaultdict(set)

    def add(self, rows: Iterable[Row]) -> None:
        """Add the keys of these rows."""
        for row in rows:
            if row.parent_key:
                self._keys[type(row)].add(row.parent_key)

    def of(self, stage: Stage) -> list[str]:
        """The keys from which a later stage contributes, sorted."""
        return sorted({key for row_type in row_types_read(stage) for key in self._keys[row_type]})


class HistoryRows:
    """What some histories contribute. Books that share a stage, under the same rules, share its rows.

    `histories` are the events by the history's name, in canonical order. Those that are `LaterEvents` go on
    with `kept` folds.
    """

    def __init__(self, histories: Mapping[str, Sequence[Event]], kept: KeptFolds | None = None) -> None:
        self._histories = histories
        self._kept = kept
        self._contributed: dict[Rules, dict[Stage, Contributed]] = defaultdict(dict)

    def of(self, stages: Iterable[Stage], rules: Rules) -> dict[Stage, Contributed]:
        """The contributions of those of the stages that read histories."""
        contributed = self._contributed[rules]
        own = [stage for stage in stages if isinstance(stage.reads, str)]
        for stage in own:
            if stage not in contributed:
                make = partial(self._kept.make_rows, stage, rules) if self._kept and stage.fold else None
                contributed[stage] = contribute(stage, self._histories, rules, make)
        return {stage: contributed[stage] for stage in own}


class MemoryRows:
    """Rows in memory, in front of those that are `stored`: each is read there once, and never written."""

    def __init__(self, stored: Stored = lambda _row_type, _column, _keys: ()) -> None:
        self._stored = stored
        self._rows: dict[tuple[type[Row], str], Rows] = {}
        self._children: dict[tuple[type[Row], str], dict[tuple[str, Row], None]] = defaultdict(dict)
        self._parents: set[tuple[type[Row], str]] = set()  # whose rows are all in memory

    def children(self, stage: Stage, keys: Sequence[str]) -> Iterator[dict[str, list[Row]]]:
        """The rows under each of these parent keys, some keys at a time."""
        row_types = row_types_read(stage)
        for batch in key_batches(keys):
            for row_type in row_types:
                self._load_children(row_type, batch)
            yield {
                key: [row for row_type in row_types for _, row in self._children[row_type, key]]
                for key in batch
            }

    def replace(self, stage: Stage, contributed: Contributed) -> RowChanges:
        """Put these rows in the place of all that the stage had contributed from the same keys."""
        changes = RowChanges([], [])
        for row_type in stage.rows:
            self._load(row_type, contributed)
            for key, rows in contributed.items():
                changes.extend(self._put(row_type, key, {row: None for row in rows if type(row) is row_type}))
        return changes

    def _load_children(self, row_type: type[Row], keys: Iterable[str]) -> None:
        """Load all rows of every key that has contributed a row with one of these parent keys."""
        new = [key for key in keys if (row_type, key) not in self._parents]
        if new:
            self._load(row_type, {key for key, _ in self._stored(row_type, "parent_key", new)})
            self._parents.update((row_type, key) for key in new)

    def _load(self, row_type: type[Row], keys: Iterable[str]) -> None:
        loaded: dict[str, Rows] = {key: {} for key in keys if (row_type, key) not in self._rows}
        if loaded:
            for key, row in self._stored(row_type, "key", list(loaded)):
                loaded[key][row] = None
            for key, rows in loaded.items():
                self._put(row_type, key, rows)

    def _put(self, row_type: type[Row], key: str, rows: Rows) -> RowChanges:
        before, self._rows[row_type, key] = self._rows.get((row_type, key), {}), rows
        changes = RowChanges(
            removed=[row for row in before if row not in rows],
            added=[row for row in rows if row not in before],
        )
        for row in changes.removed:
            del self._children[row_type, row.parent_key][key, row]
        for row in changes.added:
            self._children[row_type, row.parent_key][key, row] = None
        return changes


def fold(
    stages: Iterable[Stage], contributed: Mapping[Stage, Contributed], rows: RowStore, rules: Rules
) -> RowChanges:
    """Run the stages of a book over what histories contributed; the changes of its rows.

    `rules` are those under the book's policy, `contributed` is of the stages that read histories.
    """
    changes, parents = RowChanges([], []), ParentKeys()
    for stage in stages:
        parts: Iterable[Contributed] = ()
        if isinstance(stage.reads, str):
            parts = filter(None, (contributed[stage],))
        elif keys := parents.of(stage):
            parts = (contribute(stage, children, rules) for children in rows.children(stage, keys))
        for part in parts:
            changed = rows.replace(stage, part)
            parents.add(changed.removed)
            parents.add(changed.added)
            changes.extend(changed)
    return changes


def contribute(
    stage: Stage,
    inputs: Mapping[str, Sequence[Any]],
    rules: Rules,
    make: Callable[[str, Sequence[Any]], list[Row]] | None = None,
) -> dict[str, Rows]:
    """The rows that a stage contributes from each input that it reads.

    `inputs` are histories in canonical order by name, of any kinds; for a later stage, rows by parent key.
    `make` makes the rows of an input, if the stage itself does not. Raises FoldError.
    """
    is_of_history = isinstance(stage.reads, str)
    prefix, contributed = f"{stage.reads}|" if is_of_history else "", {}
    for key, items in inputs.items():
        if key.startswith(prefix):
            try:
                rows = make(key, items) if make else stage.contribute(items, rules)
                contributed[key] = dict.fromkeys(rows)
                _check_numbers(contributed[key])
            except _NOT_OF_THE_INPUT:
                raise
            except Exception as error:
                raise FoldError(key, is_of_history) from error
    return contributed


def _check_numbers(rows: Iterable[Row]) -> None:
    """Raise OverflowError if a row holds a number that no store keeps."""
    for row in rows:
        for name in _number_fields(type(row)):
            if abs(getattr(row, name) or 0) > MAX_NUMBER:
                raise OverflowError(f"{row.table}.{name}")


@cache
def _number_fields(row_type: type[Row]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(row_type) if field.type in (int, int | None))


def ordered(histories: Mapping[str, Sequence[Event]]) -> dict[str, Sequence[Event]]:
    """The histories in canonical order, by name. Raises FoldError if one can't be ordered."""
    in_order: dict[str, Sequence[Event]] = {}
    for name, events in histories.items():
        try:
            in_order[name] = _ordered(events)
        except _NOT_OF_THE_INPUT:
            raise
        except Exception as error:
            raise FoldError(name, is_of_history=True) from error
    return in_order


def _ordered(events: Sequence[Event]) -> Sequence[Event]:
    effective = canonical(events)
    if isinstance(events, LaterEvents):
        return LaterEvents(effective)
    return History(effective, has_superseded=len(effective) < len(events))


def row_types_read(stage: Stage) -> tuple[type[Row], ...]:
    """The types of the rows that a stage reads; none if it reads histories."""
    return () if isinstance(stage.reads, str) else stage.reads


def stages_to(book: Book, row_type: type[Row]) -> list[Stage]:
    """The stages of a book on which its rows of a type depend, in order."""
    wanted, stages = {row_type}, []
    for stage in reversed(book.stages):
        if wanted.intersection(stage.rows):
            wanted.update(row_types_read(stage))
            stages.append(stage)
    return stages[::-1]


def key_batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """The keys, as many at a time as may be folded between two statements of a transaction."""
    return (keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE))


def new_sums(total: Total) -> Sums:
    """Sums of a total, all of them 0."""
    return defaultdict(partial(_zeros, len(total.sums)))


def _zeros(count: int) -> list[int]:
    return [0] * count


def add_rows_to_sums(sums: Sums, total: Total, rows: Iterable[Row], sign: Literal[1, -1] = 1) -> None:
    """Add the rows' measures to the sums of their groups; rows of other types don't count."""
    group_of = group_getter(total)
    for row in rows:
        for part in total.split(row) if type(row) is total.row_type else ():
            group_sums = sums[group_of(part)]
            for i, value in enumerate(total.measure(part)):
                group_sums[i] += sign * value


def group_getter(total: Total) -> Callable[[Any], tuple[Any, ...]]:
    """The function from a row, or a part of one, to the group of a total in which it counts."""
    getter = attrgetter(*total.group_by)
    return getter if len(total.group_by) > 1 else lambda row: (getter(row),)


def check_gross(total: Total, stored: Sums, added: Sums) -> None:
    """Raise FoldError if what is added to a gross total makes it too large."""
    for group, (cents,) in added.items():
        if cents > 0 and stored[group][0] + cents > MAX_NUMBER:
            raise FoldError("", is_of_history=False) from OverflowError(total.table)


def sum_changes(total: Total, changes: RowChanges) -> Sums:
    """What changes of rows add to the sums of a total."""
    sums = new_sums(total)
    add_rows_to_sums(sums, total, changes.removed, -1)
    add_rows_to_sums(sums, total, changes.added)
    return sums
