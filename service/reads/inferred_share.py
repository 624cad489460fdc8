"""The part of an answer's first figure of money that is inferred: of MRR, all others are told by events."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from sqlalchemy import select

from service.books.tables import TOTALS
from service.books.view import View, sum_columns
from service.reads import metrics, mrr

SHARE_DIGITS = 6


def of_mrr(view: View, args: dict[str, Any]) -> float:
    """Of `mrr_cents`."""
    return _share(view.with_policy(args["policy"]), [view.scope.today])


def of_movements(view: View, args: dict[str, Any]) -> float:
    """Of `opening_cents` of all periods together."""
    return _share(
        view.with_policy(args["policy"]),
        [_day_before(first) for first in mrr.first_days(args["from"], args["to"], args["by"])],
    )


def of_metrics(view: View, args: dict[str, Any]) -> float:
    """Of `opening_cents` of all periods together."""
    months = metrics.PERIODS[args["by"]]
    return _share(
        view.with_policy(args["policy"]),
        [_day_before(first) for first, _ in metrics.periods(args["from"], args["to"], months)],
    )


def _day_before(day: date) -> date:
    return day - timedelta(days=1)


def _share(view: View, days: Sequence[date]) -> float:
    """The inferred part of the MRR at the ends of these days, in order; 0 where there is none."""
    totals = TOTALS["mrr_days"]
    query = (
        select(totals.c.date, *sum_columns(totals, ("inferred_cents", "mrr_cents")))
        .where(*view.filters(totals, "mrr"), totals.c.date <= days[-1].isoformat())
        .group_by(totals.c.date)
        .order_by(totals.c.date.desc())
    )
    if not view.all(query.where(totals.c.inferred_cents != 0).limit(1)):
        return 0.0
    changes = view.all(query)
    inferred = whole = level = inferred_level = 0
    for day in days:
        while changes and changes[-1].date <= day.isoformat():
            change = changes.pop()
            level += change.mrr_cents
            inferred_level += change.inferred_cents
        inferred, whole = inferred + inferred_level, whole + level
    return round(inferred / whole, SHARE_DIGITS) if whole else 0.0
