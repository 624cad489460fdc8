"""Segments, activity, lifecycle and purchase frequency, at each limit and beside it."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from service.books.view import ReadOptions, Scope, View
from service.core.cadence import FREQUENCIES
from service.reads.customers.classes import (
    SEGMENTS,
    activity_of,
    lifecycle_of,
    ratio,
    segment_bounds,
    segment_names,
    segment_of,
)


def bounds(currency: str, *limits: str) -> tuple[int, ...]:
    options: Any = ReadOptions(segment_limits=tuple(map(Decimal, limits))) if limits else ReadOptions()
    view = View(
        connection=None,  # type: ignore[arg-type] - limits are not in the books
        books={},
        scope=Scope(currency=currency, today=date(2025, 11, 13)),
        options=options,
    )
    return segment_bounds(view)


@pytest.mark.parametrize(
    ("revenue_cents", "segment"),
    [
        (10**12, "whale"),
        (1_000_000, "whale"),
        (999_999, "high_value"),
        (100_000, "high_value"),
        (99_999, "medium_value"),
        (10_000, "medium_value"),
        (9_999, "low_value"),
        (0, "low_value"),
    ],
)
def test_a_segment_begins_with_its_limit(revenue_cents: int, segment: str) -> None:
    assert segment_of(revenue_cents, bounds("usd")) == segment
    assert segment in SEGMENTS


def test_a_fifth_segment_is_below_the_fourth_limit() -> None:
    limits = bounds("usd", "10000", "1000", "100", "10")
    assert [segment_of(cents, limits) for cents in (10_000, 9_999, 1_000, 999, 0)] == [
        *("medium_value", "low_value", "low_value"),
        *("minimal_value", "minimal_value"),
    ]
    assert segment_names(limits) == SEGMENTS
    assert segment_names(bounds("usd")) == SEGMENTS[:4]


@pytest.mark.parametrize(
    ("currency", "limits", "found"),
    [
        ("usd", (), (1_000_000, 100_000, 10_000)),
        ("jpy", (), (10_000, 1_000, 100)),
        ("kwd", (), (10_000_000, 1_000_000, 100_000)),
        ("usd", ("500.50", "50", "0.01"), (50_050, 5_000, 1)),
        # part of a minor unit is reached by the next whole one
        ("jpy", ("500.50", "50", "0.01"), (501, 50, 1)),
        ("usd", ("0.011", "0.01", "0"), (2, 1, 0)),
    ],
)
def test_limits_are_whole_units_of_the_currency(
    currency: str, limits: tuple[str, ...], found: tuple[int, ...]
) -> None:
    assert bounds(currency, *limits) == found


@pytest.mark.parametrize(
    ("days_quiet", "activity"),
    [
        (0, "highly_active"),
        (30, "highly_active"),
        (31, "active"),
        (60, "active"),
        (61, "declining"),
        (90, "declining"),
        (91, "at_risk"),
        (9_999, "at_risk"),
    ],
)
def test_activity_goes_by_the_days_since_the_last_purchase(days_quiet: int, activity: str) -> None:
    assert activity_of(days_quiet) == activity


@pytest.mark.parametrize(
    ("days_known", "days_quiet", "stage"),
    [
        (0, 0, "new"),
        (29, 0, "new"),
        (29, 29, "new"),
        (30, 0, "active"),
        (30, 30, "active"),
        (400, 59, "active"),
        (400, 60, "at_risk"),
        (400, 120, "at_risk"),
        (400, 121, "churned"),
        (60, 60, "at_risk"),
    ],
)
def test_lifecycle_goes_by_the_days_since_the_first_and_the_last_purchase(
    days_known: int, days_quiet: int, stage: str
) -> None:
    assert lifecycle_of(days_known, days_quiet) == stage


def test_frequencies_are_monthly_quarterly_twice_a_year_and_less_often() -> None:
    assert FREQUENCIES == {"Monthly": 31, "Quarterly": 92, "Bi-Annual": 184, "Annual+": None}


@pytest.mark.parametrize(
    ("part", "whole", "digits", "found"),
    [
        (329, 9, 2, 36.56),
        (1, 3, 4, 0.3333),
        (2, 3, 4, 0.6667),
        (1, 8, 2, 0.13),  # a half goes away from zero
        (-1, 8, 2, -0.13),
        (0, 5, 4, 0.0),
        (5, 0, 4, None),
    ],
)
def test_a_ratio_is_rounded_half_away_from_zero(
    part: int, whole: int, digits: int, found: float | None
) -> None:
    assert ratio(part, whole, digits) == found
