"""Customers by what they have bought: the largest, those about to go, cohorts, shares.

An answer holds for the end of `today`.
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


class Page(Struct, frozen=True, kw_only=True):
    """Which part of a list: in which order, how many, from where on; without a limit all that are left."""

    sort: str = "revenue"
    order: str = "desc"
    limit: int | None
    after: str | None = None


def top(view: View, asked: Page) -> dict[str, Any]:
    """Customers by revenue, or by another measure."""
    return _page(view, customers_at_end_of_day(view), [], asked)


def at_risk(view: View, segments: Sequence[str], stage: str, asked: Page) -> dict[str, Any]:
    """Customers about to go, or gone, of some segments, with what is to be expected of them."""
    customers = customers_at_end_of_day(view)
    conditions = [
        _in_stage(view, NoIndex(customers.c.last_date), stage),
        _in_segments(view, customers, segments),
    ]
    page = _page(view, customers, conditions, asked)
    return {"stage": stage, **page, "customers": with_risk(view, page["customers"])}


def _in_stage(view: View, last_date: ColumnElement[Any], stage: str) -> ColumnElement[bool]:
    """By the day of the last purchase; who is new has bought later than any of these."""
    start, end = ((view.scope.today - timedelta(days=days)).isoformat() for days in reversed(AT_RISK_DAYS))
    return last_date.between(start, end) if stage == "at_risk" else last_date < start


def _in_segments(view: View, customers: CustomerSet, segments: Sequence[str]) -> ColumnElement[bool]:
    revenue, bounds = customers.c.revenue_cents, segment_bounds(view)
    reached = [revenue >= least for least in bounds]
    above = [revenue < least for least in bounds]
    ranges = (reached[0], *(and_(*pair) for pair in zip(above, reached[1:], strict=False)), above[-1])
    return or_(*(range_ for name, range_ in zip(SEGMENTS, ranges, strict=True) if name in segments))


def _page(
    view: View, customers: CustomerSet, conditions: list[ColumnElement[bool]], asked: Page
) -> dict[str, Any]:
    """One page of customers; ties by last purchase, then id."""
    by = customers.c[SORTS[asked.sort]]
    ties = [customers.c[name] for name in ("last_date", "customer_id", "processor", "account")]
    query = view.with_names(select(customers.of), customers.of).where(*customers.within, *conditions)
    if asked.after:
        value, *others = _place(asked.after, SORTS[asked.sort])
        beyond = by < value if asked.order == "desc" else by > value
        query = query.where(or_(beyond, and_(by == value, tuple_(*ties) > tuple_(*map(literal, others)))))
    query = query.order_by(by.desc() if asked.order == "desc" else by, *ties)
    rows = view.all(query.limit(None if asked.limit is None else asked.limit + 1))
    page = rows[: asked.limit]
    last = page[-1] if len(rows) > len(page) else None
    return {
        "currency": view.scope.currency,
        "customers": customer_rows(view, page),
        "next_cursor": last and _cursor(last, SORTS[asked.sort]),
    }


_Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_PLACES = {kind: json.Decoder(tuple[kind, str, str, str, str]) for kind in (_Whole, str)}  # type: ignore[valid-type]


def _place(cursor: str, sort: str) -> tuple[Any, ...]:
    """Where a page of this order ended. Raises ParameterError for a cursor of no such page."""
    try:
        place = _PLACES[str if sort.endswith("_date") else _Whole].decode(cursor)
    except MsgspecError:
        place = None
    if place is None or not all(str(part).isprintable() for part in place):
        raise ParameterError("cursor: the `next_cursor` of the page before, in the same order")
    return place


def _cursor(row: Any, sort: str) -> str:
    values = (getattr(row, sort), row.last_date, row.customer_id, row.processor, row.account)
    return json.encode(values).decode()


def customer_rows(view: View, page: Sequence[Any]) -> list[dict[str, Any]]:
    """Customers as rows of a list. `causes` are those of the last purchase."""
    bounds, today, why = segment_bounds(view), view.scope.today, _last_causes(view, page)
    rows = []
    for row in page:
        known = (today - date.fromisoformat(row.first_date)).days
        quiet = (today - date.fromisoformat(row.last_date)).days
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
                "days_since_last_purchase": quiet,
                "customer_segment": segment_of(row.revenue_cents, bounds),
                "activity_status": activity_of(quiet),
                "lifecycle_stage": lifecycle_of(known, quiet),
                "processor": row.processor,
                "account": row.account,
                "causes": why[row.processor, row.account, row.customer_id],
            }
        )
    return rows


def _last_causes(view: View, page: Sequence[Any]) -> dict[tuple[str, str, str], list[str]]:
    """The events behind each customer's purchases of their last day."""
    wanted = [(row.customer_id, row.last_date) for row in page]
    found: dict[tuple[str, str, str], set[str]] = {}
    for start in range(0, len(wanted), 1_000):  # a statement takes so many values
        some = wanted[start : start + 1_000]
        asked = and_(
            _orders.c.customer_id.in_([customer_id for customer_id, _ in some]),  # an index is sought by that
            tuple_(_orders.c.customer_id, _orders.c.date).in_(some),
        )
        columns = (_orders.c[name] for name in ("processor", "account", "customer_id", "causes"))
        for row in view.all(select(*columns).where(*view.filters(_orders, "revenue"), asked)):
            found.setdefault((row.processor, row.account, row.customer_id), set()).update(
                json.decode(row.causes)
            )
    return {who: sorted(causes) for who, causes in found.items()}


# Shares


def distribution(view: View) -> dict[str, Any]:
    """How many customers, and how much of the revenue, each segment has."""
    return {"currency": view.scope.currency, **_segments(view, customers_at_end_of_day(view))}


def _segments(view: View, customers: CustomerSet) -> dict[str, Any]:
    rows = []
    for name in SEGMENTS:
        count, cents = _tally(view, customers, _in_segments(view, customers, [name]))
        rows.append({"segment": name, "customers": count, "revenue_cents": cents})
    return _shared(rows, "segments")


def _shared(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Rows with their shares of the customers and the revenue of all."""
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
    found = {name: (customers, cents) for name, customers, cents in view.all(_by_frequency(view))}
    single, _ = found.pop("", (0, 0))
    rows = [
        {"frequency": name, "customers": customers, "revenue_cents": int(cents)}
        for name in FREQUENCIES
        for customers, cents in [found.get(name, (0, 0))]
    ]
    return {
        "currency": view.scope.currency,
        **_shared(rows, "frequencies"),
        "single_purchase_customers": single,
    }


def _by_frequency(view: View) -> Select[Any]:
    """Customers and revenue by frequency, "" for one order: as the book has added them up, or anew."""
    customers = customers_at_end_of_day(view)
    if customers.later is None:
        query = select(_frequencies.c.frequency, *sum_columns(_frequencies, ("customers", "revenue_cents")))
        return query.where(*view.filters(_frequencies, "revenue")).group_by(_frequencies.c.frequency)
    gaps, lifespan = customers.c.orders - 1, customers.c.lifespan_days
    *limited, (least_often, _) = FREQUENCIES.items()
    within = [(lifespan <= gaps * days, name) for name, days in limited if days]
    frequency = case((gaps == 0, ""), *within, else_=least_often).label("frequency")
    columns = (frequency, func.count(), func.sum(customers.c.revenue_cents))
    return select(*columns).where(*customers.within).group_by(frequency)


# Cohorts


def cohorts(view: View, first: date, last: date) -> dict[str, Any]:
    """Customers by the month of their first purchase, and how many of them bought in each month since."""
    months: dict[str, dict[str, CohortMonth]] = {}
    for (cohort, month), found in cohort_months(view, customers_at_end_of_day(view)).items():
        months.setdefault(cohort, {})[month] = found
    rows = [_cohort(view, name, months.get(name, {})) for name in months_between(first, last)]
    return {"currency": view.scope.currency, "cohorts": rows}


def _cohort(view: View, cohort: str, of: dict[str, CohortMonth]) -> dict[str, Any]:
    size, revenue = of[cohort].customers if of else 0, sum(found.revenue_cents for found in of.values())
    until = months_between(date.fromisoformat(f"{cohort}-01"), view.scope.today) if of else []
    retention = [
        {"month": month, "months_since": i, "customers": count, "rate": ratio(count, size, 4)}
        for i, month in enumerate(until[:RETENTION_MONTHS])
        for count in [of[month].customers if month in of else 0]
    ]
    return {
        "cohort": cohort,
        "customers": size,
        "orders": sum(found.orders for found in of.values()),
        "revenue_cents": revenue,
        "avg_revenue_cents": round_half_away(revenue, size) if size else None,
        "retention_rates": [row["rate"] for row in retention],
        "retention": retention,
    }


# Together


def dashboard(view: View) -> dict[str, Any]:
    """What customers are worth altogether, who they are, and how that changes."""
    customers = customers_at_end_of_day(view)
    shares = _segments(view, customers)
    number, total = shares["customers"], shares["revenue_cents"]
    trend = _trend(view, customers)
    before, whole = (trend[i]["revenue_cents"] for i in (-3, -2))
    largest = _largest(view, customers, [])
    count, cents = _tally(view, customers, _in_stage(view, customers.c.last_date, "at_risk"))
    return {
        "currency": view.scope.currency,
        "customers": number,
        "total_customer_value_cents": total,
        "average_customer_value_cents": round_half_away(total, number) if number else None,
        "top_customer_value_cents": largest[0]["total_revenue_cents"] if largest else None,
        "growth_rate": ratio(whole - before, before, 4),
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
    count, cents = view.one(select(*columns).where(*customers.within, *conditions))
    return count, int(cents)


def _largest(
    view: View, customers: CustomerSet, conditions: list[ColumnElement[bool]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _page(view, customers, conditions, Page(limit=5))["customers"]
    return rows


def _trend(view: View, customers: CustomerSet) -> list[dict[str, Any]]:
    """Thirteen months up to this one: what was bought, by how many customers, how many of them new."""
    months = cohort_months(view, customers)
    trend = []
    for name in months_between(months_back(view.scope.today, 12), view.scope.today):
        of = {cohort: row for (cohort, month), row in months.items() if month == name}
        trend.append(
            {
                "month": name,
                "revenue_cents": sum(row.revenue_cents for row in of.values()),
                "orders": sum(row.orders for row in of.values()),
                "customers": sum(row.customers for row in of.values()),
                "new_customers": of[name].customers if name in of else 0,
            }
        )
    return trend
