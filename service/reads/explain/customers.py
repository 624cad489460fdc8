"""The figures of one customer, in an answer about them or in a list: orders and their reversals."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from msgspec import json
from sqlalchemy import ColumnElement, Table, literal

from projections.revenue import Order, Reversal
from service.books.tables import ROWS
from service.reads.customers.revenue import first_day
from service.reads.explain.rows import (
    ROUNDED,
    Explainer,
    Explanation,
    Figure,
    RowSource,
    by_formula,
    matches_row,
)

_orders = ROWS[Order]
_reversals = ROWS[Reversal]

AMOUNT = _orders.c.amount_cents
ONE = literal(1)
_Contribution = ColumnElement[Any] | Callable[[Any], int]


def is_customers(figure: Figure, table: Table) -> list[ColumnElement[bool]]:
    """The conditions for the rows of the figure's customer."""
    customer = figure.holder("customer_id")
    return [table.c[name] == customer[name] for name in ("customer_id", "processor", "account")]


def _rows_of_customer(
    figure: Figure, table: Table, *conditions: ColumnElement[bool]
) -> list[ColumnElement[bool]]:
    """The conditions for the customer's rows in the period, which is all time where the read has none."""
    today = figure.view.scope.today
    days = table.c.date.between(first_day(today, figure.args.get("period", "all_time")), today.isoformat())
    return [*figure.view.filters(table, "revenue"), *is_customers(figure, table), days, *conditions]


def orders_source(figure: Figure, contribution: _Contribution, *conditions: ColumnElement[bool]) -> RowSource:
    """The customer's orders of the period."""
    return RowSource(
        table=_orders, where=_rows_of_customer(figure, _orders, *conditions), contribution=contribution
    )


def _reversals_source(figure: Figure, sign: int, *conditions: ColumnElement[bool]) -> RowSource:
    return RowSource(
        table=_reversals,
        where=_rows_of_customer(figure, _reversals, *conditions),
        contribution=sign * _reversals.c.amount_cents,
    )


def _amounts(figure: Figure) -> Explanation:
    return Explanation(sources=[orders_source(figure, AMOUNT)])


def count_orders(figure: Figure) -> Explanation:
    """Every order of the customer in the period counts 1."""
    return Explanation(sources=[orders_source(figure, ONE)])


def net_revenue(figure: Figure) -> Explanation:
    """The customer's orders less what went back."""
    return Explanation(sources=[orders_source(figure, AMOUNT), _reversals_source(figure, -1)])


def _reversed(figure: Figure, kind: str) -> Explanation:
    return Explanation(sources=[_reversals_source(figure, 1, _reversals.c.kind == kind)])


def _on_day(figure: Figure) -> Explanation:
    """The orders on the day that is the figure."""
    return Explanation(sources=[orders_source(figure, ONE, _orders.c.date == figure.value)])


def on_last_day(figure: Figure) -> Explanation:
    """The orders on the last day, which is the figure's number of days ago."""
    day = figure.view.scope.today - timedelta(days=figure.value)
    return Explanation(sources=[orders_source(figure, ONE, _orders.c.date == day.isoformat())])


def _in_part(figure: Figure) -> Explanation:
    """The orders of a month or quarter."""
    days = _orders.c.date.between(*_bounds(figure.row.get("month") or figure.row["quarter"]))
    return Explanation(sources=[orders_source(figure, ONE if figure.name == "orders" else AMOUNT, days)])


def _bounds(period: str) -> tuple[str, str]:
    """The first and the last day of "2025-11" or "2025-Q4", as texts to compare days with."""
    year, _, part = period.partition("-")
    first, last = (3 * int(part[1]) - 2, 3 * int(part[1])) if part.startswith("Q") else (int(part), int(part))
    return f"{year}-{first:02d}-01", f"{year}-{last:02d}-31"


def _of_product(figure: Figure) -> Explanation:
    contribution = partial(_product_part, product=figure.row["product_id"], counted=figure.name == "orders")
    return Explanation(sources=[orders_source(figure, contribution)])


def _product_part(row: Any, product: str | None, *, counted: bool) -> int:
    """An order's amount for a product; or with `counted`, 1 if the order contains it."""
    cents = [cents for name, _, cents in json.decode(row.products) if name == product]
    return len(cents) if counted else sum(cents)


def _order(figure: Figure, contribution: _Contribution = AMOUNT) -> Explanation:
    row = figure.holder("source_id")
    conditions = matches_row(_orders, row, "date source_id amount_cents causes")
    return Explanation(sources=[orders_source(figure, contribution, *conditions)])


def _part_of_order(figure: Figure) -> Explanation:
    return _order(figure, partial(_product_part, product=figure.row["product_id"], counted=False))


def _reversal(figure: Figure) -> Explanation:
    conditions = matches_row(_reversals, figure.row, "date kind source_id amount_cents causes")
    return Explanation(sources=[_reversals_source(figure, 1, *conditions)])


CUSTOMER: dict[str, Explainer] = {
    "total_revenue_cents": _amounts,
    "total_orders": count_orders,
    "avg_order_value_cents": by_formula(
        f"total_revenue_cents ÷ total_orders, {ROUNDED}", "total_revenue_cents", "total_orders", of=_amounts
    ),
    "first_purchase_date": by_formula("the first day with an order", of=_on_day),
    "last_purchase_date": by_formula("the last day with an order", of=_on_day),
    "total_refunds_cents": partial(_reversed, kind="refunded"),
    "total_disputes_cents": partial(_reversed, kind="disputed"),
    "net_revenue_cents": net_revenue,
    "customer_lifespan_days": by_formula(
        "the days from the first of these orders to the last", of=count_orders
    ),
    "avg_days_between_purchases": by_formula(
        "customer_lifespan_days ÷ (total_orders − 1), to two digits",
        *("customer_lifespan_days", "total_orders"),
        of=count_orders,
    ),
}
"""The figures of a customer that several answers show under one name."""

_SUMMARY: dict[str, Explainer] = {
    **CUSTOMER,
    "purchase_frequency_days": by_formula(
        f"customer_lifespan_days ÷ total_orders, {ROUNDED}",
        *("customer_lifespan_days", "total_orders"),
        of=count_orders,
    ),
}
_PART: dict[str, Explainer] = {
    "revenue_cents": _in_part,
    "orders": _in_part,
    "avg_order_value_cents": by_formula(
        f"revenue_cents ÷ orders, {ROUNDED}; 0 without orders", "revenue_cents", "orders", of=_in_part
    ),
}
REVENUE: dict[str, Explainer] = {
    **{f"revenue_summary/{name}": explainer for name, explainer in _SUMMARY.items()},
    **{
        f"{part}_breakdown/*/{name}": explainer
        for part in ("monthly", "quarterly")
        for name, explainer in _PART.items()
    },
    "product_breakdown/*/revenue_cents": _of_product,
    "product_breakdown/*/orders": _of_product,
    "product_breakdown/*/percentage_of_total": by_formula(
        "100 × revenue_cents ÷ total_revenue_cents, to two digits",
        "revenue_cents",
        of=_of_product,
        others={"total_revenue_cents": "/revenue_summary/total_revenue_cents"},
    ),
    "orders/*/amount_cents": _order,
    "orders/*/products/*/amount_cents": _part_of_order,
    "reversals/*/amount_cents": _reversal,
}
