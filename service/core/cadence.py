"""Cadence: how often a contract bills, what that is a month, and when it bills next."""

import calendar
from collections.abc import Iterator
from datetime import date, timedelta
from fractions import Fraction

ONCE = "once"
INTERVALS = ("day", "week", "month", "year")

FREQUENCIES: dict[str, int | None] = {  # of purchases: average days between them, at most
    "Monthly": 30,
    "Quarterly": 90,
    "Bi-Annual": 180,
    "Annual+": None,
}

_ADVERB = {"day": "Daily", "week": "Weekly", "month": "Monthly", "year": "Yearly"}
WEEKS_PER_MONTH = Fraction(433, 100)  # unless a setting or a policy says otherwise

_NAMED = {("month", 3): "quarterly"}


def frequency(orders: int, lifespan_days: int) -> str | None:
    """How often somebody with so many orders in so many days buys; None for one order."""
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
    """What one `interval` counts a month: the MRR factor before the interval count."""
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


def schedule(interval: str, every: int) -> str:
    """The schedule's label whatever the processor: "Weekly - 4 Weeks", "Once"."""
    if interval == ONCE:
        return "Once"
    return f"{_ADVERB[interval]} - {every} {interval.capitalize()}{'s' if every != 1 else ''}"


def cadence(interval: str, every: int) -> str:
    """The word for people: "weekly", "every 4 weeks", "quarterly", "yearly", "once"."""
    if interval == ONCE:
        return ONCE
    if every == 1:
        return _ADVERB[interval].lower()
    return _NAMED.get((interval, every), f"every {every} {interval}s")


def add_months(start: date, months: int, anchor_day: int) -> date:
    """`start` moved by calendar months onto `anchor_day`, or the month's last day where it is short."""
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(anchor_day, last))


def bill_dates(
    first: date, interval: str, every: int, anchor_day: int | None = None, since: date | None = None
) -> Iterator[date]:
    """`first` and every bill date after it, without end; only `first` for a one-off.

    Months and years keep the anchor day: 31 Jan, 28 Feb, 31 Mar. Dates before `since` may be left
    out: what is far ahead costs no more than what is near.
    """
    if interval == ONCE:
        yield first
        return
    anchor = anchor_day or first.day
    step = {"day": 1, "week": 7}.get(interval)
    months = every * (12 if interval == "year" else 1)
    count = 0
    if since and since > first:
        ahead = (since.year - first.year) * 12 + since.month - first.month
        count = (since - first).days // (every * step) if step else max(ahead - 1, 0) // months
    while True:
        try:
            yield (
                first + timedelta(days=count * every * step)
                if step
                else (add_months(first, count * months, anchor) if count else first)
            )
        except (OverflowError, ValueError):  # past the year 9999
            return
        count += 1
