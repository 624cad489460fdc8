"""What is to be expected of customers in a list: their MRR, when it ends, and how likely they are to go."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, select, tuple_

from projections.bills import Contract
from projections.mrr import Movement
from projections.revenue import Order
from service.books.tables import ROWS
from service.books.view import View
from service.core.events import join_key
from service.predictions.predict import predictor
from service.reads.customers.customer import facts_from, model

_PIECE = 1_000  # customers; a statement takes so many values

_movements = ROWS[Movement]
_contracts = ROWS[Contract]
_orders = ROWS[Order]

_Who = tuple[str, str, str]


def with_risk(view: View, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of customers, each with MRR, its stated end, and churn risk where that is known."""
    learnt = model(view)
    predict = predictor(learnt) if learnt else None
    found: list[dict[str, Any]] = []
    for start in range(0, len(rows), _PIECE):
        piece = rows[start : start + _PIECE]
        ids = [row["customer_id"] for row in piece]
        keys = [join_key(*_who(row), view.scope.currency) for row in piece]
        movements = _by_customer(view, _movements, "mrr", _movements.c.key.in_(keys))
        contracts = _by_customer(view, _contracts, "bills", _contracts.c.customer_id.in_(ids))
        last_days = [(row["customer_id"], row["last_purchase_date"]) for row in piece]
        on_last_day = tuple_(_orders.c.customer_id, _orders.c.date).in_(last_days)
        orders = _by_customer(view, _orders, "revenue", _orders.c.customer_id.in_(ids), on_last_day)
        for row in piece:
            who = _who(row)
            facts = facts_from(
                orders=row["total_orders"],
                first_date=row["first_purchase_date"],
                last_date=row["last_purchase_date"],
                paid_cents=row["total_revenue_cents"],
                net_cents=row["net_revenue_cents"],
                last_order_cents=sum(order.amount_cents for order in orders[who]),
                movements=movements[who],
                contracts=contracts[who],
                today=view.scope.today,
            )
            found.append(
                {
                    **row,
                    "mrr_cents": facts.mrr_cents,
                    "ends_date": facts.ends_date,
                    "churn_risk_score": predict(facts).churn_risk_score if predict else None,
                }
            )
    return found


def _who(row: dict[str, Any]) -> _Who:
    return row["processor"], row["account"], row["customer_id"]


def _by_customer(
    view: View, table: Table, book: str, *conditions: ColumnElement[bool]
) -> dict[_Who, list[Any]]:
    """Rows by their customer; those with a date until the end of `today`, in its order."""
    of_currency = table is not _movements  # their key says it; SQLite would go by its index
    query = select(table).where(*view.filters(table, book, currency=of_currency), *conditions)
    if "date" in table.c:
        query = query.where(table.c.date <= view.scope.today.isoformat()).order_by(table.c.date)
    found: dict[_Who, list[Any]] = defaultdict(list)
    for row in view.all(query):
        found[row.processor, row.account, row.customer_id].append(row)
    return found
