"""Rows of measurements, each beside its baseline: both are measured in turns, several times, in one run."""

import os
from collections.abc import Callable, Sequence
from statistics import median

from msgspec import Struct

Measure = Callable[[], Sequence[float]]


class Sizes(Struct, frozen=True, kw_only=True):
    """How much each row measures. Rows of size 0 are left out."""

    rounds: int
    events: int  # far behind, rebuild, verify, look-back
    fresh: int  # in batches of 10
    large: int  # a ledger of which one more event is measured
    history: int  # of one subscription
    webhooks: int  # each round
    reads: int  # each round
    load_seconds: float  # of a steady load, and of rest
    appended: int  # by each of the peers


FULL = Sizes(
    rounds=5,
    events=int(os.environ.get("EVENTS", "100000")),
    fresh=20_000,
    large=int(os.environ.get("LARGE", "1000000")),
    history=10_000,
    webhooks=6_000,
    reads=2_000,
    load_seconds=15,
    appended=3_000,
)
QUICK = Sizes(
    rounds=3,
    events=10_000,
    fresh=2_000,
    large=0,
    history=2_000,
    webhooks=1_500,
    reads=200,
    load_seconds=0,
    appended=0,
)


class Row(Struct, frozen=True, kw_only=True):
    """A measurement. `measure` and `baseline` give one value for each of the `units`."""

    key: str
    name: str
    units: Sequence[str]
    measure: Measure
    baseline: Measure | None = None
    against: str = ""  # what the baseline is
    most_rounds: int | None = None


class Figure(Struct, frozen=True, kw_only=True):
    """What was measured in one unit, round by round."""

    unit: str
    values: list[float]
    baseline: list[float] = []

    @property
    def ratios(self) -> list[float]:
        """How many times as fast as the baseline, or as small, round by round."""
        is_rate = self.unit.endswith("/s")
        pairs = zip(self.values, self.baseline, strict=bool(self.baseline))
        return [own / base if is_rate else base / own for own, base in pairs]


class Result(Struct, frozen=True, kw_only=True):
    """A row as it was measured, with the load average (of one minute) before and after."""

    key: str
    name: str
    against: str
    figures: list[Figure]
    load: tuple[float, float]

    @property
    def ratio(self) -> float | None:
        """The median ratio of the first figure."""
        return median(ratios) if (ratios := self.figures[0].ratios) else None


def measure(row: Row, rounds: int) -> Result:
    """Measure the baseline and the row in turns."""
    load, baseline, values = os.getloadavg()[0], [], []
    for _ in range(min(rounds, row.most_rounds or rounds)):
        if row.baseline:
            baseline.append(row.baseline())
        values.append(row.measure())
    figures = [
        Figure(unit=unit, values=[v[n] for v in values], baseline=[v[n] for v in baseline])
        for n, unit in enumerate(row.units)
    ]
    return Result(
        key=row.key,
        name=row.name,
        against=row.against,
        figures=figures,
        load=(load, os.getloadavg()[0]),
    )


def spread(values: Sequence[float]) -> str:
    """The median, and the lowest and highest in brackets."""
    if not values:
        return ""
    low, middle, high = (shown(value) for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"


def shown(value: float) -> str:
    """A value with as many digits as mean something."""
    if 0 < value < 0.1:
        return f"{value:.2g}"
    digits = 0 if value >= 100 or value == 0 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def cells(result: Result) -> list[dict[str, str]]:
    """A line of a table for each figure of a result."""
    return [
        {
            "what": result.name if figure is result.figures[0] else "",
            "": figure.unit,
            "Daybook": spread(figure.values),
            "baseline": spread(figure.baseline),
            "ratio": spread(figure.ratios),
        }
        for figure in result.figures
    ]
