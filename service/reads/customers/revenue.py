"""One customer's revenue in a period, by time and by product, and the predictions for the customer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from msgspec import json
from sqlalchemy import select

from projections.customers import ProductName
from service.books.tables import ROWS
from service.books.view import View
from service.core.cadence import add_months
from service.core.money import round_half_away
from service.reads.customers.classes import ratio
from service.reads.customers.customer import Customer, classify, header
from service.reads.customers.expectations import expectations
from service.reads.forecast import quarter_of
from service.reads.months import months_between

PERIODS = {"all_time": None, "last_12_months": 12, "last_6_months": 6, "ytd": 0}  # months, up to today
BREAKDOWNS = ("monthly", "quarterly", "by_product")

_products = ROWS[ProductName]


def revenue(
    view: View,
    customer: Customer,
    period: str,
    breakdowns: Sequence[str],
    *,
    with_predictions: bool,
    with_orders: bool,
) -> dict[str, Any]:
    """A customer's revenue in a period; segment, activity, lifecycle and predictions cover all time."""
    first = first_day(view.scope.today, period)
    orders = [row for row in customer.orders if row.date >= first]
    reversals = [row for row in customer.reversals if row.date >= first]
    months = _months(customer, first, view.scope.today)
    names = _product_names(view, customer, orders)
    quarters = list(dict.fromkeys(map(quarter_of, months)))
    parts: dict[str, Any] = {
        "monthly": ("monthly_breakdown", lambda: _by_time(orders, months, "month", month_of)),
        "quarterly": ("quarterly_breakdown", lambda: _by_time(orders, quarters, "quarter", quarter_of)),
        "by_product": ("product_breakdown", lambda: _by_product(orders, names)),
    }
    order_rows = [_order(row, names) for row in orders] if with_orders else []
    order_lists = {"orders": order_rows, "reversals": [*map(_reversal, reversals)]} if with_orders else {}
    return {
        **header(view, customer),
        "period": period,
        "revenue_summary": summary(orders, reversals),
        **{name: make() for key, (name, make) in parts.items() if key in breakdowns},
        **order_lists,
        "predictions": expectations(view, customer) if with_predictions else None,
        **classify(view, customer),
    }


def summary(orders: Sequence[Any], reversals: Sequence[Any]) -> dict[str, Any]:
    """Sums over orders and reversals, which come by date. Without orders, dates and averages are null."""
    total, count = sum(row.amount_cents for row in orders), len(orders)
    refunds = sum(row.amount_cents for row in reversals if row.kind == "refunded")
    disputes = sum(row.amount_cents for row in reversals if row.kind == "disputed")
    first, last = (orders[0].date, orders[-1].date) if orders else (None, None)
    days = (date.fromisoformat(last) - date.fromisoformat(first)).days if first and last else 0
    return {
        "total_revenue_cents": total,
        "total_orders": count,
        "avg_order_value_cents": round_half_away(total, count) if count else None,
        "first_purchase_date": first,
        "last_purchase_date": last,
        "customer_lifespan_days": days,
        "purchase_frequency_days": round_half_away(days, count) if count else None,
        "avg_days_between_purchases": ratio(days, count - 1, 2) if count else None,
        "total_refunds_cents": refunds,
        "total_disputes_cents": disputes,
        "net_revenue_cents": total - refunds - disputes,
    }


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


def month_of(day: str) -> str:
    """ "2025-11" for a day in it."""
    return day[:7]


def _by_time(
    orders: Iterable[Any], names: Sequence[str], name: str, part_of: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Revenue and orders of each month or quarter in `names`; zeros where there are none."""
    tally = {value: [0, 0] for value in names}
    for row in orders:
        totals = tally[part_of(row.date)]
        totals[0] += row.amount_cents
        totals[1] += 1
    return [
        {
            name: value,
            "revenue_cents": cents,
            "orders": count,
            "avg_order_value_cents": round_half_away(cents, count) if count else 0,
        }
        for value, (cents, count) in tally.items()
    ]


def _by_product(orders: Sequence[Any], names: Mapping[str | None, str | None]) -> list[dict[str, Any]]:
    """Revenue by product, the largest first. The parts add up to the whole revenue."""
    tally: dict[str | None, list[int]] = {}
    for row in orders:
        for product, _, cents in json.decode(row.products):
            totals = tally.setdefault(product, [0, 0])
            totals[0] += cents
            totals[1] += 1
    total = sum(cents for cents, _ in tally.values())
    return [
        {
            "product_id": product,
            "product_name": names[product],
            "revenue_cents": cents,
            "orders": count,
            "percentage_of_total": ratio(100 * cents, total, 2),
        }
        for product, (cents, count) in sorted(tally.items(), key=lambda item: (-item[1][0], item[0] or ""))
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


def _order(row: Any, names: Mapping[str | None, str | None]) -> dict[str, Any]:
    columns = ("date", "source_id", "amount_cents", "trust")
    products = [
        {"product_id": product, "product_name": names[product], "amount_cents": cents}
        for product, _, cents in json.decode(row.products)
    ]
    return {
        **{name: getattr(row, name) for name in columns},
        "link": row.link or None,
        "products": products,
        "causes": json.decode(row.causes),
    }


def _reversal(row: Any) -> dict[str, Any]:
    names = ("date", "kind", "source_id", "amount_cents", "trust")
    return {**{name: getattr(row, name) for name in names}, "causes": json.decode(row.causes)}
