"""The differences between two JSON values, field by field. Pure."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from msgspec import Struct


class FieldDifference(Struct, frozen=True, kw_only=True):
    """One field that differs: "data.items[0].quantity". A value is None where that side has no such field."""

    field: str
    before: Any
    after: Any


def field_differences(before: Any, after: Any, field: str = "") -> Iterator[FieldDifference]:
    """The innermost fields in which two values differ, in the order of the first value's fields."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before | after:
            inner = f"{field}.{name}" if field else name
            yield from field_differences(before.get(name), after.get(name), inner)
    elif isinstance(before, list) and isinstance(after, list):
        for index, (left, right) in enumerate(zip_longest(before, after)):
            yield from field_differences(left, right, f"{field}[{index}]")
    elif before != after:
        yield FieldDifference(field=field, before=before, after=after)
