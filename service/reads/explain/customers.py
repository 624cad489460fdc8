"""The figures of one customer's revenue: orders and their reversals."""

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import json
from sqlalchemy import ColumnElement, Table, literal

from projections.revenue import Order, Reversal
from service.books.tables import ROWS
from service.reads.customers.revenue import first_day
from service.reads.explain.rows import Explainer, Explanation, Figure, RowSource, matches_row

_orders = ROWS[Order]
_reversals = ROWS[Reversal]

_AMOUNT = _orders.c.amount_cents
_COUNT = literal(1)
_ROUNDED = "rounded half away from zero"
_Contribution = ColumnElement[Any] | Callable[[Any], int]


def _rows_of_customer(
    figure: Figure, table: Table, *conditions: ColumnElement[bool]
) -> list[ColumnElement[bool]]:
    """The conditions for the customer's rows in the period."""
    today = figure.view.scope.today
    is_customers = [
        table.c[name] == figure.document[name] for name in ("customer_id", "processor", "account")
    ]
    days = table.c.date.between(first_day(today, figure.args["period"]), today.isoformat())
    return [*figure.view.filters(table, "revenue"), *is_customers, days, *conditions]


def _order_source(figure: Figure, contribution: _Contribution, *conditions: ColumnElement[bool]) -> RowSource:
    return RowSource(
        table=_orders, where=_rows_of_customer(figure, _orders, *conditions), contribution=contribution
    )


def _reversed(figure: Figure, kind: str) -> Explanation:
    where = _rows_of_customer(figure, _reversals, _reversals.c.kind == kind)
    return Explanation(
        sources=[RowSource(table=_reversals, where=where, contribution=_reversals.c.amount_cents)]
    )


def _by_formula(figure: Figure, formula: str, *terms: str) -> Explanation:
    """A figure with a formula. If the first term is an amount, the orders' amounts add up to it.

    Else the orders are counted.
    """
    summary = figure.document["revenue_summary"]
    contribution = _AMOUNT if terms and terms[0].endswith("_cents") else _COUNT
    return Explanation(
        sources=[_order_source(figure, contribution)],
        formula=formula,
        terms={name: summary[name] for name in terms},
    )


def _net(figure: Figure) -> Explanation:
    reversals = RowSource(
        table=_reversals, where=_rows_of_customer(figure, _reversals), contribution=-_reversals.c.amount_cents
    )
    return Explanation(sources=[_order_source(figure, _AMOUNT), reversals])


def _sum(figure: Figure, contribution: ColumnElement[Any]) -> Explanation:
    return Explanation(sources=[_order_source(figure, contribution)])


def _in_period(figure: Figure) -> Explanation:
    """The orders of a month or quarter."""
    days = _orders.c.date.between(*_bounds(figure.row.get("month") or figure.row["quarter"]))
    rows = [_order_source(figure, _COUNT if figure.name == "orders" else _AMOUNT, days)]
    if figure.name != "avg_order_value_cents":
        return Explanation(sources=rows)
    terms = {name: figure.row[name] for name in ("revenue_cents", "orders")}
    return Explanation(
        sources=rows, formula=f"revenue_cents ÷ orders, {_ROUNDED}; 0 without orders", terms=terms
    )


def _bounds(period: str) -> tuple[str, str]:
    """The first and the last day of "2025-11" or "2025-Q4", as texts to compare days with."""
    year, _, part = period.partition("-")
    first, last = (3 * int(part[1]) - 2, 3 * int(part[1])) if part.startswith("Q") else (int(part), int(part))
    return f"{year}-{first:02d}-01", f"{year}-{last:02d}-31"


def _of_product(figure: Figure) -> Explanation:
    contribution = partial(_product_part, product=figure.row["product_id"], counted=figure.name == "orders")
    if figure.name != "percentage_of_total":
        return Explanation(sources=[_order_source(figure, contribution)])
    terms = {
        "revenue_cents": figure.row["revenue_cents"],
        "total_revenue_cents": figure.document["revenue_summary"]["total_revenue_cents"],
    }
    formula = "100 × revenue_cents ÷ total_revenue_cents, to two digits"
    return Explanation(sources=[_order_source(figure, contribution)], formula=formula, terms=terms)


def _product_part(row: Any, product: str | None, *, counted: bool) -> int:
    """An order's amount for a product; or with `counted`, 1 if the order contains it."""
    cents = [cents for name, _, cents in json.decode(row.products) if name == product]
    return len(cents) if counted else sum(cents)


def _order(figure: Figure) -> Explanation:
    conditions = matches_row(_orders, figure.row, "date source_id amount_cents causes")
    return Explanation(sources=[_order_source(figure, _AMOUNT, *conditions)])


def _reversal(figure: Figure) -> Explanation:
    where = _rows_of_customer(
        figure, _reversals, *matches_row(_reversals, figure.row, "date kind source_id amount_cents causes")
    )
    return Explanation(
        sources=[RowSource(table=_reversals, where=where, contribution=_reversals.c.amount_cents)]
    )


_TIME = ("revenue_cents", "orders", "avg_order_value_cents")

REVENUE: dict[str, Explainer] = {
    "revenue_summary/total_revenue_cents": partial(_sum, contribution=_AMOUNT),
    "revenue_summary/total_orders": partial(_sum, contribution=_COUNT),
    "revenue_summary/avg_order_value_cents": lambda figure: _by_formula(
        figure, f"total_revenue_cents ÷ total_orders, {_ROUNDED}", "total_revenue_cents", "total_orders"
    ),
    "revenue_summary/customer_lifespan_days": lambda figure: _by_formula(
        figure, "the days from the first of these orders to the last"
    ),
    "revenue_summary/purchase_frequency_days": lambda figure: _by_formula(
        figure, f"customer_lifespan_days ÷ total_orders, {_ROUNDED}", "customer_lifespan_days", "total_orders"
    ),
    "revenue_summary/avg_days_between_purchases": lambda figure: _by_formula(
        figure,
        "customer_lifespan_days ÷ (total_orders − 1), to two digits",
        *("customer_lifespan_days", "total_orders"),
    ),
    "revenue_summary/total_refunds_cents": partial(_reversed, kind="refunded"),
    "revenue_summary/total_disputes_cents": partial(_reversed, kind="disputed"),
    "revenue_summary/net_revenue_cents": _net,
    **{f"{part}_breakdown/*/{name}": _in_period for part in ("monthly", "quarterly") for name in _TIME},
    **{
        f"product_breakdown/*/{name}": _of_product
        for name in ("revenue_cents", "orders", "percentage_of_total")
    },
    "orders/*/amount_cents": _order,
    "reversals/*/amount_cents": _reversal,
}
