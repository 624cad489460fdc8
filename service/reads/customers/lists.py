"""Lists of customers by their purchases: the largest, those at risk, cohorts, shares.

Each answer is as of the end of `today`.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Annotated, Any, Literal, TypeVar, cast

from msgspec import Meta, MsgspecError, Struct, json
from msgspec.structs import asdict
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    distinct,
    false,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from projections.revenue import Order
from service.books.tables import ROWS, TOTALS
from service.books.view import View, customer_key, sum_columns
from service.core.cadence import FREQUENCIES, FREQUENCY_LIMITS, add_months
from service.core.errors import ParameterError
from service.core.money import round_half_away
from service.reads.answers import (
    Account,
    CancellationComment,
    CancellationFeedback,
    CancellationReason,
    Currency,
    CustomerId,
    Day,
    EmailOfCustomer,
    Month,
    MrrCents,
    NameOfCustomer,
    NextCursor,
    Processor,
    ReasonCauses,
    about,
    cents,
    day,
    or_null,
)
from service.reads.customers.classes import (
    AT_RISK_DAYS,
    QUIET_DAYS,
    ActivityStatus,
    CustomerSegment,
    LifecycleStage,
    SegmentName,
    Treatment,
    activity_of,
    lifecycle_of,
    ratio,
    segment_bounds,
    segment_names,
    segment_of,
)
from service.reads.customers.customer import Success
from service.reads.customers.customer_set import (
    CohortMonth,
    CustomerSet,
    NoIndex,
    cohort_months,
    customers_at_end_of_day,
)
from service.reads.customers.expectations import ChurnRisk
from service.reads.customers.revenue import (
    AvgDaysBetweenPurchases,
    AvgOrderValueCents,
    FirstPurchaseDate,
    LastPurchaseDate,
    LifespanDays,
    NetRevenueCents,
    Orders,
    RevenueCents,
    TotalDisputesCents,
    TotalOrders,
    TotalRefundsCents,
    TotalRevenueCents,
)
from service.reads.customers.risk import risks
from service.reads.months import months_between
from service.reads.parameters import months_back, to_cursor

SORTS = {
    "revenue": "revenue_cents",
    "net_revenue": "net_cents",
    "orders": "orders",
    "first_purchase": "first_date",
    "last_purchase": "last_date",
}

Name = TypeVar("Name", bound=str)

_orders = ROWS[Order]
_frequencies = TOTALS["customer_frequencies"]


RETENTION_MONTHS = 120  # of a cohort, at most

Customers = Annotated[int, about("how many distinct customers")]
Stage = Literal["at_risk", "churned"]
AtRiskBy = Literal["lifecycle", "activity"]
CustomerShare = Annotated[float | None, about("part of all customers, 0 to 1; null without customers")]
RevenueShare = Annotated[float | None, about("part of all revenue, 0 to 1; null without revenue")]


class CustomerRow(Struct, frozen=True, kw_only=True):
    """A customer in a list."""

    customer_id: CustomerId
    customer_name: NameOfCustomer
    customer_email: EmailOfCustomer
    total_revenue_cents: TotalRevenueCents
    total_orders: TotalOrders
    avg_order_value_cents: AvgOrderValueCents
    total_refunds_cents: TotalRefundsCents
    total_disputes_cents: TotalDisputesCents
    net_revenue_cents: NetRevenueCents
    first_purchase_date: FirstPurchaseDate
    last_purchase_date: LastPurchaseDate
    customer_lifespan_days: LifespanDays
    avg_days_between_purchases: AvgDaysBetweenPurchases
    days_since_last_purchase: Annotated[int, about("days from the last order to `today`")]
    customer_segment: CustomerSegment
    activity_status: ActivityStatus
    lifecycle_stage: LifecycleStage
    processor: Processor
    account: Account
    causes: Annotated[list[str], about("the events behind the orders of the last day")]


class CustomerAtRisk(CustomerRow, frozen=True, kw_only=True):
    """A customer in a list of those at risk."""

    mrr_cents: MrrCents
    ends_date: Annotated[
        Day | None, or_null(day("when all of their contracts are set to end"), "where they are not")
    ]
    churn_risk_score: ChurnRisk
    reason: CancellationReason
    feedback: CancellationFeedback
    comment: CancellationComment = None
    reason_causes: ReasonCauses


class TopCustomers(Struct, frozen=True, kw_only=True):
    """A page of customers."""

    success: Success
    currency: Currency
    customers: Annotated[list[CustomerRow], about("one page")]
    next_cursor: NextCursor


class CustomersAtRisk(Struct, frozen=True, kw_only=True):
    """A page of customers at risk."""

    success: Success
    by: Annotated[AtRiskBy, about("what `stage` is: a lifecycle stage, or an activity status")]
    stage: Annotated[Stage, about("the customers' lifecycle stage, or activity status")]
    currency: Currency
    customers: Annotated[list[CustomerAtRisk], about("one page")]
    next_cursor: NextCursor


class SegmentShare(Struct, frozen=True, kw_only=True):
    """The customers of a segment."""

    segment: Annotated[SegmentName, about("the segment")]
    treatment: Treatment
    customers: Customers
    revenue_cents: RevenueCents
    customer_share: CustomerShare
    revenue_share: RevenueShare
    avg_revenue_per_customer_cents: Annotated[
        int | None, or_null(cents("revenue for each customer"), "without customers")
    ]
    percentage_of_total: Annotated[
        float | None, about("part of all revenue, in percent to two digits; null without revenue")
    ]


class Distribution(Struct, frozen=True, kw_only=True):
    """Customers and revenue by segment."""

    success: Success
    currency: Currency
    customers: Customers
    revenue_cents: RevenueCents
    segments: Annotated[list[SegmentShare], about("every segment that the settings have, downwards")]


class Frequency(Struct, frozen=True, kw_only=True):
    """The customers who buy about as often."""

    frequency: Annotated[
        Literal["Monthly", "Quarterly", "Bi-Annual", "Annual+"],
        about("by average days between purchases: 31, 92, 184 at most, or more; a setting may say otherwise"),
    ]
    customers: Customers
    revenue_cents: RevenueCents
    customer_share: CustomerShare
    revenue_share: RevenueShare
    avg_customer_value_cents: Annotated[
        int | None, or_null(cents("revenue for each customer"), "without customers")
    ]


class PurchaseFrequency(Struct, frozen=True, kw_only=True):
    """Customers and revenue by how often they buy."""

    success: Success
    currency: Currency
    customers: Customers
    revenue_cents: RevenueCents
    frequencies: Annotated[list[Frequency], about("all four, upwards")]
    single_purchase_customers: Annotated[int, about("customers with one order, who have no frequency")]


class RetainedMonth(Struct, frozen=True, kw_only=True):
    """How many of a cohort bought in a month."""

    month: Month
    months_since: Annotated[int, about("months since the cohort's own, which is 0")]
    customers: Customers
    rate: Annotated[
        float | None, about("part of the cohort that bought in the month, 0 to 1; null without customers")
    ]


class Cohort(Struct, frozen=True, kw_only=True):
    """The customers whose first purchase was in one month."""

    cohort: Annotated[str, about('the month of the first order, such as "2025-01"')]
    customers: Customers
    orders: Orders
    revenue_cents: RevenueCents
    avg_revenue_cents: Annotated[int | None, or_null(cents("revenue for each customer"), "without customers")]
    retention_rates: Annotated[
        list[float | None],
        about("the rates of `retention` alone, from the cohort's own month on"),
    ]
    retention: Annotated[list[RetainedMonth], about("the months from the cohort's own to that of `today`")]


class Cohorts(Struct, frozen=True, kw_only=True):
    """Customers by the month of their first purchase."""

    success: Success
    currency: Currency
    cohorts: Annotated[list[Cohort], about("every month of the range, even without any")]


class TrendMonth(Struct, frozen=True, kw_only=True):
    """What all customers bought in a month."""

    month: Month
    revenue_cents: RevenueCents
    orders: Orders
    customers: Customers
    new_customers: Annotated[int, about("how many of them bought for the first time")]


class AtRisk(Struct, frozen=True, kw_only=True):
    """The customers who are quiet, but not lost yet."""

    customers: Customers
    revenue_cents: RevenueCents
    top_customers: Annotated[list[CustomerRow], about("the five largest")]


class Dashboard(Struct, frozen=True, kw_only=True):
    """What customers are worth altogether, who they are, and how that changes."""

    success: Success
    currency: Currency
    customers: Customers
    total_customer_value_cents: Annotated[int, cents("revenue of all customers")]
    average_customer_value_cents: Annotated[
        int | None, or_null(cents("revenue for each customer"), "without customers")
    ]
    top_customer_value_cents: Annotated[
        int | None, or_null(cents("the largest customer's revenue"), "without customers")
    ]
    growth_rate: Annotated[
        float | None,
        about("revenue of the last whole month against the one before, less 1; null without revenue before"),
    ]
    growth_month: Annotated[str, about("the last whole month")]
    customer_growth_rate: Annotated[
        float | None,
        about(
            "customers who bought this month to date against the same days of the month before, less 1; "
            "null without any before"
        ),
    ]
    revenue_growth_rate: Annotated[
        float | None,
        about("revenue of customers of the same days, less 1; null without revenue before"),
    ]
    top_customers: Annotated[list[CustomerRow], about("the five largest")]
    distribution: Annotated[list[SegmentShare], about("customers and revenue by segment")]
    at_risk: Annotated[AtRisk, about("customers whose last order is 60 to 120 days ago")]
    monthly_trend: Annotated[list[TrendMonth], about("the last twelve months, the present one too")]


# Lists


class PageRequest(Struct, frozen=True, kw_only=True):
    """Which part of a list, and in which order. Without a limit, all customers after `after`."""

    sort: str = "revenue"
    order: str = "desc"
    limit: int | None
    after: str | None = None


class _Page(Struct, frozen=True, kw_only=True):
    """The customers of a page, and the cursor of the next one."""

    customers: list[CustomerRow]
    next_cursor: str | None


def top(view: View, request: PageRequest) -> TopCustomers:
    """Customers by revenue, or by another measure."""
    page = _page(view, customers_at_end_of_day(view), [], request)
    return TopCustomers(
        success=True,
        currency=view.scope.currency,
        customers=page.customers,
        next_cursor=page.next_cursor,
    )


def at_risk(
    view: View, segments: Sequence[str], by: AtRiskBy, stage: Stage, request: PageRequest
) -> CustomersAtRisk:
    """Customers of some segments who are at risk or have churned, with MRR and churn risk.

    Raises ParameterError for a stage that is no activity status, where it is asked by activity.
    """
    if by == "activity" and stage != "at_risk":
        raise ParameterError(f"stage: {stage} is a lifecycle stage; there is none such by activity")
    customers = customers_at_end_of_day(view)
    last_date = NoIndex(customers.c.last_date)
    conditions = [
        in_stage(view, last_date, stage) if by == "lifecycle" else at_risk_by_activity(view, last_date),
        in_segments(view, customers, segments),
    ]
    page = _page(view, customers, conditions, request)
    return CustomersAtRisk(
        success=True,
        by=by,
        stage=stage,
        currency=view.scope.currency,
        customers=[
            CustomerAtRisk(**asdict(customer), **asdict(risk))
            for customer, risk in zip(page.customers, risks(view, page.customers), strict=True)
        ],
        next_cursor=page.next_cursor,
    )


def in_stage(view: View, last_date: ColumnElement[Any], stage: str) -> ColumnElement[bool]:
    """A condition on the day of the last purchase; new customers bought later than either stage."""
    start, end = ((view.scope.today - timedelta(days=days)).isoformat() for days in reversed(AT_RISK_DAYS))
    return last_date.between(start, end) if stage == "at_risk" else last_date < start


def at_risk_by_activity(view: View, last_date: ColumnElement[Any]) -> ColumnElement[bool]:
    """A condition on the day of the last purchase, by the activity status."""
    return last_date < (view.scope.today - timedelta(days=QUIET_DAYS)).isoformat()


def in_segments(view: View, customers: CustomerSet, segments: Sequence[str]) -> ColumnElement[bool]:
    """A condition on the customers' revenue: that of one of these segments."""
    revenue, bounds = customers.c.revenue_cents, segment_bounds(view)
    at_least = [revenue >= least for least in bounds]
    below = [revenue < least for least in bounds]
    ranges = (at_least[0], *(and_(*pair) for pair in zip(below, at_least[1:], strict=False)), below[-1])
    chosen = [range_ for name, range_ in zip(segment_names(bounds), ranges, strict=True) if name in segments]
    return or_(false(), *chosen)


def _page(
    view: View, customers: CustomerSet, conditions: list[ColumnElement[bool]], request: PageRequest
) -> _Page:
    """One page of customers; ties are ordered by last purchase, then id."""
    sort_column = customers.c[SORTS[request.sort]]
    ties = [customers.c[name] for name in ("last_date", "customer_id", "processor", "account")]
    query = view.with_names(select(customers.table), customers.table, with_email=True).where(
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
    return _Page(
        customers=_customer_rows(view, page),
        next_cursor=to_cursor(_make_cursor(last, SORTS[request.sort])) if last else None,
    )


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


def _customer_rows(view: View, page: Sequence[Any]) -> list[CustomerRow]:
    """Customers as rows of a list. `causes` are those of the last purchase."""
    bounds, today, causes = segment_bounds(view), view.scope.today, _last_causes(view, page)
    rows = []
    for row in page:
        days_known = (today - date.fromisoformat(row.first_date)).days
        days_quiet = (today - date.fromisoformat(row.last_date)).days
        rows.append(
            CustomerRow(
                customer_id=row.customer_id,
                customer_name=row.customer_name,
                customer_email=row.customer_email,
                total_revenue_cents=row.revenue_cents,
                total_orders=row.orders,
                avg_order_value_cents=round_half_away(row.revenue_cents, row.orders),
                total_refunds_cents=row.refunded_cents,
                total_disputes_cents=row.disputed_cents,
                net_revenue_cents=row.net_cents,
                first_purchase_date=row.first_date,
                last_purchase_date=row.last_date,
                customer_lifespan_days=row.lifespan_days,
                avg_days_between_purchases=ratio(row.lifespan_days, row.orders - 1, 2),
                days_since_last_purchase=days_quiet,
                customer_segment=segment_of(row.revenue_cents, bounds),
                activity_status=activity_of(days_quiet),
                lifecycle_stage=lifecycle_of(days_known, days_quiet),
                processor=row.processor,
                account=row.account,
                causes=causes[row.processor, row.account, row.customer_id],
            )
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


def distribution(view: View) -> Distribution:
    """The number of customers and the revenue of each segment."""
    segments = _segments(view, customers_at_end_of_day(view))
    return Distribution(
        success=True,
        currency=view.scope.currency,
        customers=sum(row.customers for row in segments),
        revenue_cents=sum(row.revenue_cents for row in segments),
        segments=segments,
    )


def _segments(view: View, customers: CustomerSet) -> list[SegmentShare]:
    tallies = {
        name: _tally(view, customers, in_segments(view, customers, [name]))
        for name in segment_names(segment_bounds(view))
    }
    revenue = sum(cents_ for _, cents_ in tallies.values())
    return [
        SegmentShare(
            segment=name,
            treatment=view.options.treatment.get(name),
            **shares,
            avg_revenue_per_customer_cents=_average(*tallies[name]),
            percentage_of_total=ratio(100 * tallies[name][1], revenue, 2),
        )
        for name, shares in _with_shares(tallies).items()
    ]


def _average(customers: int, revenue_cents: int) -> int | None:
    return round_half_away(revenue_cents, customers) if customers else None


def _with_shares(tallies: Mapping[Name, tuple[int, int]]) -> dict[Name, dict[str, Any]]:
    """Customers and revenue by name, with their shares of all customers and of all revenue."""
    customers, revenue = (sum(tally[part] for tally in tallies.values()) for part in (0, 1))
    return {
        name: {
            "customers": count,
            "revenue_cents": cents_,
            "customer_share": ratio(count, customers, 4),
            "revenue_share": ratio(cents_, revenue, 4),
        }
        for name, (count, cents_) in tallies.items()
    }


def purchase_frequency(view: View) -> PurchaseFrequency:
    """Customers by the average days between their purchases; those with one order have none."""
    found = {name: (customers, int(cents_)) for name, customers, cents_ in view.all(_by_frequency(view))}
    tallies = {name: found.get(name, (0, 0)) for name in FREQUENCIES}
    frequencies = [
        Frequency(frequency=cast(Any, name), **shares, avg_customer_value_cents=_average(*tallies[name]))
        for name, shares in _with_shares(tallies).items()
    ]
    return PurchaseFrequency(
        success=True,
        currency=view.scope.currency,
        customers=sum(row.customers for row in frequencies),
        revenue_cents=sum(row.revenue_cents for row in frequencies),
        frequencies=frequencies,
        single_purchase_customers=found.get("", (0, 0))[0],
    )


def _by_frequency(view: View) -> Select[Any]:
    """Customers and revenue by frequency, "" for one order.

    They are from the totals, or from the customers where these were recomputed, or the limits are others.
    """
    customers = customers_at_end_of_day(view)
    if customers.recomputed is None and view.options.frequency_limits == FREQUENCY_LIMITS:
        query = select(_frequencies.c.frequency, *sum_columns(_frequencies, ("customers", "revenue_cents")))
        return query.where(*view.filters(_frequencies, "revenue")).group_by(_frequencies.c.frequency)
    frequency = frequency_of(view, customers).label("frequency")
    columns = (frequency, func.count(), func.sum(customers.c.revenue_cents))
    return select(*columns).where(*customers.conditions).group_by(frequency)


def frequency_of(view: View, customers: CustomerSet) -> ColumnElement[str]:
    """How often each customer buys, by the settings' limits; "" for one order."""
    gaps, lifespan = customers.c.orders - 1, customers.c.lifespan_days
    *limited, least_often = FREQUENCIES
    limits = zip(view.options.frequency_limits, limited, strict=True)
    cases = [(lifespan <= gaps * days, name) for days, name in limits]
    return case((gaps == 0, ""), *cases, else_=least_often)


# Cohorts


def cohorts(view: View, first: date, last: date) -> Cohorts:
    """Customers by the month of their first purchase, and how many of them bought in each later month."""
    months: dict[str, dict[str, CohortMonth]] = {}
    for (cohort, month), totals in cohort_months(view, customers_at_end_of_day(view)).items():
        months.setdefault(cohort, {})[month] = totals
    rows = [_cohort(view, name, months.get(name, {})) for name in months_between(first, last)]
    return Cohorts(success=True, currency=view.scope.currency, cohorts=rows)


def _cohort(view: View, cohort: str, by_month: dict[str, CohortMonth]) -> Cohort:
    size = by_month[cohort].customers if by_month else 0
    revenue = sum(totals.revenue_cents for totals in by_month.values())
    all_months = months_between(date.fromisoformat(f"{cohort}-01"), view.scope.today) if by_month else []
    retention = [
        RetainedMonth(month=month, months_since=i, customers=count, rate=ratio(count, size, 4))
        for i, month in enumerate(all_months[:RETENTION_MONTHS])
        for count in [by_month[month].customers if month in by_month else 0]
    ]
    return Cohort(
        cohort=cohort,
        customers=size,
        orders=sum(totals.orders for totals in by_month.values()),
        revenue_cents=revenue,
        avg_revenue_cents=round_half_away(revenue, size) if size else None,
        retention_rates=[row.rate for row in retention],
        retention=retention,
    )


# Dashboard


def dashboard(view: View) -> Dashboard:
    """The value of all customers, their segments, and the monthly trend."""
    customers = customers_at_end_of_day(view)
    segments = _segments(view, customers)
    number, total = (sum(getattr(row, name) for row in segments) for name in ("customers", "revenue_cents"))
    trend = _trend(view, customers)
    previous_month, last_month = trend[-3].revenue_cents, trend[-2].revenue_cents
    before, now = (month_to_date(view, months) for months in (1, 0))
    largest = _largest(view, customers, [])
    count, at_risk_cents = _tally(view, customers, in_stage(view, customers.c.last_date, "at_risk"))
    quiet = in_stage(view, NoIndex(customers.c.last_date), "at_risk")
    return Dashboard(
        success=True,
        currency=view.scope.currency,
        customers=number,
        total_customer_value_cents=total,
        average_customer_value_cents=_average(number, total),
        top_customer_value_cents=largest[0].total_revenue_cents if largest else None,
        growth_rate=_growth(last_month, previous_month),
        growth_month=trend[-2].month,
        customer_growth_rate=_growth(now.customers, before.customers),
        revenue_growth_rate=_growth(now.revenue_cents, before.revenue_cents),
        top_customers=largest,
        distribution=segments,
        at_risk=AtRisk(
            customers=count,
            revenue_cents=at_risk_cents,
            top_customers=_largest(view, customers, [quiet]),
        ),
        monthly_trend=trend[1:],
    )


def _tally(view: View, customers: CustomerSet, *conditions: ColumnElement[bool]) -> tuple[int, int]:
    """How many customers, and their revenue."""
    columns: list[Any] = [func.count(), func.coalesce(func.sum(customers.c.revenue_cents), 0)]
    count, revenue = view.one(select(*columns).where(*customers.conditions, *conditions))
    return count, int(revenue)


def _growth(now: int, before: int) -> float | None:
    return ratio(now - before, before, 4)


class MonthToDate(Struct, frozen=True):
    """The customers who bought in the first days of a month, and their orders' sum."""

    customers: int
    revenue_cents: int


def month_to_date(view: View, months_ago: int) -> MonthToDate:
    """The month up to `today`, or the same days of an earlier one; all of one that has fewer days."""
    days = _orders.c.date.between(*days_to_date(view, months_ago))
    columns = (func.count(distinct(customer_key(_orders))), *sum_columns(_orders, ("amount_cents",)))
    query = select(*columns).where(
        *view.filters(_orders, "revenue"), days, NoIndex(_orders.c.customer_id) != ""
    )
    return MonthToDate(*view.one(query))


def days_to_date(view: View, months_ago: int) -> tuple[str, str]:
    """The first and the last of the days that `month_to_date` counts."""
    until = add_months(view.scope.today, -months_ago, view.scope.today.day)
    return until.replace(day=1).isoformat(), until.isoformat()


def _largest(view: View, customers: CustomerSet, conditions: list[ColumnElement[bool]]) -> list[CustomerRow]:
    return _page(view, customers, conditions, PageRequest(limit=5)).customers


def _trend(view: View, customers: CustomerSet) -> list[TrendMonth]:
    """Thirteen months up to this one: revenue, orders, customers, and how many of them were new."""
    months = cohort_months(view, customers)
    trend = []
    for name in months_between(months_back(view.scope.today, 12), view.scope.today):
        by_cohort = {cohort: row for (cohort, month), row in months.items() if month == name}
        trend.append(
            TrendMonth(
                month=name,
                revenue_cents=sum(row.revenue_cents for row in by_cohort.values()),
                orders=sum(row.orders for row in by_cohort.values()),
                customers=sum(row.customers for row in by_cohort.values()),
                new_customers=by_cohort[name].customers if name in by_cohort else 0,
            )
        )
    return trend
