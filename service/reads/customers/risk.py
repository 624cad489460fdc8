"""The MRR of listed customers, the day on which it ends, and their churn risk."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, json
from sqlalchemy import ColumnElement, Table, select, tuple_

from projections.bills import Contract
from projections.mrr import Movement
from projections.revenue import Order
from service.books.tables import ROWS
from service.books.view import View
from service.core.events import join_key
from service.predictions.predict import predictor
from service.reads.customers.customer import facts_from, read_model

_BATCH = 1_000  # customers; a statement takes a limited number of values

_movements = ROWS[Movement]
_contracts = ROWS[Contract]
_orders = ROWS[Order]

_CustomerKey = tuple[str, str, str]


class Risk(Struct, frozen=True, kw_only=True):
    """A customer's MRR, its stated end, why it ends, and the churn risk where a model is known."""

    mrr_cents: int
    ends_date: str | None
    churn_risk_score: float | None
    reason: str | None
    feedback: str | None
    reason_causes: list[str]


def risks(view: View, customers: Sequence[Any]) -> list[Risk]:
    """The risk of each listed customer (`lists.CustomerRow`)."""
    model = read_model(view)
    predict = predictor(model) if model else None
    result: list[Risk] = []
    for start in range(0, len(customers), _BATCH):
        batch = customers[start : start + _BATCH]
        ids = [row.customer_id for row in batch]
        keys = [join_key(*_customer_key(row), view.scope.currency) for row in batch]
        movements = _by_customer(view, _movements, "mrr", _movements.c.key.in_(keys))
        contracts = _by_customer(view, _contracts, "bills", _contracts.c.customer_id.in_(ids))
        last_days = [(row.customer_id, row.last_purchase_date) for row in batch]
        on_last_day = tuple_(_orders.c.customer_id, _orders.c.date).in_(last_days)
        orders = _by_customer(view, _orders, "revenue", _orders.c.customer_id.in_(ids), on_last_day)
        for row in batch:
            key = _customer_key(row)
            facts = facts_from(
                orders=row.total_orders,
                first_date=row.first_purchase_date,
                last_date=row.last_purchase_date,
                paid_cents=row.total_revenue_cents,
                net_cents=row.net_revenue_cents,
                last_order_cents=sum(order.amount_cents for order in orders[key]),
                movements=movements[key],
                contracts=contracts[key],
                today=view.scope.today,
            )
            result.append(
                Risk(
                    mrr_cents=facts.mrr_cents,
                    ends_date=facts.ends_date,
                    churn_risk_score=predict(facts).churn_risk_score if predict else None,
                    **_last_reason(contracts[key]),
                )
            )
    return result


def _last_reason(contracts: Sequence[Any]) -> dict[str, Any]:
    """Why the last of a customer's cancelled contracts ends, or has ended, and the events that say so."""
    cancelled = [row for row in contracts if row.ends_date and (row.reason or row.feedback)]
    last = max(cancelled, key=lambda row: (row.ends_date, row.contract_id), default=None)
    return {
        "reason": last and last.reason,
        "feedback": last and last.feedback,
        "reason_causes": json.decode(last.causes) if last else [],
    }


def _customer_key(row: Any) -> _CustomerKey:
    return row.processor, row.account, row.customer_id


def _by_customer(
    view: View, table: Table, book: str, *conditions: ColumnElement[bool]
) -> dict[_CustomerKey, list[Any]]:
    """A table's rows by customer. Rows with a date are limited to `today` and sorted by it."""
    by_currency = table is not _movements  # their key holds it; SQLite would choose its index
    query = select(table).where(*view.filters(table, book, currency=by_currency), *conditions)
    if "date" in table.c:
        query = query.where(table.c.date <= view.scope.today.isoformat()).order_by(table.c.date)
    rows: dict[_CustomerKey, list[Any]] = defaultdict(list)
    for row in view.all(query):
        rows[row.processor, row.account, row.customer_id].append(row)
    return rows
