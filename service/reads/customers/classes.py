"""Classes of customers by their orders: segment, activity, lifecycle."""

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Literal, get_args

from msgspec import Struct

from service.books.view import View
from service.core.money import round_half_away, to_minor
from service.reads.answers import about

AT_RISK_DAYS = (60, 120)  # since the last purchase: after these a customer has churned
NEW_DAYS = 30
QUIET_DAYS = 90  # after these a customer's activity is at risk

SegmentName = Literal["whale", "high_value", "medium_value", "low_value", "minimal_value"]
Activity = Literal["at_risk", "declining", "active", "highly_active"]
Lifecycle = Literal["new", "active", "at_risk", "churned"]
SEGMENTS: tuple[SegmentName, ...] = get_args(SegmentName)  # highest first; three limits make no fifth
CustomerSegment = Annotated[SegmentName, about("by total revenue and the limits of the settings")]
ActivityStatus = Annotated[
    Activity | None,
    about("by days since the last order: over 90, over 60, over 30, or less; null before any order"),
]
LifecycleStage = Annotated[
    Lifecycle | None,
    about(
        "new: first order under 30 days ago; else by the last: under 60, to 120, over 120 days ago; "
        "null before any order"
    ),
]


Treatment = Annotated[str | None, about("how the rulebook treats the segment; null where it says nothing")]
Focus = Annotated[
    str | None,
    about("what the rulebook sees in the lifecycle stage; null where it says nothing, or before any order"),
]


class Classes(Struct, frozen=True, kw_only=True):
    """A customer's classes at the end of a day; those by orders are null before any."""

    customer_segment: SegmentName
    treatment: str | None
    activity_status: Activity | None
    lifecycle_stage: Lifecycle | None
    focus: str | None


def segment_bounds(view: View) -> tuple[int, ...]:
    """The least revenue of each segment but the last, in minor units."""
    return tuple(ceil(to_minor(limit, view.scope.currency)) for limit in view.options.segment_limits)


def segment_names(bounds: Sequence[int]) -> tuple[SegmentName, ...]:
    """The segments that these bounds divide: one more than there are bounds."""
    return SEGMENTS[: len(bounds) + 1]


def segment_of(revenue_cents: int, bounds: Sequence[int]) -> SegmentName:
    """The segment of a customer by their total revenue."""
    *above, last = segment_names(bounds)
    return next((name for name, least in zip(above, bounds, strict=True) if revenue_cents >= least), last)


def activity_of(days_quiet: int) -> Activity:
    """A customer's activity by the days since the last purchase."""
    if days_quiet > QUIET_DAYS:
        return "at_risk"
    if days_quiet > 60:
        return "declining"
    return "active" if days_quiet > 30 else "highly_active"


def lifecycle_of(days_known: int, days_quiet: int) -> Lifecycle:
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
