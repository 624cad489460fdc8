"""One customer's revenue in a period, by time and by product, and the predictions for the customer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from msgspec import UNSET, Struct, UnsetType, json
from msgspec.structs import asdict
from sqlalchemy import select

from projections.customers import ProductName
from service.books.tables import ROWS
from service.books.view import View
from service.core.cadence import add_months
from service.core.money import round_half_away
from service.reads.answers import (
    Causes,
    Day,
    Link,
    Month,
    SourceId,
    Trust,
    about,
    cents,
    day,
    or_null,
)
from service.reads.customers.classes import (
    ActivityStatus,
    CustomerSegment,
    Focus,
    LifecycleStage,
    Treatment,
    ratio,
)
from service.reads.customers.customer import Customer, CustomerHeader, classify, header
from service.reads.customers.expectations import Predictions, expectations
from service.reads.forecast import quarter_of
from service.reads.months import months_between

PERIODS = {"all_time": None, "last_12_months": 12, "last_6_months": 6, "ytd": 0}  # months, up to today
BREAKDOWNS = ("monthly", "quarterly", "by_product")

_products = ROWS[ProductName]


_WITHOUT_ORDERS = "without orders"
PeriodName = Literal["all_time", "last_12_months", "last_6_months", "ytd"]
Orders = Annotated[int, about("how many orders")]
RevenueCents = Annotated[int, cents("orders")]
TotalRevenueCents = Annotated[int, cents("orders: paid invoices, and payments that belong to none")]
TotalOrders = Annotated[int, about("how many orders")]
AvgOrderValueCents = Annotated[int | None, or_null(cents("revenue for each order"), _WITHOUT_ORDERS)]
FirstPurchaseDate = Annotated[Day | None, or_null(day("the day of the first order"), _WITHOUT_ORDERS)]
LastPurchaseDate = Annotated[Day | None, or_null(day("the day of the last order"), _WITHOUT_ORDERS)]
LifespanDays = Annotated[int, about("days from the first order to the last")]
AvgDaysBetweenPurchases = Annotated[
    float | None, about("lifespan ÷ (orders − 1), to two digits; null for one order or none")
]
TotalRefundsCents = Annotated[int, cents("refunds that succeeded, by their own day")]
TotalDisputesCents = Annotated[int, cents("disputes lost, by the day they were lost")]
NetRevenueCents = Annotated[int, cents("revenue less refunds less disputes lost")]
ProductId = Annotated[str | None, about("the product, else its price; null where the order names none")]
ProductLabel = Annotated[str | None, about("its name, else its id; null where the order names none")]


class RevenueSummary(Struct, frozen=True, kw_only=True):
    """A customer's orders of a period, added up."""

    total_revenue_cents: TotalRevenueCents
    total_orders: TotalOrders
    avg_order_value_cents: AvgOrderValueCents
    first_purchase_date: FirstPurchaseDate
    last_purchase_date: LastPurchaseDate
    customer_lifespan_days: LifespanDays
    purchase_frequency_days: Annotated[int | None, about("lifespan ÷ orders, rounded; null without orders")]
    avg_days_between_purchases: AvgDaysBetweenPurchases
    total_refunds_cents: TotalRefundsCents
    total_disputes_cents: TotalDisputesCents
    net_revenue_cents: NetRevenueCents


class RevenueMonth(Struct, frozen=True, kw_only=True):
    """A customer's orders of a month."""

    month: Month
    revenue_cents: RevenueCents
    orders: Orders
    avg_order_value_cents: Annotated[int, cents("revenue for each order; 0 without orders")]


class RevenueQuarter(Struct, frozen=True, kw_only=True):
    """A customer's orders of a quarter."""

    quarter: Annotated[str, about('the quarter, such as "2025-Q4"')]
    revenue_cents: RevenueCents
    orders: Orders
    avg_order_value_cents: Annotated[int, cents("revenue for each order; 0 without orders")]


class ProductRevenue(Struct, frozen=True, kw_only=True):
    """A customer's orders of a product."""

    product_id: ProductId
    product_name: ProductLabel
    revenue_cents: RevenueCents
    orders: Orders
    percentage_of_total: Annotated[
        float | None, about("part of the revenue, in percent to two digits; null of nothing")
    ]


class OrderPart(Struct, frozen=True, kw_only=True):
    """What of an order is for one product."""

    product_id: ProductId
    product_name: ProductLabel
    amount_cents: Annotated[int, cents("its part of the order")]


class OrderRow(Struct, frozen=True, kw_only=True):
    """An order of a customer."""

    date: Annotated[Day, day("the day of its first payment")]
    source_id: SourceId
    amount_cents: Annotated[int, cents("what was collected")]
    trust: Trust
    link: Link
    products: Annotated[list[OrderPart], about("parts that add up to the amount")]
    causes: Causes


class ReversalRow(Struct, frozen=True, kw_only=True):
    """What went back to a customer."""

    date: Annotated[Day, day("the day on which it went back")]
    kind: Annotated[Literal["refunded", "disputed"], about("what became of the money")]
    source_id: SourceId
    amount_cents: Annotated[int, cents("how much")]
    trust: Trust
    causes: Causes


class CustomerRevenue(CustomerHeader, frozen=True, kw_only=True):
    """A customer's revenue in a period, and what is to be expected of them."""

    period: Annotated[PeriodName, about("which orders count")]
    revenue_summary: Annotated[RevenueSummary, about("the orders of the period, added up")]
    monthly_breakdown: Annotated[
        list[RevenueMonth] | UnsetType,
        about("every month from the first order's to that of `today`; with `breakdown=monthly`"),
    ] = UNSET
    quarterly_breakdown: Annotated[
        list[RevenueQuarter] | UnsetType,
        about("every quarter of these months; with `breakdown=quarterly`"),
    ] = UNSET
    product_breakdown: Annotated[
        list[ProductRevenue] | UnsetType,
        about("the period's revenue by product, the largest first; with `breakdown=by_product`"),
    ] = UNSET
    orders: Annotated[
        list[OrderRow] | UnsetType, about("every order of the period; only with `detail=orders`")
    ] = UNSET
    reversals: Annotated[
        list[ReversalRow] | UnsetType, about("what went back in the period; only with `detail=orders`")
    ] = UNSET
    predictions: Annotated[Predictions | None, about("what is to be expected; null unless asked for")]
    customer_segment: CustomerSegment
    treatment: Treatment
    activity_status: ActivityStatus
    lifecycle_stage: LifecycleStage
    focus: Focus


def revenue(
    view: View,
    customer: Customer,
    period: PeriodName,
    breakdowns: Sequence[str],
    *,
    with_predictions: bool,
    with_orders: bool,
) -> CustomerRevenue:
    """A customer's revenue in a period; segment, activity, lifecycle and predictions cover all time."""
    first = first_day(view.scope.today, period)
    orders = [row for row in customer.orders if row.date >= first]
    reversals = [row for row in customer.reversals if row.date >= first]
    months = _months(customer, first, view.scope.today)
    names = _product_names(view, customer, orders)
    return CustomerRevenue(
        **asdict(header(customer, view.scope.currency)),
        period=period,
        revenue_summary=summary(orders, reversals),
        monthly_breakdown=_by_month(orders, months) if "monthly" in breakdowns else UNSET,
        quarterly_breakdown=_by_quarter(orders, months) if "quarterly" in breakdowns else UNSET,
        product_breakdown=_by_product(orders, names) if "by_product" in breakdowns else UNSET,
        orders=[_order(row, names) for row in orders] if with_orders else UNSET,
        reversals=[*map(_reversal, reversals)] if with_orders else UNSET,
        predictions=expectations(view, customer) if with_predictions else None,
        **asdict(classify(view, customer)),
    )


def summary(orders: Sequence[Any], reversals: Sequence[Any]) -> RevenueSummary:
    """Sums over orders and reversals, which come by date. Without orders, dates and averages are null."""
    total, count = sum(row.amount_cents for row in orders), len(orders)
    refunds = sum(row.amount_cents for row in reversals if row.kind == "refunded")
    disputes = sum(row.amount_cents for row in reversals if row.kind == "disputed")
    first, last = (orders[0].date, orders[-1].date) if orders else (None, None)
    days = (date.fromisoformat(last) - date.fromisoformat(first)).days if first and last else 0
    return RevenueSummary(
        total_revenue_cents=total,
        total_orders=count,
        avg_order_value_cents=round_half_away(total, count) if count else None,
        first_purchase_date=first,
        last_purchase_date=last,
        customer_lifespan_days=days,
        purchase_frequency_days=round_half_away(days, count) if count else None,
        avg_days_between_purchases=ratio(days, count - 1, 2) if count else None,
        total_refunds_cents=refunds,
        total_disputes_cents=disputes,
        net_revenue_cents=total - refunds - disputes,
    )


def first_day(today: date, period: str) -> str:
    """The first day of a period that ends with `today`; "" for all time."""
    months = PERIODS[period]
    if months is None:
        return ""
    if not months:
        return f"{today.year:04d}-01-01"
    return (add_months(today, -months, today.day) + timedelta(days=1)).isoformat()


def _months(customer: Customer, first: str, today: date) -> list[str]:
    """The months of a period, from that of the first order ever to that of `today`."""
    if not customer.orders:
        return []
    start = max(first, customer.orders[0].date)
    return months_between(date.fromisoformat(start), today)


def _by_month(orders: Iterable[Any], months: Sequence[str]) -> list[RevenueMonth]:
    tallies = _tallies(orders, months, lambda date_: date_[:7])
    return [RevenueMonth(month=month, **tally) for month, tally in tallies]


def _by_quarter(orders: Iterable[Any], months: Sequence[str]) -> list[RevenueQuarter]:
    tallies = _tallies(orders, list(dict.fromkeys(map(quarter_of, months))), quarter_of)
    return [RevenueQuarter(quarter=quarter, **tally) for quarter, tally in tallies]


def _tallies(
    orders: Iterable[Any], names: Sequence[str], part_of: Callable[[str], str]
) -> list[tuple[str, dict[str, int]]]:
    """Revenue and orders of each month or quarter in `names`; zeros where there are none."""
    amounts: dict[str, list[int]] = {name: [] for name in names}
    for row in orders:
        amounts[part_of(row.date)].append(row.amount_cents)
    return [
        (
            name,
            {
                "revenue_cents": sum(parts),
                "orders": len(parts),
                "avg_order_value_cents": round_half_away(sum(parts), len(parts)) if parts else 0,
            },
        )
        for name, parts in amounts.items()
    ]


def _by_product(orders: Sequence[Any], names: Mapping[str | None, str | None]) -> list[ProductRevenue]:
    """Revenue by product, the largest first. The parts add up to the whole revenue."""
    amounts: dict[str | None, list[int]] = {}
    for row in orders:
        for product, _, amount_cents in json.decode(row.products):
            amounts.setdefault(product, []).append(amount_cents)
    total = sum(map(sum, amounts.values()))
    return [
        ProductRevenue(
            product_id=product,
            product_name=names[product],
            revenue_cents=sum(parts),
            orders=len(parts),
            percentage_of_total=ratio(100 * sum(parts), total, 2),
        )
        for product, parts in sorted(amounts.items(), key=lambda item: (-sum(item[1]), item[0] or ""))
    ]


def _product_names(view: View, customer: Customer, orders: Sequence[Any]) -> dict[str | None, str | None]:
    """The names of the orders' products: by the product's event, else by the last line, else the id."""
    names: dict[str | None, str | None] = {}
    for row in orders:
        for product, name, _ in json.decode(row.products):
            names[product] = name or names.get(product) or product
    columns = _products.c
    query = select(columns.product_id, columns.name).where(
        *view.filters(_products, "customers", currency=False),
        columns.product_id.in_([product for product in names if product]),
        columns.processor == customer.processor,
        columns.account == customer.account,
        columns.name.is_not(None),
    )
    return names | {row.product_id: row.name for row in view.all(query)}


def _order(row: Any, names: Mapping[str | None, str | None]) -> OrderRow:
    products = [
        OrderPart(product_id=product, product_name=names[product], amount_cents=amount_cents)
        for product, _, amount_cents in json.decode(row.products)
    ]
    return OrderRow(
        date=row.date,
        source_id=row.source_id,
        amount_cents=row.amount_cents,
        trust=row.trust,
        link=row.link or None,
        products=products,
        causes=json.decode(row.causes),
    )


def _reversal(row: Any) -> ReversalRow:
    return ReversalRow(
        date=row.date,
        kind=row.kind,
        source_id=row.source_id,
        amount_cents=row.amount_cents,
        trust=row.trust,
        causes=json.decode(row.causes),
    )
