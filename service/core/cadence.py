"""Cadence: how often a contract bills, how many intervals a month has, and when the contract bills next."""

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


def bill_dates(
    first: date, interval: str, every: int, anchor_day: int | None = None, since: date | None = None
) -> Iterator[date]:
    """`first` and every bill date after it, without end; only `first` for a one-off.

    Months and years keep the anchor day: 31 Jan, 28 Feb, 31 Mar. Most dates before `since` are
    skipped without being computed, so that a distant `since` costs no more than a near one.
    """
    if interval == ONCE:
        yield first
        return
    anchor = anchor_day or first.day
    step_days = {"day": 1, "week": 7}.get(interval)
    months = every * (12 if interval == "year" else 1)
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
                else (add_months(first, count * months, anchor) if count else first)
            )
        except (OverflowError, ValueError):  # past the year 9999
            return
        count += 1
