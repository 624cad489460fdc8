"""Silence: a processor from which no event has come for longer than is usual for it.

The usual gap is the second longest between two of its events in the last four weeks, nights and weekends
included. The longest is left out because it may be an outage; a weekend's gap occurs more than once.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, bindparam, func, select

from service.core.moments import from_us, rfc3339
from service.ledger import tables
from service.ledger.store import Ledger
from service.storage.statements import HotStatement

WINDOW = timedelta(days=28)
MIN_HISTORY = timedelta(days=7)  # a processor with a shorter history has no usual gap yet
MIN_LIMIT = timedelta(hours=1)
LIMIT_FACTOR = 1.5
_USUAL_RANK = 2  # the usual gap is the second longest
_MIN_GAP = MIN_LIMIT / LIMIT_FACTOR  # any shorter gap gives the limit `MIN_LIMIT`
_MAX_LOOK_UPS = 1_000
_CACHE_TIME = timedelta(minutes=10)
_MICROSECOND = timedelta(microseconds=1)

EventPoint = tuple[int, int]  # an event's position, and when it was recorded, in microseconds since 1970
LastUpTo = Callable[[int], EventPoint]  # the processor's last event at or before a position
FirstAfter = Callable[[int], EventPoint]  # the processor's first event after a position

_events = tables.Event.__table__  # type: ignore[attr-defined]


def _select_point(position: ScalarSelect[int]) -> Select[Any]:
    return select(_events.c.position, _events.c.recorded_at_us).where(_events.c.position == position)


def _extreme_position(*conditions: ColumnElement[bool], aggregate: Any) -> ScalarSelect[int]:
    of_processor = _events.c.processor == bindparam("processor")
    return select(aggregate(_events.c.position)).where(of_processor, *conditions).scalar_subquery()


_LAST_UP_TO = HotStatement(
    lambda _: _select_point(
        _extreme_position(_events.c.position <= bindparam("position"), aggregate=func.max)
    )
)
_FIRST_AFTER = HotStatement(
    lambda _: _select_point(_extreme_position(_events.c.position > bindparam("position"), aggregate=func.min))
)


class ProcessorActivity(Struct, frozen=True, kw_only=True):
    """When a processor's last event came, and its usual gap; None while its history is too short."""

    processor: str
    last_at: datetime
    usual_gap: timedelta | None

    @property
    def limit(self) -> timedelta | None:
        """The longest silence that is normal: one and a half times the usual gap, but at least an hour."""
        return None if self.usual_gap is None else max(self.usual_gap * LIMIT_FACTOR, MIN_LIMIT)

    def silence(self, now: datetime) -> dict[str, Any] | None:
        """The document of a processor that is silent for too long; None for any other."""
        if self.usual_gap is None or self.limit is None or now - self.last_at <= self.limit:
            return None
        return {
            "processor": self.processor,
            "last_event_at": rfc3339(self.last_at),
            "usual_gap_seconds": int(self.usual_gap.total_seconds()),
            "silent_seconds": int((now - self.last_at).total_seconds()),
        }


class SilenceMonitor:
    """Reads when each processor was last heard. Usual gaps are cached, since they hardly change."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._usual_gaps: dict[str, tuple[datetime, timedelta | None]] = {}

    async def read_activity(self, now: datetime) -> list[ProcessorActivity]:
        """The activity of every processor that ever sent an event."""
        async with self._ledger.reading() as reader:
            last_heard = await reader.last_heard()
        return [
            ProcessorActivity(
                processor=name, last_at=from_us(at_us), usual_gap=await self._usual_gap(name, now)
            )
            for name, at_us in last_heard.items()
        ]

    async def _usual_gap(self, processor: str, now: datetime) -> timedelta | None:
        looked_up_at, gap = self._usual_gaps.get(processor, (None, None))
        if looked_up_at is None or not timedelta() <= now - looked_up_at < _CACHE_TIME:
            gap = await self._ledger.read(lambda connection: _look_up_usual_gap(connection, processor))
            self._usual_gaps[processor] = now, gap
        return gap


def _look_up_usual_gap(connection: Connection, processor: str) -> timedelta | None:
    """A processor's usual gap; None while its history is shorter than a week."""

    def last_up_to(position: int) -> EventPoint:
        return tuple(_LAST_UP_TO.run(connection, processor, position)[0])

    def first_after(position: int) -> EventPoint:
        return tuple(_FIRST_AFTER.run(connection, processor, position)[0])

    last = last_up_to(2**62)
    first = _first_since(last[1] - WINDOW // _MICROSECOND, first_after(0), last, last_up_to, first_after)
    return (
        usual_gap(first, last, last_up_to, first_after)
        if last[1] - first[1] >= MIN_HISTORY // _MICROSECOND
        else None
    )


def _first_since(
    since_us: int, first: EventPoint, last: EventPoint, last_up_to: LastUpTo, first_after: FirstAfter
) -> EventPoint:
    """The first event recorded since a moment, between `first` and `last`, by binary search."""
    if first[1] >= since_us:
        return first
    while (middle := _between(first, last, last_up_to, first_after)) is not None:
        first, last = (middle, last) if middle[1] < since_us else (first, middle)
    return last


def usual_gap(
    first: EventPoint, last: EventPoint, last_up_to: LastUpTo, first_after: FirstAfter
) -> timedelta:
    """The second longest gap between one event and the next, from `first` to `last`.

    The longest stretch between two known events is split at an event in its middle, again and again, so
    that events which came close together are never read one by one. It returns 0 for gaps too short to
    change the limit; and an upper bound, never less than the gap, where the look-ups run out.
    """
    gaps: list[int] = []
    stretches = [(first[1] - last[1], first, last)]  # the longest first
    for _ in range(_MAX_LOOK_UPS):
        if not stretches or -stretches[0][0] < _MIN_GAP // _MICROSECOND:
            return timedelta()
        length, start, end = heappop(stretches)
        middle = _between(start, end, last_up_to, first_after)
        if middle is None:
            gaps.append(-length)
            if len(gaps) == _USUAL_RANK:
                return timedelta(microseconds=-length)
        else:
            heappush(stretches, (start[1] - middle[1], start, middle))
            heappush(stretches, (middle[1] - end[1], middle, end))
    return timedelta(microseconds=max((-stretch[0] for stretch in stretches[:1]), default=0))


def _between(
    start: EventPoint, end: EventPoint, last_up_to: LastUpTo, first_after: FirstAfter
) -> EventPoint | None:
    """An event between two others, near the middle of their positions; None if they are neighbours."""
    middle = last_up_to((start[0] + end[0]) // 2)
    if middle[0] <= start[0]:
        middle = first_after(start[0])
    return middle if middle[0] < end[0] else None
