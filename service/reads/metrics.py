"""The metrics of recurring revenue by month, quarter or year: one calculation, from months that add up."""

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

from sqlalchemy import func, select

from projections.mrr import MOVEMENT_KINDS
from service.books.tables import TOTALS
from service.books.view import View, sum_columns
from service.core.cadence import add_months
from service.core.money import round_fraction
from service.reads.forecast import quarter_of
from service.reads.mrr import counted

PERIODS = {"month": 1, "quarter": 3, "year": 12}  # months in each

_DIGITS = 6  # of a rate
_AMOUNTS = tuple(f"{kind}_cents" for kind in MOVEMENT_KINDS)
_CUSTOMERS = ("new_customers", "reactivation_customers", "churn_customers")
_SUMMED = {  # what is summed of which table of which book
    "movement_days": ("mrr", (*_AMOUNTS, *_CUSTOMERS)),
    "order_days": ("revenue", ("first_try_orders",)),
    "failure_days": ("revenue", ("failures", "recovered")),
}


def metrics(view: View, first: date, last: date, by: str) -> dict[str, Any]:
    """The metrics of every period that holds a day from `first` to `last`, each period whole."""
    spans = list(_spans(first, last, PERIODS[by]))
    start, end = spans[0][0], spans[-1][1]
    months = _by_month(view, start, end)
    mrr_cents, customers = _before(view, start)
    periods = []
    for begins, ends in spans:
        happened: Counter[str] = Counter()
        for month, sums_of_month in months.items():
            if begins.isoformat()[:7] <= month <= ends.isoformat()[:7]:
                happened.update(sums_of_month)
        figures = measure(mrr_cents, customers, happened, PERIODS[by])
        periods.append(
            {
                "period": _name(begins, by),
                "from": begins.isoformat(),
                "to": ends.isoformat(),
                "complete": ends <= view.scope.today,
                **figures,
            }
        )
        mrr_cents, customers = figures["closing_cents"], figures["closing_customers"]
    return {**counted(view), "by": by, "periods": periods}


def measure(
    opening_cents: int, opening_customers: int, happened: Counter[str], months: int
) -> dict[str, Any]:
    """The metrics of one period of so many months, by the sums of what happened in it."""
    new, reactivation, expansion, contraction, churn = (happened[name] for name in _AMOUNTS)
    joined, returned, left = (happened[name] for name in _CUSTOMERS)
    closing_cents = opening_cents + new + reactivation + expansion + contraction + churn
    closing_customers = opening_customers + joined + returned - left
    lost = -(contraction + churn)
    payments = happened["first_try_orders"] + happened["failures"]
    return {
        "opening_cents": opening_cents,
        **{name: happened[name] for name in _AMOUNTS},
        "closing_cents": closing_cents,
        "opening_customers": opening_customers,
        "new_customers": joined,
        "reactivated_customers": returned,
        "churned_customers": left,
        "closing_customers": closing_customers,
        "arr_cents": 12 * closing_cents,
        "arpa_cents": _cents(closing_cents, closing_customers),
        "customer_churn_rate": _rate(left, opening_customers),
        "gross_mrr_churn_rate": _rate(lost, opening_cents),
        "net_mrr_churn_rate": _rate(lost - expansion, opening_cents),
        "net_revenue_retention": _rate(opening_cents + expansion - lost, opening_cents),
        "quick_ratio": _rate(new + reactivation + expansion, lost),
        "ltv_cents": _cents(closing_cents * months * opening_customers, closing_customers * left),
        "payments": payments,
        "failed_payments": happened["failures"],
        "recovered_payments": happened["recovered"],
        "failed_payment_rate": _rate(happened["failures"], payments),
        "recovery_rate": _rate(happened["recovered"], happened["failures"]),
    }


def _rate(part: int, whole: int) -> float | None:
    """A quotient, half away from zero; None of nothing."""
    return round_fraction(Fraction(part, whole) * 10**_DIGITS) / 10**_DIGITS if whole else None


def _cents(amount: int, parts: int) -> int | None:
    return round_fraction(Fraction(amount, parts)) if parts else None


def _spans(first: date, last: date, months: int) -> Iterator[tuple[date, date]]:
    """The first and last day of every period of so many months that holds a day between two."""
    begins = date(first.year, (first.month - 1) // months * months + 1, 1)
    while begins <= last:
        following = add_months(begins, months, 1)
        yield begins, following - timedelta(days=1)
        begins = following


def _name(begins: date, by: str) -> str:
    day = begins.isoformat()
    return {"month": day[:7], "quarter": quarter_of(day), "year": day[:4]}[by]


def _by_month(view: View, start: date, end: date) -> dict[str, Counter[str]]:
    """What happened in each month that has anything: the sums of all tables, by their columns' names."""
    months: dict[str, Counter[str]] = {}
    for table, (book, names) in _SUMMED.items():
        days = TOTALS[table]
        month = func.substr(days.c.date, 1, 7).label("month")
        found = view.all(
            select(month, *sum_columns(days, names))
            .where(*view.filters(days, book), days.c.date.between(start.isoformat(), end.isoformat()))
            .group_by(month)
        )
        for row in found:
            months.setdefault(row.month, Counter()).update({name: getattr(row, name) for name in names})
    return months


def _before(view: View, day: date) -> tuple[int, int]:
    """MRR and paying customers at the end of the day before."""
    days = TOTALS["movement_days"]
    row = view.one(
        select(*sum_columns(days, (*_AMOUNTS, *_CUSTOMERS))).where(
            *view.filters(days, "mrr"), days.c.date < day.isoformat()
        )
    )
    return (
        sum(getattr(row, name) for name in _AMOUNTS),
        row.new_customers + row.reactivation_customers - row.churn_customers,
    )
