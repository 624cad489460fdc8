"""The figures of many customers: lists, segments, frequencies, cohorts and the dashboard.

All are made of the orders of some customers, of which each customer's first one counts the customer.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, and_, case, false, func, or_

from projections.revenue import Order
from service.books.tables import ROWS
from service.books.view import customer_key
from service.reads.customers.customer_set import CustomerSet, customers_at_end_of_day
from service.reads.customers.lists import (
    days_to_date,
    frequency_of,
    in_segments,
    in_stage,
    month_to_date,
)
from service.reads.explain.customers import AMOUNT, CUSTOMER, ONE, on_last_day
from service.reads.explain.mrr import customer_level
from service.reads.explain.predictions import churn_risk, contracts_of_customer
from service.reads.explain.rows import ROUNDED, Explainer, Explanation, Figure, RowSource, by_formula

_orders = ROWS[Order]

_IDENTITY = ("customer_id", "processor", "account")
_FIRST = func.row_number().over(
    partition_by=(customer_key(_orders),), order_by=(_orders.c.date, _orders.c.source_id, _orders.c.key)
)
_CUSTOMER = case((_FIRST == 1, 1), else_=0)
_SHARE = "to four digits"

Conditions = Callable[[Figure, CustomerSet], Iterable[ColumnElement[bool]]]


def _of_orders(contribution: ColumnElement[Any], which: Conditions) -> Explainer:
    """The orders until `today` that meet some conditions, on them and on their customers."""

    def explain(figure: Figure) -> Explanation:
        view = figure.view
        customers = customers_at_end_of_day(view)
        is_customers = and_(*(_orders.c[name] == customers.c[name] for name in (*_IDENTITY, "currency")))
        until_today = _orders.c.date <= view.scope.today.isoformat()
        source = RowSource(
            table=_orders,
            where=[
                *view.filters(_orders, "revenue"),
                until_today,
                *customers.conditions,
                *which(figure, customers),
            ],
            contribution=contribution,
            joined=_orders.join(customers.table, is_customers),
        )
        counting = "distinct customers: the first order of each" if contribution is _CUSTOMER else None
        return Explanation(sources=[source], counting=counting)

    return explain


def _group(which: Conditions) -> dict[str, Explainer]:
    """The figures of a group of customers, beside their share of all."""
    revenue, customers = _of_orders(AMOUNT, which), _of_orders(_CUSTOMER, which)
    return {"customers": customers, "revenue_cents": revenue}


def _shares(which: Conditions, average: str, all_revenue: str = "/revenue_cents") -> dict[str, Explainer]:
    """The figures of a group, with its shares of all customers and of their revenue.

    `average` is the name of the revenue for each customer.
    """
    group = _group(which)
    revenue = partial(by_formula, of=group["revenue_cents"])
    whole = {"all_revenue_cents": all_revenue}
    return {
        **group,
        average: revenue(f"revenue_cents ÷ customers, {ROUNDED}", "revenue_cents", "customers"),
        "customer_share": by_formula(
            f"customers ÷ all_customers, {_SHARE}",
            "customers",
            of=group["customers"],
            others={"all_customers": "/customers"},
        ),
        "revenue_share": revenue(
            f"revenue_cents ÷ all_revenue_cents, {_SHARE}", "revenue_cents", others=whole
        ),
    }


def _segment(all_revenue: str = "/revenue_cents") -> dict[str, Explainer]:
    shares = _shares(_of_segment, "avg_revenue_per_customer_cents", all_revenue)
    percentage = by_formula(
        "100 × revenue_cents ÷ all_revenue_cents, to two digits",
        "revenue_cents",
        of=shares["revenue_cents"],
        others={"all_revenue_cents": all_revenue},
    )
    return {**shares, "percentage_of_total": percentage}


def _growth_to_date(name: str, contribution: ColumnElement[Any]) -> Explainer:
    """The growth of the month up to `today`, against the same days of the month before."""
    orders = _of_orders(contribution, _to_date)

    def explain(figure: Figure) -> Explanation:
        now, before = (getattr(month_to_date(figure.view, months), name) for months in (0, 1))
        return Explanation(
            sources=orders(figure).sources,
            formula=f"{name} of this month to date ÷ {name} of the same days before − 1, {_SHARE}",
            terms={"this_month": now, "month_before": before},
        )

    return explain


def _under(prefix: str, figures: dict[str, Explainer]) -> dict[str, Explainer]:
    return {f"{prefix}/{name}": explainer for name, explainer in figures.items()}


def _retention_rate(which: Conditions) -> Explainer:
    """The part of a cohort that bought in a month: the customers of these orders."""
    customers = _of_orders(_CUSTOMER, which)
    return lambda figure: Explanation(
        sources=customers(figure).sources,
        formula=f"the customers of these orders ÷ cohort_customers, {_SHARE}",
        terms={"cohort_customers": figure.holder("cohort")["customers"]},
    )


# Which orders


def _all(_figure: Figure, _customers: CustomerSet) -> list[ColumnElement[bool]]:
    return []


def _of_segment(figure: Figure, customers: CustomerSet) -> list[ColumnElement[bool]]:
    return [in_segments(figure.view, customers, [figure.row["segment"]])]


def _of_frequency(figure: Figure, customers: CustomerSet) -> list[ColumnElement[bool]]:
    return [frequency_of(figure.view, customers) == figure.row["frequency"]]


def _of_any_frequency(figure: Figure, customers: CustomerSet) -> list[ColumnElement[bool]]:
    return [frequency_of(figure.view, customers) != ""]


def _of_one_order(figure: Figure, customers: CustomerSet) -> list[ColumnElement[bool]]:
    return [frequency_of(figure.view, customers) == ""]


def _at_risk(figure: Figure, customers: CustomerSet) -> list[ColumnElement[bool]]:
    return [in_stage(figure.view, customers.c.last_date, "at_risk")]


def _largest(figure: Figure, customers: CustomerSet) -> list[ColumnElement[bool]]:
    largest = figure.document["top_customers"][:1]
    return [false() if not largest else and_(*(customers.c[name] == largest[0][name] for name in _IDENTITY))]


def _of_cohort(figure: Figure, customers: CustomerSet) -> list[ColumnElement[bool]]:
    return [_in_month(customers.c.first_date, figure.term("cohort"))]


def _retained(figure: Figure, customers: CustomerSet) -> list[ColumnElement[bool]]:
    return [*_of_cohort(figure, customers), _in_month(_orders.c.date, figure.row["month"])]


def _retained_in_place(figure: Figure, customers: CustomerSet) -> list[ColumnElement[bool]]:
    """The same for an item of the list of rates alone, which has the places of `retention`."""
    month = figure.row["retention"][figure.index]["month"]
    return [*_of_cohort(figure, customers), _in_month(_orders.c.date, month)]


def _of_month(figure: Figure, _customers: CustomerSet) -> list[ColumnElement[bool]]:
    return [_in_month(_orders.c.date, figure.row["month"])]


def _new_in_month(figure: Figure, customers: CustomerSet) -> list[ColumnElement[bool]]:
    return [_in_month(customers.c.first_date, figure.row["month"])]


def _of_two_months(figure: Figure, _customers: CustomerSet) -> list[ColumnElement[bool]]:
    first, last = (figure.document["monthly_trend"][place]["month"] for place in (-3, -2))
    return [_orders.c.date.between(f"{first}-01", f"{last}-31")]


def _to_date(figure: Figure, _customers: CustomerSet) -> list[ColumnElement[bool]]:
    return [or_(*(_orders.c.date.between(*days_to_date(figure.view, months)) for months in (1, 0)))]


def _in_month(day: ColumnElement[Any], month: str) -> ColumnElement[bool]:
    return day.between(f"{month}-01", f"{month}-31")


# The figures by their places

LISTED: dict[str, Explainer] = {
    **CUSTOMER,
    "days_since_last_purchase": by_formula("the days from the last order to `today`", of=on_last_day),
}
_ALL = _group(_all)
_COHORT = {**_group(_of_cohort), "orders": _of_orders(ONE, _of_cohort)}

TOP = _under("customers/*", LISTED)
AT_RISK = _under(
    "customers/*",
    {
        **LISTED,
        "mrr_cents": customer_level,
        "ends_date": by_formula("the last day of these contracts", of=contracts_of_customer),
        "churn_risk_score": churn_risk,
    },
)
DISTRIBUTION = {**_ALL, **_under("segments/*", _segment())}
PURCHASE_FREQUENCY = {
    **_group(_of_any_frequency),
    **_under("frequencies/*", _shares(_of_frequency, "avg_customer_value_cents")),
    "single_purchase_customers": _of_orders(_CUSTOMER, _of_one_order),
}
COHORTS = _under(
    "cohorts/*",
    {
        **_COHORT,
        "avg_revenue_cents": by_formula(
            f"revenue_cents ÷ customers, {ROUNDED}", "revenue_cents", "customers", of=_COHORT["revenue_cents"]
        ),
        "retention_rates/*": _retention_rate(_retained_in_place),
        "retention/*/customers": _of_orders(_CUSTOMER, _retained),
        "retention/*/rate": _retention_rate(_retained),
    },
)
DASHBOARD = {
    "customers": _ALL["customers"],
    "total_customer_value_cents": _ALL["revenue_cents"],
    "average_customer_value_cents": by_formula(
        f"total_customer_value_cents ÷ customers, {ROUNDED}",
        *("total_customer_value_cents", "customers"),
        of=_ALL["revenue_cents"],
    ),
    "top_customer_value_cents": _of_orders(AMOUNT, _largest),
    "growth_rate": by_formula(
        f"last_month_cents ÷ month_before_cents − 1, {_SHARE}",
        of=_of_orders(AMOUNT, _of_two_months),
        others={
            "last_month_cents": "/monthly_trend/-2/revenue_cents",
            "month_before_cents": "/monthly_trend/-3/revenue_cents",
        },
    ),
    "customer_growth_rate": _growth_to_date("customers", ONE),
    "revenue_growth_rate": _growth_to_date("revenue_cents", AMOUNT),
    **_under("top_customers/*", LISTED),
    **_under("distribution/*", _segment("/total_customer_value_cents")),
    **_under("at_risk", _group(_at_risk)),
    **_under("at_risk/top_customers/*", LISTED),
    **_under(
        "monthly_trend/*",
        {
            **_group(_of_month),
            "orders": _of_orders(ONE, _of_month),
            "new_customers": _of_orders(_CUSTOMER, _new_in_month),
        },
    ),
}
