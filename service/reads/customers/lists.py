"""Customers by what they have bought: the largest, those about to go, cohorts, shares.

An answer holds for the end of `today`. The customers as the book has them are those of that day unless
something in it is later; then they are added up again from the orders until then.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated, Any

from msgspec import Meta, MsgspecError, Struct, json
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    and_,
    case,
    cast,
    distinct,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from projections.revenue import CustomerRevenue, Order, Reversal
from service.books.tables import ROWS, TOTALS
from service.core.errors import ParameterError
from service.core.money import round_half_away
from service.reads.customers.classes import (
    AT_RISK_DAYS,
    FREQUENCIES,
    SEGMENTS,
    activity_of,
    lifecycle_of,
    ratio,
    segment_bounds,
    segment_of,
)
from service.reads.months import months_between
from service.reads.parameters import months_back
from service.reads.view import View, customer_key, sums
from service.sql import POSTGRESQL, days_between

SORTS = {
    "revenue": "revenue_cents",
    "orders": "orders",
    "first_purchase": "first_date",
    "last_purchase": "last_date",
}

_customers = ROWS[CustomerRevenue]
_orders = ROWS[Order]
_back = ROWS[Reversal]
_cohorts = TOTALS["cohort_months"]


# The customers of a day


class _People(Struct, frozen=True):
    """The customers at the end of `today`: a table, or a subquery of its columns, and its conditions."""

    of: FromClause
    within: list[ColumnElement[bool]]

    @property
    def c(self) -> Any:
        """The columns."""
        return self.of.c

    @property
    def standing(self) -> bool:
        """Whether the book has them as they are; what it has added up is then right, too."""
        return self.of is _customers


def _people(view: View) -> _People:
    within = view.within(_customers, "revenue")
    latest = view.one(select(func.max(_customers.c.changed_date)).where(*within))[0]
    if latest is None or latest <= view.scope.today.isoformat():
        return _People(_customers, [*within, _Unsought(_customers.c.orders) > 0])
    return _People(_until(view), [])


class _Unsought(FunctionElement[Any]):
    """A column that SQLite seeks by no index.

    It would take the index of a condition that nearly all rows meet, and sort what it finds. PostgreSQL knows
    how many those are.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(_Unsought)
def _unsought(element: _Unsought, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    return column if compiler.dialect.name == POSTGRESQL else f"+{column}"


def _until(view: View) -> FromClause:
    """The same columns, added up from the orders until the end of `today`."""
    today = view.scope.today.isoformat()
    who = ("processor", "account", "currency", "customer_id")
    first, last = func.min(_orders.c.date), func.max(_orders.c.date)

    def back(kind: str) -> ColumnElement[int]:
        query = select(*sums(_back, ("amount_cents",))).where(
            *view.within(_back, "revenue"), _back.c.kind == kind, _back.c.date <= today
        )
        return query.where(*(_back.c[name] == _orders.c[name] for name in who)).scalar_subquery()

    return (
        select(
            *(_orders.c[name] for name in who),
            first.label("first_date"),
            last.label("last_date"),
            days_between(first, last).label("lifespan_days"),
            func.count().label("orders"),
            _revenue(),
            back("refunded").label("refunded_cents"),
            back("disputed").label("disputed_cents"),
        )
        .where(*view.within(_orders, "revenue"), _orders.c.date <= today, _orders.c.customer_id != "")
        .group_by(_orders.c.book, *(_orders.c[name] for name in who))
        .subquery()
    )


def _revenue() -> ColumnElement[int]:
    """The sum of these orders, which is no whole number to PostgreSQL."""
    return cast(func.sum(_orders.c.amount_cents), BigInteger).label("revenue_cents")


# Lists


def top(view: View, sort: str, order: str, limit: int | None, after: str | None) -> dict[str, Any]:
    """Customers by what `sort` says."""
    return _page(view, _people(view), [], sort, order, limit, after)


def at_risk(
    view: View, segments: Sequence[str], stage: str, limit: int | None, after: str | None
) -> dict[str, Any]:
    """Customers about to go, or gone, of some segments: those with the most revenue first."""
    people = _people(view)
    conditions = [_in_stage(view, people, stage), _in_segments(view, people, segments)]
    return {"stage": stage, **_page(view, people, conditions, "revenue", "desc", limit, after)}


def _in_stage(view: View, people: _People, stage: str) -> ColumnElement[bool]:
    """By the day of the last purchase; who is new has bought later than any of these."""
    start, end = ((view.scope.today - timedelta(days=days)).isoformat() for days in reversed(AT_RISK_DAYS))
    last: ColumnElement[str] = _Unsought(people.c.last_date)
    return last.between(start, end) if stage == "at_risk" else last < start


def _in_segments(view: View, people: _People, segments: Sequence[str]) -> ColumnElement[bool]:
    revenue, bounds = people.c.revenue_cents, segment_bounds(view)
    reached = [revenue >= least for least in bounds]
    above = [revenue < least for least in bounds]
    ranges = (reached[0], *(and_(*pair) for pair in zip(above, reached[1:], strict=False)), above[-1])
    return or_(*(range_ for name, range_ in zip(SEGMENTS, ranges, strict=True) if name in segments))


def _page(
    view: View,
    people: _People,
    conditions: list[ColumnElement[bool]],
    sort: str,
    order: str,
    limit: int | None,
    after: str | None,
) -> dict[str, Any]:
    """One page of customers; ties by last purchase, then id. Without a limit all that are left."""
    by = people.c[SORTS[sort]]
    ties = [people.c[name] for name in ("last_date", "customer_id", "processor", "account")]
    query = view.named(select(people.of), people.of).where(*people.within, *conditions)
    if after:
        value, *others = _place(after, SORTS[sort])
        beyond = by < value if order == "desc" else by > value
        query = query.where(or_(beyond, and_(by == value, tuple_(*ties) > tuple_(*map(literal, others)))))
    query = query.order_by(by.desc() if order == "desc" else by, *ties)
    rows = view.all(query.limit(None if limit is None else limit + 1))
    page = rows[:limit]
    last = page[-1] if len(rows) > len(page) else None
    return {
        "currency": view.scope.currency,
        "customers": customer_rows(view, page),
        "next_cursor": last and _cursor(last, SORTS[sort]),
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
                "net_revenue_cents": row.revenue_cents - row.refunded_cents - row.disputed_cents,
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
        for row in view.all(select(*columns).where(*view.within(_orders, "revenue"), asked)):
            found.setdefault((row.processor, row.account, row.customer_id), set()).update(
                json.decode(row.causes)
            )
    return {who: sorted(causes) for who, causes in found.items()}


# Shares


def distribution(view: View) -> dict[str, Any]:
    """How many customers, and how much of the revenue, each segment has."""
    return {"currency": view.scope.currency, **_segments(view, _people(view))}


def _segments(view: View, people: _People) -> dict[str, Any]:
    rows = []
    for name in SEGMENTS:
        customers, cents = _tally(view, people, _in_segments(view, people, [name]))
        rows.append({"segment": name, "customers": customers, "revenue_cents": cents})
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
    people = _people(view)
    gaps, lifespan = people.c.orders - 1, people.c.lifespan_days
    *limited, (least_often, _) = FREQUENCIES.items()
    within = [(lifespan <= gaps * days, name) for name, days in limited]
    query = select(
        case((gaps == 0, ""), *within, else_=least_often).label("frequency"),
        func.count().label("customers"),
        func.sum(people.c.revenue_cents).label("revenue_cents"),
    )
    found = {row.frequency: row for row in view.all(query.where(*people.within).group_by("frequency"))}
    rows = [
        {
            "frequency": name,
            "customers": found[name].customers if name in found else 0,
            "revenue_cents": int(found[name].revenue_cents) if name in found else 0,
        }
        for name in FREQUENCIES
    ]
    return {
        "currency": view.scope.currency,
        **_shared(rows, "frequencies"),
        "single_purchase_customers": found[""].customers if "" in found else 0,
    }


# Cohorts


def cohorts(view: View, first: date, last: date) -> dict[str, Any]:
    """Customers by the month of their first purchase, and how many of them bought in each month since."""
    months = _cohort_months(view, _people(view))
    found = []
    for cohort in months_between(first, last):
        of = {month: row for (own, month), row in months.items() if own == cohort}
        size = of[cohort].customers if of else 0
        until = max(view.scope.today, date.fromisoformat(f"{cohort}-01"))
        since = months_between(date.fromisoformat(f"{cohort}-01"), until)
        revenue = sum(row.revenue_cents for row in of.values())
        retained = [of[month].customers if month in of else 0 for month in since]
        found.append(
            {
                "cohort": cohort,
                "customers": size,
                "orders": sum(row.orders for row in of.values()),
                "revenue_cents": revenue,
                "avg_revenue_cents": round_half_away(revenue, size) if size else None,
                "retention": [
                    {"month": month, "months_since": i, "customers": count, "rate": ratio(count, size, 4)}
                    for i, (month, count) in enumerate(zip(since, retained, strict=True))
                ]
                if size
                else [],
            }
        )
    return {"currency": view.scope.currency, "cohorts": found}


def _cohort_months(view: View, people: _People) -> dict[tuple[str, str], Any]:
    """Customers, orders and revenue by cohort and month, until the end of `today`."""
    names = ("customers", "orders", "revenue_cents")
    if people.standing:
        query = select(_cohorts.c.cohort, _cohorts.c.month, *sums(_cohorts, names))
        query = query.where(*view.within(_cohorts, "revenue"))
        rows = view.all(query.group_by(_cohorts.c.cohort, _cohorts.c.month))
    else:
        cohort = func.substr(people.c.first_date, 1, 7).label("cohort")
        month = func.substr(_orders.c.date, 1, 7).label("month")
        same = (_orders.c[n] == people.c[n] for n in ("processor", "account", "currency", "customer_id"))
        rows = view.all(
            select(
                cohort,
                month,
                func.count(distinct(customer_key(_orders))).label("customers"),
                func.count().label("orders"),
                _revenue(),
            )
            .select_from(people.of.join(_orders, and_(*same)))
            .where(*view.within(_orders, "revenue"), _orders.c.date <= view.scope.today.isoformat())
            .group_by(cohort, month)
        )
    return {(row.cohort, row.month): row for row in rows if row.customers}


# Together


def dashboard(view: View) -> dict[str, Any]:
    """What customers are worth altogether, who they are, and how that changes."""
    people = _people(view)
    worth = people.c.revenue_cents
    customers, total = _tally(view, people)
    largest = view.one(select(func.max(worth)).where(*people.within))[0]
    trend = _trend(view, people)
    before, whole = (trend[i]["revenue_cents"] for i in (-3, -2))
    about_to_go = [_in_stage(view, people, "at_risk")]
    count, cents = _tally(view, people, *about_to_go)
    return {
        "currency": view.scope.currency,
        "customers": customers,
        "total_customer_value_cents": total,
        "average_customer_value_cents": round_half_away(total, customers) if customers else None,
        "top_customer_value_cents": largest,
        "growth_rate": ratio(whole - before, before, 4),
        "growth_month": trend[-2]["month"],
        "top_customers": _largest(view, people, []),
        "distribution": _segments(view, people)["segments"],
        "at_risk": {
            "customers": count,
            "revenue_cents": cents,
            "top_customers": _largest(view, people, about_to_go),
        },
        "monthly_trend": trend[1:],
    }


def _tally(view: View, people: _People, *conditions: ColumnElement[bool]) -> tuple[int, int]:
    """How many customers, and their revenue."""
    columns: list[Any] = [func.count(), func.coalesce(func.sum(people.c.revenue_cents), 0)]
    count, cents = view.one(select(*columns).where(*people.within, *conditions))
    return count, int(cents)


def _largest(view: View, people: _People, conditions: list[ColumnElement[bool]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _page(view, people, conditions, "revenue", "desc", 5, None)["customers"]
    return rows


def _trend(view: View, people: _People) -> list[dict[str, Any]]:
    """Thirteen months up to this one: what was bought, by how many customers, how many of them new."""
    months = _cohort_months(view, people)
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
