"""What differs between two JSON values, field by field. Pure."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from msgspec import Struct


class Difference(Struct, frozen=True, kw_only=True):
    """One field that differs: "data.items[0].quantity". A side is None where it has no such field."""

    field: str
    before: Any
    after: Any


def differences(before: Any, after: Any, field: str = "") -> Iterator[Difference]:
    """The innermost fields in which two values differ, in the order in which they stand."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before | after:
            inner = f"{field}.{name}" if field else name
            yield from differences(before.get(name), after.get(name), inner)
    elif isinstance(before, list) and isinstance(after, list):
        for place, (one, other) in enumerate(zip_longest(before, after)):
            yield from differences(one, other, f"{field}[{place}]")
    elif before != after:
        yield Difference(field=field, before=before, after=after)
