"""A fault that verification found, and where."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from service.core.errors import Integrity

Values = tuple[Any, ...]


class Location(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The table of a fault; in it the position, the key (of a total, its group) and the columns, if known."""

    table: str
    position: int | None = None
    key: str | None = None
    columns: tuple[str, ...] = ()


class Fault(Integrity):
    """The first fault that a verification found, with its location in `where`."""

    def __init__(self, message: str, where: Location) -> None:
        columns = f" ({', '.join(where.columns)})" if where.columns else ""
        super().__init__(f"{message}{columns}")
        self.where = where


def differing_columns(
    names: Sequence[str], stored_rows: Iterable[Values], expected_rows: Iterable[Values]
) -> tuple[str, ...]:
    """The columns in which the two most similar rows of both sides differ.

    Empty if all rows that differ are on one side.
    """
    stored, expected = Counter(stored_rows), Counter(expected_rows)
    differences = [
        tuple(str(name) for name, a, b in zip(names, stored_row, expected_row, strict=True) if a != b)
        for stored_row in stored - expected
        for expected_row in expected - stored
    ]
    return min(differences, key=len, default=())
