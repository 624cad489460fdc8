"""A fault that verification found, and where."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from service.core.errors import Integrity

Values = tuple[Any, ...]


class Where(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The table; in it the position, and the key (of a total, its group); the columns, where known."""

    table: str
    position: int | None = None
    key: str | None = None
    columns: tuple[str, ...] = ()


class Fault(Integrity):
    """The first thing found that is not what it should be."""

    def __init__(self, said: str, where: Where) -> None:
        of = f" ({', '.join(where.columns)})" if where.columns else ""
        super().__init__(f"{said}{of}")
        self.where = where


def differing(names: Sequence[str], stands: Iterable[Values], wanted: Iterable[Values]) -> tuple[str, ...]:
    """The columns in which the nearest two rows of both sides differ; none where a side has no such row."""
    found, expected = Counter(stands), Counter(wanted)
    pairs = [
        tuple(str(name) for name, here, there in zip(names, one, other, strict=True) if here != there)
        for one in found - expected
        for other in expected - found
    ]
    return min(pairs, key=len, default=())
