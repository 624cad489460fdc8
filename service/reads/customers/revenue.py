"""What one customer has bought in a period, when and of what, and what is to be expected of them."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from typing import Any

from msgspec import json, to_builtins
from sqlalchemy import select

from projections.customers import ProductName
from service.books.tables import ROWS
from service.core.cadence import add_months
from service.core.money import round_half_away
from service.predictions.model import Basis, Predictions
from service.reads.customers.classes import ratio
from service.reads.customers.customer import Customer, header, predictions, standing
from service.reads.customers.opportunities import recommended
from service.reads.forecast import quarter_of
from service.reads.months import months_between
from service.reads.view import View

PERIODS = {"all_time": None, "last_12_months": 12, "last_6_months": 6, "ytd": 0}  # months, up to today
BREAKDOWNS = ("monthly", "quarterly", "by_product")

_NOT_YET = "nothing is learnt for {}: the worker learns for the present day, soon after it begins"
_BACKTEST = ("day", "cut", "hidden_days", "churn", "unpredicted", "calibration", "revenue")

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
    """A customer's revenue in a period; segment, activity, lifecycle and predictions are of all time."""
    first = _first_day(view.scope.today, period)
    orders = [row for row in customer.orders if row.date >= first]
    back = [row for row in customer.back if row.date >= first]
    months = _months(customer, first, view.scope.today)
    quarters = list(dict.fromkeys(map(quarter_of, months)))
    parts: dict[str, Any] = {
        "monthly": ("monthly_breakdown", lambda: _by_time(orders, months, "month", month_of)),
        "quarterly": ("quarterly_breakdown", lambda: _by_time(orders, quarters, "quarter", quarter_of)),
        "by_product": ("product_breakdown", lambda: _by_product(view, customer, orders)),
    }
    moved = {"orders": [*map(_order, orders)], "reversals": [*map(_reversal, back)]} if with_orders else {}
    return {
        **header(view, customer),
        "period": period,
        "revenue_summary": summary(orders, back),
        **{name: make() for key, (name, make) in parts.items() if key in breakdowns},
        **moved,
        "predictions": foreseen(view, customer) if with_predictions else None,
        **standing(view, customer),
    }


def summary(orders: Sequence[Any], back: Sequence[Any]) -> dict[str, Any]:
    """Orders and reversals by date, added up. Without orders there are no dates and no averages."""
    total, count = sum(row.amount_cents for row in orders), len(orders)
    refunds = sum(row.amount_cents for row in back if row.kind == "refunded")
    disputes = sum(row.amount_cents for row in back if row.kind == "disputed")
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


def foreseen(view: View, customer: Customer) -> dict[str, Any]:
    """Predictions and what the rulebook recommends; without a model the figures are null."""
    told = predictions(view, customer)
    if told is None:
        reason = _NOT_YET.format(view.scope.today)
        told = Predictions(
            estimated_ltv_cents=None,
            next_purchase_probability=None,
            next_purchase_predicted_date=None,
            churn_risk_score=None,
            basis={"all": Basis(reason=reason)},
        )
    document: dict[str, Any] = to_builtins(told)
    basis = document.pop("basis")
    actions = recommended(view, customer, told.churn_risk_score, "action")
    return {
        **document,
        "recommended_actions": [f"{row['text']} ({row['rule']})" for row in actions],
        "basis": basis,
    }


def _first_day(today: date, period: str) -> str:
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
    orders: Iterable[Any], names: Sequence[str], name: str, part: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Revenue and orders of each of these parts of time, zeros where there are none."""
    tally = {value: [0, 0] for value in names}
    for row in orders:
        of = tally[part(row.date)]
        of[0] += row.amount_cents
        of[1] += 1
    return [
        {
            name: value,
            "revenue_cents": cents,
            "orders": count,
            "avg_order_value_cents": round_half_away(cents, count) if count else 0,
        }
        for value, (cents, count) in tally.items()
    ]


def _by_product(view: View, customer: Customer, orders: Sequence[Any]) -> list[dict[str, Any]]:
    """Revenue by product, the largest first; parts that add up to the whole."""
    tally: dict[str | None, list[int]] = {}
    told: dict[str | None, str | None] = {}
    for row in orders:
        for product, name, cents in json.decode(row.products):
            of = tally.setdefault(product, [0, 0])
            of[0] += cents
            of[1] += 1
            told[product] = name or told.get(product)
    names = _product_names(view, customer, [product for product in tally if product])
    total = sum(cents for cents, _ in tally.values())
    return [
        {
            "product_id": product,
            "product_name": names.get(product or "") or told[product] or product,
            "revenue_cents": cents,
            "orders": count,
            "percentage_of_total": ratio(100 * cents, total, 2),
        }
        for product, (cents, count) in sorted(tally.items(), key=lambda item: (-item[1][0], item[0] or ""))
    ]


def _product_names(view: View, customer: Customer, products: list[str]) -> dict[str, str | None]:
    named = _products.c
    query = select(named.product_id, named.name).where(
        *view.within(_products, "customers", currency=False),
        named.product_id.in_(products),
        named.processor == customer.processor,
        named.account == customer.account,
    )
    return {row.product_id: row.name for row in view.all(query)}


def _order(row: Any) -> dict[str, Any]:
    names = ("date", "source_id", "amount_cents", "trust")
    products = [
        {"product_id": product, "product_name": name, "amount_cents": cents}
        for product, name, cents in json.decode(row.products)
    ]
    return {
        **{name: getattr(row, name) for name in names},
        "products": products,
        "causes": json.decode(row.causes),
    }


def _reversal(row: Any) -> dict[str, Any]:
    names = ("date", "kind", "source_id", "amount_cents", "trust")
    return {**{name: getattr(row, name) for name in names}, "causes": json.decode(row.causes)}


def backtest(view: View) -> dict[str, Any]:
    """How well the model would have foreseen the last months; nulls and a reason until that is known."""
    kept = view.kept("backtest")
    document: dict[str, Any] = json.decode(kept) if kept else dict.fromkeys(_BACKTEST)
    reason = None if kept else _NOT_YET.format(view.scope.today)
    for name in ("day", "cut"):
        if document[name] is not None:
            document[name] = date.fromordinal(document[name]).isoformat()
    return {"currency": view.scope.currency, **document, "reason": reason}
