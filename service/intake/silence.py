"""Silence: a processor that has not been heard for longer than is usual for it.

What is usual is seen in its own events: their longest gaps of the last four weeks, nights and weekends
included. The longest one of all is left out, so that an outage does not pass for usual; a weekend comes
again, and is the second.
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
KNOWN_FOR = timedelta(days=7)  # one that has been heard for less has no usual gap yet
LEAST = timedelta(hours=1)
FACTOR = 1.5
_RANK = 2  # which of the longest gaps is usual
_TOO_SHORT = LEAST / FACTOR  # a gap under this makes no other limit
_LOOK_UPS = 1_000
_KEEP = timedelta(minutes=10)
_MICROSECOND = timedelta(microseconds=1)

Mark = tuple[int, int]  # an event's position, and when it was recorded, in microseconds
UpTo = Callable[[int], Mark]  # the processor's last event at or before a position
After = Callable[[int], Mark]  # its next event after a position

_events = tables.Event.__table__  # type: ignore[attr-defined]


def _at(position: ScalarSelect[int]) -> Select[Any]:
    return select(_events.c.position, _events.c.recorded_at_us).where(_events.c.position == position)


def _own(*conditions: ColumnElement[bool], which: Any) -> ScalarSelect[int]:
    own = _events.c.processor == bindparam("processor")
    return select(which(_events.c.position)).where(own, *conditions).scalar_subquery()


_UP_TO = HotStatement(lambda _: _at(_own(_events.c.position <= bindparam("position"), which=func.max)))
_AFTER = HotStatement(lambda _: _at(_own(_events.c.position > bindparam("position"), which=func.min)))


class Heard(Struct, frozen=True, kw_only=True):
    """When a processor was last heard, and how long it may be silent; None while it is hardly known."""

    processor: str
    last_at: datetime
    usual_gap: timedelta | None

    @property
    def limit(self) -> timedelta | None:
        """The silence that is too long: half as long again as what is usual, an hour at least."""
        return None if self.usual_gap is None else max(self.usual_gap * FACTOR, LEAST)

    def silence(self, now: datetime) -> dict[str, Any] | None:
        """What is to be said of a processor that is silent; None of one that is not."""
        if self.usual_gap is None or self.limit is None or now - self.last_at <= self.limit:
            return None
        return {
            "processor": self.processor,
            "last_event_at": rfc3339(self.last_at),
            "usual_gap_seconds": int(self.usual_gap.total_seconds()),
            "silent_seconds": int((now - self.last_at).total_seconds()),
        }


class Silence:
    """Who was last heard when. Usual gaps are looked up now and then: they hardly change."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._usual: dict[str, tuple[datetime, timedelta | None]] = {}

    async def heard(self, now: datetime) -> list[Heard]:
        """Every processor that was ever heard."""
        async with self._ledger.reading() as reader:
            last_heard = await reader.last_heard()
        return [
            Heard(processor=name, last_at=from_us(at_us), usual_gap=await self._usual_gap(name, now))
            for name, at_us in last_heard.items()
        ]

    async def _usual_gap(self, processor: str, now: datetime) -> timedelta | None:
        found_at, gap = self._usual.get(processor, (None, None))
        if found_at is None or not timedelta() <= now - found_at < _KEEP:
            gap = await self._ledger.read(lambda connection: _look_up(connection, processor))
            self._usual[processor] = now, gap
        return gap


def _look_up(connection: Connection, processor: str) -> timedelta | None:
    """A processor's usual gap; None while it has been heard for less than a week."""

    def up_to(position: int) -> Mark:
        return tuple(_UP_TO.run(connection, processor, position)[0])

    def after(position: int) -> Mark:
        return tuple(_AFTER.run(connection, processor, position)[0])

    last = up_to(2**62)
    first = _first_since(last[1] - WINDOW // _MICROSECOND, after(0), last, up_to, after)
    return usual_gap(first, last, up_to, after) if last[1] - first[1] >= KNOWN_FOR // _MICROSECOND else None


def _first_since(since_us: int, first: Mark, last: Mark, up_to: UpTo, after: After) -> Mark:
    """The first event recorded since a moment, from `first` to `last`, by halving."""
    if first[1] >= since_us:
        return first
    while (middle := _between(first, last, up_to, after)) is not None:
        first, last = (middle, last) if middle[1] < since_us else (first, middle)
    return last


def usual_gap(first: Mark, last: Mark, up_to: UpTo, after: After) -> timedelta:
    """The second longest gap between one event and the next, from `first` to `last`.

    The longest stretch between two known events is parted at an event in its middle, again and again:
    what came close together, a million events or two, is never looked at one by one. Of gaps too short to
    matter it says 0; and where too much would have to be looked up, more than it is, never less.
    """
    gaps: list[int] = []
    stretches = [(first[1] - last[1], first, last)]  # the longest first
    for _ in range(_LOOK_UPS):
        if not stretches or -stretches[0][0] < _TOO_SHORT // _MICROSECOND:
            return timedelta()
        length, start, end = heappop(stretches)
        middle = _between(start, end, up_to, after)
        if middle is None:
            gaps.append(-length)
            if len(gaps) == _RANK:
                return timedelta(microseconds=-length)
        else:
            heappush(stretches, (start[1] - middle[1], start, middle))
            heappush(stretches, (middle[1] - end[1], middle, end))
    return timedelta(microseconds=max((-stretch[0] for stretch in stretches[:1]), default=0))


def _between(start: Mark, end: Mark, up_to: UpTo, after: After) -> Mark | None:
    """An event between two others, in the middle where there is one; None if they are neighbours."""
    middle = up_to((start[0] + end[0]) // 2)
    if middle[0] <= start[0]:
        middle = after(start[0])
    return middle if middle[0] < end[0] else None
