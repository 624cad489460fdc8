"""Classes of customers by their orders: segment, activity, lifecycle."""

from collections.abc import Sequence
from math import ceil

from service.books.view import View
from service.core.money import round_half_away, to_minor

SEGMENTS = (
    "whale",
    "high_value",
    "medium_value",
    "low_value",
)  # by the settings' limits, highest first
AT_RISK_DAYS = (60, 120)  # since the last purchase: after these a customer has churned
NEW_DAYS = 30


def segment_bounds(view: View) -> tuple[int, ...]:
    """The least revenue of each segment but the last, in minor units."""
    return tuple(ceil(to_minor(limit, view.scope.currency)) for limit in view.options.segment_limits)


def segment_of(revenue_cents: int, bounds: Sequence[int]) -> str:
    """The segment of a customer by their total revenue."""
    return next(
        (name for name, least in zip(SEGMENTS, bounds, strict=False) if revenue_cents >= least), SEGMENTS[-1]
    )


def activity_of(days_quiet: int) -> str:
    """A customer's activity by the days since the last purchase."""
    if days_quiet > 90:
        return "at_risk"
    if days_quiet > 60:
        return "declining"
    return "active" if days_quiet > 30 else "highly_active"


def lifecycle_of(days_known: int, days_quiet: int) -> str:
    """A customer's lifecycle stage by the days since the first and the last purchase."""
    if days_known < NEW_DAYS:
        return "new"
    start, end = AT_RISK_DAYS
    if days_quiet < start:
        return "active"
    return "at_risk" if days_quiet <= end else "churned"


def ratio(part: int, whole: int, digits: int) -> float | None:
    """`part` ÷ `whole`, rounded half away from zero; None if `whole` is 0."""
    scale: int = 10**digits
    return round_half_away(part * scale, whole) / scale if whole else None
