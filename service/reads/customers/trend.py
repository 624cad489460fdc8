"""What a customer orders a month: level, trend and seasons of past months."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from fractions import Fraction
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from service.core.cadence import add_months
from service.core.money import round_fraction
from service.predictions.student_t import critical_value
from service.reads.months import months_between

YEAR = 12
LEAST = 6  # full months for a trend and for an interval
SEASONS = 2  # full years for seasons
DAMPING = Fraction(9, 10)  # of the trend, month by month: it levels off (Gardner and McKenzie, 1985)
INTERVAL = 0.8  # the confidence of the bounds of a month
EVIDENCE = 0.95  # the confidence that a slope is not 0


class Month(Struct, frozen=True):
    """A month ("2025-11") of orders."""

    name: str
    cents: int
    orders: int


class Line(Struct, frozen=True, kw_only=True):
    """Revenue by month 0, 1, …: `mean` at `middle`, and from there by `slope`, None where there is no trend.

    Before the season: a month of index w has w times as much, and w times the variance. `weight` is the sum
    of the indices fitted to, `off` the distance of a month's 80 % bounds, None of too few months.
    """

    mean: Fraction
    middle: Fraction
    weight: Fraction
    slope: Fraction | None = None
    off: float | None = None
    reason: str | None = None

    def at(self, month: Fraction) -> Fraction:
        """The value of a month before the season; never below zero."""
        return max(self.mean + (self.slope or 0) * (month - self.middle), Fraction(0))

    def spread(self, weight: Fraction) -> float | None:
        """How far months of these indices together may be off, the error of the mean included."""
        return None if self.off is None else self.off * math.sqrt(weight + weight**2 / self.weight)


def full_months(orders: Sequence[Any], today: date) -> list[Month]:
    """The months that lie wholly between the first order and `today`, those without an order too."""
    if not orders:
        return []
    first = date.fromisoformat(orders[0].date)
    start = first if first.day == 1 else add_months(first, 1, 1)
    cents, count = Counter[str](), Counter[str]()
    for row in orders:
        cents[row.date[:7]] += row.amount_cents
        count[row.date[:7]] += 1
    return [Month(name, cents[name], count[name]) for name in months_between(start, add_months(today, -1, 1))]


def seasons(months: Sequence[Month]) -> tuple[dict[str, Fraction] | None, str | None]:
    """The index of each calendar month ("01", …), 1 on average, by full years back from now; or why not."""
    if len(months) < SEASONS * YEAR:
        return None, f"{len(months)} full months, {SEASONS * YEAR} are needed"
    years = [months[end - YEAR : end] for end in range(len(months), YEAR - 1, -YEAR)]
    bought = [(year, whole) for year in years if (whole := sum(month.cents for month in year))]
    if len(bought) < SEASONS:
        return None, f"{len(bought)} full years with orders, {SEASONS} are needed"
    indices: dict[str, Fraction] = defaultdict(Fraction)
    for year, whole in bought:
        for month in year:
            indices[month.name[5:]] += Fraction(YEAR * month.cents, whole * len(bought))
    return dict(sorted(indices.items())), None


def weights(names: Iterable[str], indices: dict[str, Fraction] | None) -> list[Fraction]:
    """The index of each of these months, 1 without seasons."""
    return [indices[name[5:]] if indices else Fraction(1) for name in names]


def damped(months: int) -> Fraction:
    """How many months of trend so many months ahead bring."""
    return DAMPING * (1 - DAMPING**months) / (1 - DAMPING)


def least_squares(revenue: Sequence[int], indices: Sequence[Fraction]) -> Line | None:
    """The line through months, weighted by the indices; None of no months.

    The slope counts where chance gives one so steep less than once in 20 times.
    """
    found = [(n, cents / w, w) for n, (cents, w) in enumerate(zip(revenue, indices, strict=True)) if w]
    weight = sum((w for _, _, w in found), Fraction(0))
    if not weight:
        return None
    middle, mean = sum(w * x for x, _, w in found) / weight, sum(w * y for _, y, w in found) / weight
    line = Line(mean=mean, middle=middle, weight=weight)
    free = len(found) - 2
    if len(found) < LEAST:
        return replace(line, reason=f"{len(found)} full months of any weight, {LEAST} are needed")
    width = sum((w * (x - middle) ** 2 for x, _, w in found), Fraction(0))
    slope = sum((w * (x - middle) * (y - mean) for x, y, w in found), Fraction(0)) / width
    about_mean = sum((w * (y - mean) ** 2 for _, y, w in found), Fraction(0))
    about_line = about_mean - slope**2 * width
    if abs(slope) > critical_value(EVIDENCE, free) * math.sqrt(about_line / free / width):
        off = critical_value(INTERVAL, free) * math.sqrt(about_line / free)
        return replace(line, slope=slope, off=off)
    return replace(
        line,
        off=critical_value(INTERVAL, free + 1) * math.sqrt(about_mean / (free + 1)),
        reason=f"{round_fraction(slope)} cents a month may well be chance" if slope else None,
    )
