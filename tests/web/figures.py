"""The figures of a document: its numbers, each with its JSON pointer."""

from collections.abc import Iterator
from typing import Any

LABELS = {"year", "month", "week", "rank", "every"}  # numbers that name what is counted, and count nothing


def figures_of(document: dict[str, Any]) -> list[tuple[str, float]]:
    """Every figure of a read's answer, as (pointer, value)."""
    figures = {name: value for name, value in document.items() if name != "meta"}
    return [(path, value) for path, value in _numbers(figures, "") if path.rpartition("/")[2] not in LABELS]


def _numbers(part: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(part, dict | list):
        for name, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from _numbers(value, f"{path}/{name}")
    elif isinstance(part, int | float) and not isinstance(part, bool):
        yield path, part
