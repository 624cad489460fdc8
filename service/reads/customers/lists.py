"""Lists of customers by their purchases: the largest, those at risk, cohorts, shares.

Each answer is as of the end of `today`.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated, Any

from msgspec import Meta, MsgspecError, Struct, json
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from projections.revenue import Order
from service.books.tables import ROWS, TOTALS
from service.books.view import View, sum_columns
from service.core.cadence import FREQUENCIES
from service.core.errors import ParameterError
from service.core.money import round_half_away
from service.reads.customers.classes import (
    AT_RISK_DAYS,
    SEGMENTS,
    activity_of,
    lifecycle_of,
    ratio,
    segment_bounds,
    segment_of,
)
from service.reads.customers.customer_set import (
    CohortMonth,
    CustomerSet,
    NoIndex,
    cohort_months,
    customers_at_end_of_day,
)
from service.reads.customers.risk import with_risk
from service.reads.months import months_between
from service.reads.parameters import months_back

SORTS = {
    "revenue": "revenue_cents",
    "net_revenue": "net_cents",
    "orders": "orders",
    "first_purchase": "first_date",
    "last_purchase": "last_date",
}

_orders = ROWS[Order]
_frequencies = TOTALS["customer_frequencies"]


RETENTION_MONTHS = 120  # of a cohort, at most

# Lists


class PageRequest(Struct, frozen=True, kw_only=True):
    """Which part of a list, and in which order. Without a limit, all customers after `after`."""

    sort: str = "revenue"
    order: str = "desc"
    limit: int | None
    after: str | None = None


def top(view: View, request: PageRequest) -> dict[str, Any]:
    """Customers by revenue, or by another measure."""
    return _page(view, customers_at_end_of_day(view), [], request)


def at_risk(view: View, segments: Sequence[str], stage: str, request: PageRequest) -> dict[str, Any]:
    """Customers of some segments who are at risk or have churned, with MRR and churn risk."""
    customers = customers_at_end_of_day(view)
    conditions = [
        _in_stage(view, NoIndex(customers.c.last_date), stage),
        _in_segments(view, customers, segments),
    ]
    page = _page(view, customers, conditions, request)
    return {"stage": stage, **page, "customers": with_risk(view, page["customers"])}


def _in_stage(view: View, last_date: ColumnElement[Any], stage: str) -> ColumnElement[bool]:
    """A condition on the day of the last purchase; new customers bought later than either stage."""
    start, end = ((view.scope.today - timedelta(days=days)).isoformat() for days in reversed(AT_RISK_DAYS))
    return last_date.between(start, end) if stage == "at_risk" else last_date < start


def _in_segments(view: View, customers: CustomerSet, segments: Sequence[str]) -> ColumnElement[bool]:
    revenue, bounds = customers.c.revenue_cents, segment_bounds(view)
    at_least = [revenue >= least for least in bounds]
    below = [revenue < least for least in bounds]
    ranges = (at_least[0], *(and_(*pair) for pair in zip(below, at_least[1:], strict=False)), below[-1])
    return or_(*(range_ for name, range_ in zip(SEGMENTS, ranges, strict=True) if name in segments))


def _page(
    view: View, customers: CustomerSet, conditions: list[ColumnElement[bool]], request: PageRequest
) -> dict[str, Any]:
    """One page of customers; ties are ordered by last purchase, then id."""
    sort_column = customers.c[SORTS[request.sort]]
    ties = [customers.c[name] for name in ("last_date", "customer_id", "processor", "account")]
    query = view.with_names(select(customers.table), customers.table).where(
        *customers.conditions, *conditions
    )
    if request.after:
        value, *tie_values = _parse_cursor(request.after, SORTS[request.sort])
        is_beyond = sort_column < value if request.order == "desc" else sort_column > value
        query = query.where(
            or_(is_beyond, and_(sort_column == value, tuple_(*ties) > tuple_(*map(literal, tie_values))))
        )
    query = query.order_by(sort_column.desc() if request.order == "desc" else sort_column, *ties)
    rows = view.all(query.limit(None if request.limit is None else request.limit + 1))
    page = rows[: request.limit]
    last = page[-1] if len(rows) > len(page) else None
    return {
        "currency": view.scope.currency,
        "customers": customer_rows(view, page),
        "next_cursor": last and _make_cursor(last, SORTS[request.sort]),
    }


_BigInt = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_CURSOR_DECODERS = {kind: json.Decoder(tuple[kind, str, str, str, str]) for kind in (_BigInt, str)}  # type: ignore[valid-type]


def _parse_cursor(cursor: str, sort: str) -> tuple[Any, ...]:
    """The last row's values of the page before. Raises ParameterError for the cursor of another list."""
    try:
        values = _CURSOR_DECODERS[str if sort.endswith("_date") else _BigInt].decode(cursor)
    except MsgspecError:
        values = None
    if values is None or not all(str(part).isprintable() for part in values):
        raise ParameterError("cursor: the `next_cursor` of the page before, in the same order")
    return values


def _make_cursor(row: Any, sort: str) -> str:
    values = (getattr(row, sort), row.last_date, row.customer_id, row.processor, row.account)
    return json.encode(values).decode()


def customer_rows(view: View, page: Sequence[Any]) -> list[dict[str, Any]]:
    """Customers as rows of a list. `causes` are those of the last purchase."""
    bounds, today, causes = segment_bounds(view), view.scope.today, _last_causes(view, page)
    rows = []
    for row in page:
        days_known = (today - date.fromisoformat(row.first_date)).days
        days_quiet = (today - date.fromisoformat(row.last_date)).days
        rows.append(
            {
                "customer_id": row.customer_id,
                "customer_name": row.customer_name,
                "total_revenue_cents": row.revenue_cents,
                "total_orders": row.orders,
                "avg_order_value_cents": round_half_away(row.revenue_cents, row.orders),
                "total_refunds_cents": row.refunded_cents,
                "total_disputes_cents": row.disputed_cents,
                "net_revenue_cents": row.net_cents,
                "first_purchase_date": row.first_date,
                "last_purchase_date": row.last_date,
                "days_since_last_purchase": days_quiet,
                "customer_segment": segment_of(row.revenue_cents, bounds),
                "activity_status": activity_of(days_quiet),
                "lifecycle_stage": lifecycle_of(days_known, days_quiet),
                "processor": row.processor,
                "account": row.account,
                "causes": causes[row.processor, row.account, row.customer_id],
            }
        )
    return rows


def _last_causes(view: View, page: Sequence[Any]) -> dict[tuple[str, str, str], list[str]]:
    """The events behind each customer's purchases of their last day."""
    last_days = [(row.customer_id, row.last_date) for row in page]
    causes_by_customer: dict[tuple[str, str, str], set[str]] = {}
    for start in range(0, len(last_days), 1_000):  # a statement takes a limited number of values
        batch = last_days[start : start + 1_000]
        is_in_batch = and_(
            _orders.c.customer_id.in_([customer_id for customer_id, _ in batch]),  # for the sake of an index
            tuple_(_orders.c.customer_id, _orders.c.date).in_(batch),
        )
        columns = (_orders.c[name] for name in ("processor", "account", "customer_id", "causes"))
        for row in view.all(select(*columns).where(*view.filters(_orders, "revenue"), is_in_batch)):
            causes_by_customer.setdefault((row.processor, row.account, row.customer_id), set()).update(
                json.decode(row.causes)
            )
    return {customer: sorted(causes) for customer, causes in causes_by_customer.items()}


# Shares


def distribution(view: View) -> dict[str, Any]:
    """The number of customers and the revenue of each segment."""
    return {"currency": view.scope.currency, **_segment_shares(view, customers_at_end_of_day(view))}


def _segment_shares(view: View, customers: CustomerSet) -> dict[str, Any]:
    rows = []
    for name in SEGMENTS:
        count, cents = _tally(view, customers, _in_segments(view, customers, [name]))
        rows.append({"segment": name, "customers": count, "revenue_cents": cents})
    return _with_shares(rows, "segments")


def _with_shares(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Rows with their shares of all customers and of all revenue."""
    customers, revenue = (sum(row[column] for row in rows) for column in ("customers", "revenue_cents"))
    return {
        "customers": customers,
        "revenue_cents": revenue,
        name: [
            {
                **row,
                "customer_share": ratio(row["customers"], customers, 4),
                "revenue_share": ratio(row["revenue_cents"], revenue, 4),
            }
            for row in rows
        ],
    }


def purchase_frequency(view: View) -> dict[str, Any]:
    """Customers by the average days between their purchases; those with one order have none."""
    by_frequency = {name: (customers, cents) for name, customers, cents in view.all(_by_frequency(view))}
    single, _ = by_frequency.pop("", (0, 0))
    rows = [
        {"frequency": name, "customers": customers, "revenue_cents": int(cents)}
        for name in FREQUENCIES
        for customers, cents in [by_frequency.get(name, (0, 0))]
    ]
    return {
        "currency": view.scope.currency,
        **_with_shares(rows, "frequencies"),
        "single_purchase_customers": single,
    }


def _by_frequency(view: View) -> Select[Any]:
    """Customers and revenue by frequency, "" for one order: from the totals, or from recomputed customers."""
    customers = customers_at_end_of_day(view)
    if customers.recomputed is None:
        query = select(_frequencies.c.frequency, *sum_columns(_frequencies, ("customers", "revenue_cents")))
        return query.where(*view.filters(_frequencies, "revenue")).group_by(_frequencies.c.frequency)
    gaps, lifespan = customers.c.orders - 1, customers.c.lifespan_days
    *limited, (least_often, _) = FREQUENCIES.items()
    limits = [(lifespan <= gaps * days, name) for name, days in limited if days]
    frequency = case((gaps == 0, ""), *limits, else_=least_often).label("frequency")
    columns = (frequency, func.count(), func.sum(customers.c.revenue_cents))
    return select(*columns).where(*customers.conditions).group_by(frequency)


# Cohorts


def cohorts(view: View, first: date, last: date) -> dict[str, Any]:
    """Customers by the month of their first purchase, and how many of them bought in each later month."""
    months: dict[str, dict[str, CohortMonth]] = {}
    for (cohort, month), totals in cohort_months(view, customers_at_end_of_day(view)).items():
        months.setdefault(cohort, {})[month] = totals
    rows = [_cohort(view, name, months.get(name, {})) for name in months_between(first, last)]
    return {"currency": view.scope.currency, "cohorts": rows}


def _cohort(view: View, cohort: str, by_month: dict[str, CohortMonth]) -> dict[str, Any]:
    size = by_month[cohort].customers if by_month else 0
    revenue = sum(totals.revenue_cents for totals in by_month.values())
    all_months = months_between(date.fromisoformat(f"{cohort}-01"), view.scope.today) if by_month else []
    retention = [
        {"month": month, "months_since": i, "customers": count, "rate": ratio(count, size, 4)}
        for i, month in enumerate(all_months[:RETENTION_MONTHS])
        for count in [by_month[month].customers if month in by_month else 0]
    ]
    return {
        "cohort": cohort,
        "customers": size,
        "orders": sum(totals.orders for totals in by_month.values()),
        "revenue_cents": revenue,
        "avg_revenue_cents": round_half_away(revenue, size) if size else None,
        "retention_rates": [row["rate"] for row in retention],
        "retention": retention,
    }


# Dashboard


def dashboard(view: View) -> dict[str, Any]:
    """The value of all customers, their segments, and the monthly trend."""
    customers = customers_at_end_of_day(view)
    shares = _segment_shares(view, customers)
    number, total = shares["customers"], shares["revenue_cents"]
    trend = _trend(view, customers)
    previous_month, last_month = (trend[i]["revenue_cents"] for i in (-3, -2))
    largest = _largest(view, customers, [])
    count, cents = _tally(view, customers, _in_stage(view, customers.c.last_date, "at_risk"))
    return {
        "currency": view.scope.currency,
        "customers": number,
        "total_customer_value_cents": total,
        "average_customer_value_cents": round_half_away(total, number) if number else None,
        "top_customer_value_cents": largest[0]["total_revenue_cents"] if largest else None,
        "growth_rate": ratio(last_month - previous_month, previous_month, 4),
        "growth_month": trend[-2]["month"],
        "top_customers": largest,
        "distribution": shares["segments"],
        "at_risk": {
            "customers": count,
            "revenue_cents": cents,
            "top_customers": _largest(
                view, customers, [_in_stage(view, NoIndex(customers.c.last_date), "at_risk")]
            ),
        },
        "monthly_trend": trend[1:],
    }


def _tally(view: View, customers: CustomerSet, *conditions: ColumnElement[bool]) -> tuple[int, int]:
    """How many customers, and their revenue."""
    columns: list[Any] = [func.count(), func.coalesce(func.sum(customers.c.revenue_cents), 0)]
    count, cents = view.one(select(*columns).where(*customers.conditions, *conditions))
    return count, int(cents)


def _largest(
    view: View, customers: CustomerSet, conditions: list[ColumnElement[bool]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _page(view, customers, conditions, PageRequest(limit=5))["customers"]
    return rows


def _trend(view: View, customers: CustomerSet) -> list[dict[str, Any]]:
    """Thirteen months up to this one: revenue, orders, customers, and how many of them were new."""
    months = cohort_months(view, customers)
    trend = []
    for name in months_between(months_back(view.scope.today, 12), view.scope.today):
        by_cohort = {cohort: row for (cohort, month), row in months.items() if month == name}
        trend.append(
            {
                "month": name,
                "revenue_cents": sum(row.revenue_cents for row in by_cohort.values()),
                "orders": sum(row.orders for row in by_cohort.values()),
                "customers": sum(row.customers for row in by_cohort.values()),
                "new_customers": by_cohort[name].customers if name in by_cohort else 0,
            }
        )
    return trend
