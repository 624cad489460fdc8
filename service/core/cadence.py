"""Cadence: how often a contract bills, how many intervals a month has, and when the contract bills next."""

import calendar
from collections.abc import Iterator
from datetime import date, timedelta
from fractions import Fraction

from msgspec import Struct

ONCE = "once"
INTERVALS = ("day", "week", "month", "year")

FREQUENCIES: dict[str, int | None] = {  # of purchases: average days between them, at most
    "Monthly": 31,  # the longest month, quarter and half of a year
    "Quarterly": 92,
    "Bi-Annual": 184,
    "Annual+": None,
}

FREQUENCY_LIMITS = tuple(days for days in FREQUENCIES.values() if days)

WEEKS_PER_MONTH = Fraction(433, 100)  # unless a setting or a policy says otherwise

_ADVERBS = {"day": "Daily", "week": "Weekly", "month": "Monthly", "year": "Yearly"}
_SPECIAL_LABELS = {("month", 3): "quarterly"}


def purchase_frequency(orders: int, lifespan_days: int) -> str | None:
    """How often a customer buys: a key of `FREQUENCIES` by the mean gap of orders; None for one order."""
    gaps = orders - 1
    if gaps < 1:
        return None
    return next(name for name, days in FREQUENCIES.items() if days is None or lifespan_days <= gaps * days)


def parse_weeks_per_month(value: str | Fraction) -> Fraction:
    """How many weeks a month counts, exact. Raises ValueError for what is no number from 4 to 5."""
    try:
        weeks = Fraction(value)
    except (ValueError, ZeroDivisionError, TypeError):
        weeks = Fraction(0)
    if not 4 <= weeks <= 5:
        raise ValueError("a decimal or a fraction from 4 to 5, such as 4.33 or 52/12")
    return weeks


def per_month(interval: str, weeks_per_month: Fraction) -> Fraction:
    """How many times `interval` fits into a month: what an amount per interval is multiplied by for MRR."""
    match interval:
        case "day":
            return Fraction(365, 12)
        case "week":
            return weeks_per_month
        case "month":
            return Fraction(1)
        case "year":
            return Fraction(1, 12)
        case _:
            return Fraction(0)


def schedule_label(interval: str, every: int) -> str:
    """The label of a schedule, the same for all processors: "Weekly - 4 Weeks", "Once"."""
    if interval == ONCE:
        return "Once"
    return f"{_ADVERBS[interval]} - {every} {interval.capitalize()}{'s' if every != 1 else ''}"


def cadence_label(interval: str, every: int) -> str:
    """The cadence in words: "weekly", "every 4 weeks", "quarterly", "yearly", "once"."""
    if interval == ONCE:
        return ONCE
    if every == 1:
        return _ADVERBS[interval].lower()
    return _SPECIAL_LABELS.get((interval, every), f"every {every} {interval}s")


def add_months(start: date, months: int, anchor_day: int) -> date:
    """`start` moved by calendar months to `anchor_day`, or to the last day of a month that is shorter."""
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(anchor_day, last))


class Anchor(Struct, frozen=True, kw_only=True):
    """The day of month on which a biller bills, and a date on which it did or will, where one is known."""

    day: int
    on: date | None = None


def bill_dates(
    first: date, interval: str, every: int, anchor: Anchor | None = None, since: date | None = None
) -> Iterator[date]:
    """`first` and every bill date after it, without end; only `first` for a one-off.

    Months and years keep the anchor's day: 31 Jan, 28 Feb, 31 Mar. Where `first` is not on the anchor, the
    next one is. Most dates before `since` are skipped without being computed, so that a distant `since`
    costs no more than a near one.
    """
    if interval == ONCE:
        yield first
        return
    second = first_on_anchor(first, interval, every, anchor)
    if second:
        yield first
    yield from _regular_dates(second or first, interval, every, anchor.day if anchor else first.day, since)


def _regular_dates(
    first: date, interval: str, every: int, anchor_day: int, since: date | None
) -> Iterator[date]:
    step_days = {"day": 1, "week": 7}.get(interval)
    months = months_of(interval, every)
    count = 0
    if since and since > first:
        months_ahead = (since.year - first.year) * 12 + since.month - first.month
        count = (
            (since - first).days // (every * step_days) if step_days else max(months_ahead - 1, 0) // months
        )
    while True:
        try:
            yield (
                first + timedelta(days=count * every * step_days)
                if step_days
                else (add_months(first, count * months, anchor_day) if count else first)
            )
        except (OverflowError, ValueError):  # past the year 9999
            return
        count += 1


def bills_before(day: date, first: date, interval: str, every: int, anchor: Anchor | None = None) -> int:
    """How many of `bill_dates` lie before a day; a distant one costs no more than a near one."""
    second = first_on_anchor(first, interval, every, anchor)
    start = second or first
    ahead = int(second is not None and first < day)
    if start >= day or interval == ONCE:
        return ahead + int(start < day)
    if step_days := {"day": 1, "week": 7}.get(interval):
        return ahead - (start - day).days // (every * step_days)
    months = months_of(interval, every)
    count, into = divmod((day.year - start.year) * 12 + day.month - start.month, months)
    if into:
        return ahead + count + 1
    anchor_day = anchor.day if anchor else first.day
    return ahead + count + int(not count or add_months(start, count * months, anchor_day) < day)


def first_on_anchor(first: date, interval: str, every: int, anchor: Anchor | None) -> date | None:
    """The first bill date on the anchor after a bill that is not on it; None after one that is.

    Days and weeks have no day of month: of theirs only an anchor that is still to come counts.
    """
    if anchor is None or interval == ONCE:
        return None
    if interval in ("day", "week"):
        return anchor.on if anchor.on and anchor.on > first else None
    months = months_of(interval, every)
    if add_months(first, 0, anchor.day) == first and not (anchor.on and anchor.on > first):
        return None
    if anchor.on is None:
        ahead = add_months(first, 0, anchor.day)
        return ahead if months == 1 and ahead > first else add_months(first, months, anchor.day)
    elapsed = (first.year - anchor.on.year) * 12 + first.month - anchor.on.month
    ahead = add_months(anchor.on, elapsed // months * months, anchor.day)
    return ahead if ahead > first else add_months(anchor.on, (elapsed // months + 1) * months, anchor.day)


def schedule_of_period(first: date, end: date) -> tuple[str, int]:
    """How often is billed what is billed for a period, as (interval, every), by the period's length alone.

    February is a month, not four weeks. Where months do not fit, weeks or days do.
    """
    months = (end.year - first.year) * 12 + end.month - first.month
    if months > 0 and add_months(first, months, max(first.day, end.day)) == end:
        return ("month", months) if months % 12 else ("year", months // 12)
    weeks, days = divmod((end - first).days, 7)
    return ("day", 7 * weeks + days) if days or not weeks else ("week", weeks)


def months_of(interval: str, every: int) -> int:
    """The months in an interval of months or years."""
    return every * (12 if interval == "year" else 1)
