"""Log lines that may come in thousands: one of each kind at once, and then how many more there were."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from msgspec import Struct

_INTERVAL = timedelta(minutes=1)


class _Kind(Struct):
    """When a line of this kind was last written, and how many were not since then."""

    written_at: datetime
    left_out: int = 0


class CountedLines:
    """Writes a line through `write`, a logger's method, unless an equal one was written within a minute.

    The next line of that kind says in `left_out` how many were not written before it.
    """

    def __init__(self, write: Callable[..., Any]) -> None:
        self._write = write
        self._kinds: dict[tuple[Any, ...], _Kind] = {}

    def add(
        self, now: datetime, event: str, *, shown: Mapping[str, object] = MappingProxyType({}), **fields: str
    ) -> None:
        """Write or count one line. `fields` must have few values, since each combination is kept.

        Lines are alike whatever is `shown`, which is that of the one that is written.
        """
        key = (event, *sorted(fields.items()))
        kind = self._kinds.get(key)
        if kind and now - kind.written_at < _INTERVAL:
            kind.left_out += 1
            return
        self._kinds[key] = _Kind(written_at=now)
        self._write(event, **fields, **shown, left_out=kind.left_out if kind else 0)
