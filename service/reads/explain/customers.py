"""The figures of one customer's revenue: orders, and what went back of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import json
from sqlalchemy import ColumnElement, Table, literal

from projections.revenue import Order, Reversal
from service.books.tables import ROWS
from service.reads.customers.revenue import first_day
from service.reads.explain.rows import Asked, Explain, Explained, Rows, same

_orders = ROWS[Order]
_back = ROWS[Reversal]

_AMOUNT = _orders.c.amount_cents
_COUNT = literal(1)
_ROUNDED = "rounded half away from zero"
_Adds = ColumnElement[Any] | Callable[[Any], int]


def _mine(asked: Asked, table: Table, *of: ColumnElement[bool]) -> list[ColumnElement[bool]]:
    """The customer's rows of the period."""
    today = asked.view.scope.today
    who = [table.c[name] == asked.document[name] for name in ("customer_id", "processor", "account")]
    days = table.c.date.between(first_day(today, asked.args["period"]), today.isoformat())
    return [*asked.view.filters(table, "revenue"), *who, days, *of]


def _bought(asked: Asked, adds: _Adds, *of: ColumnElement[bool]) -> Rows:
    return Rows(table=_orders, where=_mine(asked, _orders, *of), contributes=adds)


def _given_back(asked: Asked, kind: str) -> Explained:
    where = _mine(asked, _back, _back.c.kind == kind)
    return Explained(rows=[Rows(table=_back, where=where, contributes=_back.c.amount_cents)])


def _made_of(asked: Asked, formula: str, *terms: str) -> Explained:
    """A figure made of others; the first of them is what its orders add up to, or they are counted."""
    summary = asked.document["revenue_summary"]
    adds = _AMOUNT if terms and terms[0].endswith("_cents") else _COUNT
    return Explained(
        rows=[_bought(asked, adds)], formula=formula, terms={name: summary[name] for name in terms}
    )


def _net(asked: Asked) -> Explained:
    less = Rows(table=_back, where=_mine(asked, _back), contributes=-_back.c.amount_cents)
    return Explained(rows=[_bought(asked, _AMOUNT), less])


def _sum(asked: Asked, adds: ColumnElement[Any]) -> Explained:
    return Explained(rows=[_bought(asked, adds)])


def _of_time(asked: Asked) -> Explained:
    """Orders of a month, or of a quarter."""
    days = _orders.c.date.between(*_bounds(asked.row.get("month") or asked.row["quarter"]))
    rows = [_bought(asked, _COUNT if asked.name == "orders" else _AMOUNT, days)]
    if asked.name != "avg_order_value_cents":
        return Explained(rows=rows)
    terms = {name: asked.row[name] for name in ("revenue_cents", "orders")}
    return Explained(rows=rows, formula=f"revenue_cents ÷ orders, {_ROUNDED}; 0 without orders", terms=terms)


def _bounds(period: str) -> tuple[str, str]:
    """ "2025-11" or "2025-Q4" as texts that the days in it lie between."""
    year, _, part = period.partition("-")
    first, last = (3 * int(part[1]) - 2, 3 * int(part[1])) if part.startswith("Q") else (int(part), int(part))
    return f"{year}-{first:02d}-01", f"{year}-{last:02d}-31"


def _of_product(asked: Asked) -> Explained:
    adds = partial(_part, product=asked.row["product_id"], counted=asked.name == "orders")
    if asked.name != "percentage_of_total":
        return Explained(rows=[_bought(asked, adds)])
    terms = {
        "revenue_cents": asked.row["revenue_cents"],
        "total_revenue_cents": asked.document["revenue_summary"]["total_revenue_cents"],
    }
    formula = "100 × revenue_cents ÷ total_revenue_cents, to two digits"
    return Explained(rows=[_bought(asked, adds)], formula=formula, terms=terms)


def _part(row: Any, product: str | None, *, counted: bool) -> int:
    """What an order bills for a product, or 1 if it does."""
    cents = [cents for of, _, cents in json.decode(row.products) if of == product]
    return len(cents) if counted else sum(cents)


def _order(asked: Asked) -> Explained:
    found = same(_orders, asked.row, "date source_id amount_cents causes")
    return Explained(rows=[_bought(asked, _AMOUNT, *found)])


def _reversal(asked: Asked) -> Explained:
    where = _mine(asked, _back, *same(_back, asked.row, "date kind source_id amount_cents causes"))
    return Explained(rows=[Rows(table=_back, where=where, contributes=_back.c.amount_cents)])


_TIME = ("revenue_cents", "orders", "avg_order_value_cents")

REVENUE: dict[str, Explain] = {
    "revenue_summary/total_revenue_cents": partial(_sum, adds=_AMOUNT),
    "revenue_summary/total_orders": partial(_sum, adds=_COUNT),
    "revenue_summary/avg_order_value_cents": lambda asked: _made_of(
        asked, f"total_revenue_cents ÷ total_orders, {_ROUNDED}", "total_revenue_cents", "total_orders"
    ),
    "revenue_summary/customer_lifespan_days": lambda asked: _made_of(
        asked, "the days from the first of these orders to the last"
    ),
    "revenue_summary/purchase_frequency_days": lambda asked: _made_of(
        asked, f"customer_lifespan_days ÷ total_orders, {_ROUNDED}", "customer_lifespan_days", "total_orders"
    ),
    "revenue_summary/avg_days_between_purchases": lambda asked: _made_of(
        asked,
        "customer_lifespan_days ÷ (total_orders − 1), to two digits",
        *("customer_lifespan_days", "total_orders"),
    ),
    "revenue_summary/total_refunds_cents": partial(_given_back, kind="refunded"),
    "revenue_summary/total_disputes_cents": partial(_given_back, kind="disputed"),
    "revenue_summary/net_revenue_cents": _net,
    **{f"{part}_breakdown/*/{name}": _of_time for part in ("monthly", "quarterly") for name in _TIME},
    **{
        f"product_breakdown/*/{name}": _of_product
        for name in ("revenue_cents", "orders", "percentage_of_total")
    },
    "orders/*/amount_cents": _order,
    "reversals/*/amount_cents": _reversal,
}
