"""The metrics of recurring revenue by month, quarter or year.

Movements and payments are sums by month. Churn and retention are of the customers who were there when the
period began: what became of their MRR until its end.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from fractions import Fraction
from typing import Annotated, Literal

from msgspec import Struct, field
from sqlalchemy import Subquery, case, func, select

from projections.mrr import MOVEMENT_KINDS, Movement
from service.books.tables import ROWS, TOTALS
from service.books.view import View, sum_columns
from service.core.cadence import add_months
from service.core.money import round_fraction
from service.reads.answers import (
    ClosingCents,
    Day,
    OpeningCents,
    about,
    cents,
    day,
    or_null,
    ratio,
)
from service.reads.forecast import quarter_of
from service.reads.mrr import (
    ArrCents,
    ChurnCents,
    ChurnedCustomers,
    ContractionCents,
    Counting,
    ExpansionCents,
    NewCents,
    NewCustomers,
    ReactivatedCustomers,
    ReactivationCents,
    describe_counting,
)

PERIODS = {"month": 1, "quarter": 3, "year": 12}  # months in each

_DIGITS = 6  # of a rate
_AMOUNTS = tuple(f"{kind}_cents" for kind in MOVEMENT_KINDS)
_CUSTOMERS = ("new_customers", "reactivation_customers", "churn_customers")
_SUMMED_COLUMNS = {  # by table of totals: its book, and the columns to sum
    "movement_days": ("mrr", (*_AMOUNTS, *_CUSTOMERS)),
    "order_days": ("revenue", ("first_try_orders",)),
    "failure_days": ("revenue", ("failures", "recovered")),
}


class MetricsOfPeriod(Struct, frozen=True, kw_only=True):
    """The metrics of one period."""

    period: Annotated[str, about('the month ("2025-11"), the quarter ("2025-Q4") or the year ("2025")')]
    from_: Annotated[Day, day("the first day")] = field(name="from")
    to: Annotated[Day, day("the last day")]
    complete: Annotated[bool, about("whether the period ends by `today`; one that does not may still change")]
    opening_cents: OpeningCents
    new_cents: NewCents
    reactivation_cents: ReactivationCents
    expansion_cents: ExpansionCents
    contraction_cents: ContractionCents
    churn_cents: ChurnCents
    closing_cents: ClosingCents
    opening_customers: Annotated[int, about("customers with MRR before")]
    new_customers: NewCustomers
    reactivated_customers: ReactivatedCustomers
    churned_customers: ChurnedCustomers
    closing_customers: Annotated[
        int, about("customers with MRR after: opening + new + reactivated − churned")
    ]
    arr_cents: Annotated[ArrCents, cents("12 × closing_cents")]
    arpa_cents: Annotated[int | None, or_null(cents("closing_cents ÷ closing_customers"), "where that is 0")]
    customer_churn_rate: Annotated[
        float | None, ratio("the part of the customers with MRR before who have none after", "theirs")
    ]
    gross_mrr_churn_rate: Annotated[
        float | None, ratio("what those of them with less MRR after lost ÷ their MRR before", "theirs")
    ]
    net_mrr_churn_rate: Annotated[float | None, ratio("1 − net_revenue_retention", "`opening_cents`")]
    net_revenue_retention: Annotated[
        float | None, ratio("their MRR after ÷ their MRR before", "`opening_cents`")
    ]
    quick_ratio: Annotated[
        float | None,
        ratio(
            "(new_cents + reactivation_cents + expansion_cents) ÷ −(contraction_cents + churn_cents)",
            "what was lost",
        ),
    ]
    ltv_cents: Annotated[
        int | None,
        or_null(
            cents("lifetime value: ARPA × months of the period ÷ customer_churn_rate, both unrounded"),
            "without customers at the end, or without churn",
        ),
    ]
    payments: Annotated[
        int, about("orders paid without a failed attempt, by their day, and `failed_payments`")
    ]
    failed_payments: Annotated[
        int, about("orders and bills of which an attempt failed, by the day of the first failure")
    ]
    recovered_payments: Annotated[int, about("how many of `failed_payments` have been paid since, up to now")]
    failed_payment_rate: Annotated[float | None, ratio("failed_payments ÷ payments", "`payments`")]
    recovery_rate: Annotated[float | None, ratio("recovered_payments ÷ failed_payments", "`failed_payments`")]


class Metrics(Counting, frozen=True, kw_only=True):
    """The metrics of recurring revenue by period."""

    by: Annotated[Literal["month", "quarter", "year"], about("the length of a period")]
    periods: Annotated[list[MetricsOfPeriod], about("every period that holds a day of the range, whole")]


class Period(Struct, frozen=True, kw_only=True):
    """A period by its name, its first and last day, and its length in months; `complete` if it has ended."""

    name: str
    begins: date
    ends: date
    months: int
    complete: bool


def metrics(view: View, first: date, last: date, by: Literal["month", "quarter", "year"]) -> Metrics:
    """The metrics of every period that holds a day from `first` to `last`, each period whole."""
    listed = [
        Period(
            name=_period_name(begins, by),
            begins=begins,
            ends=ends,
            months=PERIODS[by],
            complete=ends <= view.scope.today,
        )
        for begins, ends in periods(first, last, PERIODS[by])
    ]
    sums_by_month = _by_month(view, listed[0].begins, listed[-1].ends)
    mrr_cents, customers = _opening(view, listed[0].begins)
    measured: list[MetricsOfPeriod] = []
    for period in listed:
        sums_of_period: Counter[str] = Counter()
        for month, sums_of_month in sums_by_month.items():
            if period.begins.isoformat()[:7] <= month <= period.ends.isoformat()[:7]:
                sums_of_period.update(sums_of_month)
        cohort = cohort_of(view, period.begins, period.ends)
        measured.append(measure(period, mrr_cents, customers, sums_of_period, cohort))
        mrr_cents, customers = measured[-1].closing_cents, measured[-1].closing_customers
    return Metrics(**describe_counting(view), by=by, periods=measured)


class Cohort(Struct, frozen=True, kw_only=True):
    """The customers with MRR when a period begins: how many, their MRR then and at its end.

    `lost_cents` is what those lost whose MRR is less at the end, `left` how many have none then.
    """

    customers: int
    opening_cents: int
    closing_cents: int
    lost_cents: int
    left: int


def cohort_of(view: View, begins: date, ends: date) -> Cohort:
    """The customers with MRR when a period begins, and what became of it until the period's end."""
    customers = customers_with_mrr(view, begins, ends)
    opening, closing = customers.c.opening, customers.c.closing
    lost = case((closing < opening, opening - closing), else_=0)
    sums = {"opening_cents": opening, "closing_cents": closing, "lost_cents": lost}
    columns = [func.coalesce(func.sum(value), 0).label(name) for name, value in sums.items()]
    left = func.count(case((closing == 0, 1))).label("left")
    row = view.one(select(func.count().label("customers"), *columns, left))
    return Cohort(**{name: int(value) for name, value in row._mapping.items()})  # noqa: SLF001


def customers_with_mrr(view: View, begins: date, ends: date) -> Subquery:
    """The `key` of each customer with MRR when a period begins, and the MRR then and at its end."""
    table = ROWS[Movement]
    opening = func.sum(case((table.c.date < begins.isoformat(), table.c.amount_cents), else_=0))
    return (
        select(table.c.key, opening.label("opening"), func.sum(table.c.amount_cents).label("closing"))
        .where(*view.filters(table, "mrr"), table.c.date <= ends.isoformat())
        .group_by(table.c.key)
        .having(opening > 0)
        .subquery()
    )


def measure(
    period: Period,
    opening_cents: int,
    opening_customers: int,
    sums: Counter[str],
    cohort: Cohort,
) -> MetricsOfPeriod:
    """The metrics of one period, from its opening figures, its sums and its cohort."""
    new, reactivation, expansion, contraction, churn = (sums[name] for name in _AMOUNTS)
    new_customers, reactivated, churned = (sums[name] for name in _CUSTOMERS)
    closing_cents = opening_cents + new + reactivation + expansion + contraction + churn
    closing_customers = opening_customers + new_customers + reactivated - churned
    payments = sums["first_try_orders"] + sums["failures"]
    return MetricsOfPeriod(
        period=period.name,
        from_=period.begins.isoformat(),
        to=period.ends.isoformat(),
        complete=period.complete,
        opening_cents=opening_cents,
        new_cents=new,
        reactivation_cents=reactivation,
        expansion_cents=expansion,
        contraction_cents=contraction,
        churn_cents=churn,
        closing_cents=closing_cents,
        opening_customers=opening_customers,
        new_customers=new_customers,
        reactivated_customers=reactivated,
        churned_customers=churned,
        closing_customers=closing_customers,
        arr_cents=12 * closing_cents,
        arpa_cents=_cents(closing_cents, closing_customers),
        customer_churn_rate=_rate(cohort.left, cohort.customers),
        gross_mrr_churn_rate=_rate(cohort.lost_cents, cohort.opening_cents),
        net_mrr_churn_rate=_rate(cohort.opening_cents - cohort.closing_cents, cohort.opening_cents),
        net_revenue_retention=_rate(cohort.closing_cents, cohort.opening_cents),
        quick_ratio=_rate(new + reactivation + expansion, -(contraction + churn)),
        ltv_cents=_cents(closing_cents * period.months * cohort.customers, closing_customers * cohort.left),
        payments=payments,
        failed_payments=sums["failures"],
        recovered_payments=sums["recovered"],
        failed_payment_rate=_rate(sums["failures"], payments),
        recovery_rate=_rate(sums["recovered"], sums["failures"]),
    )


def _rate(part: int, whole: int) -> float | None:
    """A quotient, rounded half away from zero; None if `whole` is 0."""
    return round_fraction(Fraction(part, whole) * 10**_DIGITS) / 10**_DIGITS if whole else None


def _cents(amount: int, parts: int) -> int | None:
    return round_fraction(Fraction(amount, parts)) if parts else None


def periods(first: date, last: date, months: int) -> Iterator[tuple[date, date]]:
    """The first and last day of every period, `months` long, that holds a day from `first` to `last`."""
    begins = date(first.year, (first.month - 1) // months * months + 1, 1)
    while begins <= last:
        following = add_months(begins, months, 1)
        yield begins, following - timedelta(days=1)
        begins = following


def _period_name(begins: date, by: str) -> str:
    day = begins.isoformat()
    return {"month": day[:7], "quarter": quarter_of(day), "year": day[:4]}[by]


def _by_month(view: View, start: date, end: date) -> dict[str, Counter[str]]:
    """The sums of all tables by month, each by its column's name; months without any are left out."""
    months: dict[str, Counter[str]] = {}
    for table, (book, names) in _SUMMED_COLUMNS.items():
        days = TOTALS[table]
        month = func.substr(days.c.date, 1, 7).label("month")
        rows = view.all(
            select(month, *sum_columns(days, names))
            .where(*view.filters(days, book), days.c.date.between(start.isoformat(), end.isoformat()))
            .group_by(month)
        )
        for row in rows:
            months.setdefault(row.month, Counter()).update({name: getattr(row, name) for name in names})
    return months


def _opening(view: View, day: date) -> tuple[int, int]:
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
