"""The level, the trend and the seasons of a customer's monthly orders."""

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
from service.reads.parameters import last_of_month

YEAR = 12
MIN_MONTHS = 6  # full months for a trend and for an interval
SEASON_YEARS = 2  # full years for seasons
DAMPING = Fraction(9, 10)  # of the trend, month by month: it levels off (Gardner and McKenzie, 1985)
TREND_MONTHS = 6  # after so many months, half of a trend is believed
INTERVAL = 0.8  # the confidence of the bounds of a month
EVIDENCE = 0.95  # the confidence that a slope is not 0


class Month(Struct, frozen=True):
    """A month ("2025-11") of orders, and what of it has elapsed."""

    name: str
    cents: int
    orders: int
    elapsed: Fraction = Fraction(1)


class TrendLine(Struct, frozen=True, kw_only=True):
    """Revenue by month 0, 1, …: `mean` at month `middle`, rising by `slope` a month (None without a trend).

    The line is seasonally adjusted: a month of index w has w times its value, and w times its variance.
    `weight` is the sum of the indices of the fitted months, each times what of it has elapsed. `credit`, less
    than 1, is the part of the trend that is believed. `margin` is half the width of a month's 80 % interval;
    None if there were too few months.
    """

    mean: Fraction
    middle: Fraction
    weight: Fraction
    slope: Fraction | None = None
    credit: Fraction = Fraction(0)
    margin: float | None = None
    reason: str | None = None

    def at(self, month: Fraction) -> Fraction:
        """The value of a month before the season, between level and trend: above 0 if the level is."""
        trend = max(self.mean + (self.slope or 0) * (month - self.middle), Fraction(0))
        return self.mean + self.credit * (trend - self.mean)

    def margin_for(self, weight: Fraction) -> float | None:
        """Half the width of the interval of months whose indices add up to `weight`."""
        return None if self.margin is None else self.margin * math.sqrt(weight + weight**2 / self.weight)


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


def counted_months(orders: Sequence[Any], today: date) -> list[Month]:
    """The last twelve full months and the running one; where there are fewer, what follows the first day.

    The first day's orders only begin the history: counting them would overstate how often others follow.
    """
    full = full_months(orders, today)
    first = date.fromisoformat(orders[0].date)
    is_cut = 1 < first.day < last_of_month(first).day and len(full) < YEAR
    before = [_part(orders, first, last_of_month(first))] if is_cut else []
    return [*before, *full[-YEAR:], _part(orders, last_of_month(add_months(today, -1, 1)), today)]


def _part(orders: Sequence[Any], after: date, until: date) -> Month:
    """The part of a month after one day and until another."""
    amounts = [row.amount_cents for row in orders if after.isoformat() < row.date <= until.isoformat()]
    elapsed = Fraction((until - after).days, last_of_month(until).day)
    return Month(until.isoformat()[:7], sum(amounts), len(amounts), elapsed)


def seasonal_indices(months: Sequence[Month]) -> tuple[dict[str, Fraction] | None, str | None]:
    """The index of each calendar month ("01", …), 1 on average, by the last full years; or why not."""
    if len(months) < SEASON_YEARS * YEAR:
        return None, f"{len(months)} full months, {SEASON_YEARS * YEAR} are needed"
    years = [months[end - YEAR : end] for end in range(len(months), YEAR - 1, -YEAR)]
    sales = [(year, total) for year in years if (total := sum(month.cents for month in year))]
    if len(sales) < SEASON_YEARS:
        return None, f"{len(sales)} full years with orders, {SEASON_YEARS} are needed"
    if sales[0][0] is not years[0]:
        return None, "no order in the last full year"
    indices: dict[str, Fraction] = defaultdict(Fraction)
    for year, total in sales:
        for month in year:
            indices[month.name[5:]] += Fraction(YEAR * month.cents, total * len(sales))
    return dict(sorted(indices.items())), None


def season_weights(names: Iterable[str], indices: dict[str, Fraction] | None) -> list[Fraction]:
    """The seasonal index of each month, 1 without seasons."""
    return [indices[name[5:]] if indices else Fraction(1) for name in names]


def damped_months(months: int) -> Fraction:
    """The months' worth of slope that the damped trend adds after `months`."""
    return DAMPING * (1 - DAMPING**months) / (1 - DAMPING)


def least_squares(months: Sequence[Month], indices: dict[str, Fraction] | None) -> TrendLine | None:
    """The line through months that follow each other; None without any of weight.

    A month weighs by its index and by what of it has elapsed. The slope is kept only if it is significant at
    the 5 % level, and the fewer the months, the less of it is believed.
    """
    weights = season_weights([month.name for month in months], indices)
    points = [
        (number, month.cents / weight, weight)
        for number, (month, index) in enumerate(zip(months, weights, strict=True))
        if (weight := index * month.elapsed)
    ]
    weight = sum((w for _, _, w in points), Fraction(0))
    if not weight:
        return None
    middle, mean = sum(w * x for x, _, w in points) / weight, sum(w * y for _, y, w in points) / weight
    line = TrendLine(mean=mean, middle=middle, weight=weight)
    full = sum(1 for month, index in zip(months, weights, strict=True) if index and month.elapsed == 1)
    free = len(points) - 2
    if full < MIN_MONTHS:
        return replace(line, reason=f"{full} full months of any weight, {MIN_MONTHS} are needed")
    x_squares = sum((w * (x - middle) ** 2 for x, _, w in points), Fraction(0))
    slope = sum((w * (x - middle) * (y - mean) for x, y, w in points), Fraction(0)) / x_squares
    squares_about_mean = sum((w * (y - mean) ** 2 for _, y, w in points), Fraction(0))
    squares_about_line = squares_about_mean - slope**2 * x_squares
    if abs(slope) > critical_value(EVIDENCE, free) * math.sqrt(squares_about_line / free / x_squares):
        credit = Fraction(full, full + TREND_MONTHS)
        squares = squares_about_line + ((1 - credit) * slope) ** 2 * x_squares
        margin = critical_value(INTERVAL, free) * math.sqrt(squares / free)
        return replace(line, slope=slope, credit=credit, margin=margin)
    return replace(
        line,
        margin=critical_value(INTERVAL, free + 1) * math.sqrt(squares_about_mean / (free + 1)),
        reason=f"{round_fraction(slope)} cents a month may well be chance" if slope else None,
    )
