"""When a contract bills again: all dates there could be, of which some count. Source: contract 3."""

import calendar
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import TypeVar

Day = TypeVar("Day", date, datetime)

YEARS = 12  # of dates that are tried


def bill_dates(
    first: Day, interval: str, every: int, anchor: Day | None = None, anchor_day: int | None = None
) -> Iterator[Day]:
    """A next bill and those after it, for some years, by an interval, on the anchor.

    The anchor is a date on which bills fall, or only a day of the month. Where the first is not on it, it is
    the only one that is not. Moments are taken as they stand, so they must be in UTC.
    """
    yield first
    if interval == "once":
        return
    if interval in ("day", "week"):
        step = timedelta(days=every * (7 if interval == "week" else 1))
        start = anchor if anchor and anchor > first else first
        yield from (day for n in range(YEARS * 366) if (day := start + n * step) > first)
        return
    months = every * (12 if interval == "year" else 1)
    if anchor:
        days = (moved(anchor, n * months, anchor.day) for n in range(-YEARS * 12, YEARS * 12))
    else:
        day = anchor_day or first.day
        days = (moved(first, n * months, day) for n in range(0 if months == 1 else 1, YEARS * 12))
    yield from (day for day in days if day > first)


def moved(start: Day, months: int, day: int) -> Day:
    """A date some months on, on a day of the month, or on the last day of a shorter month."""
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    return start.replace(year=year, month=month + 1, day=min(day, calendar.monthrange(year, month + 1)[1]))
