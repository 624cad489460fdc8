"""The customers at the end of a day, as a table or subquery to select from.

A customer's row is used as it is if it holds nothing later than `today`; else it is computed again from the
orders until then. So an answer for today is a lookup, and one for an earlier day is right, too.
"""

from collections import defaultdict
from typing import Any

from msgspec import Struct, json
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    and_,
    cast,
    distinct,
    func,
    select,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from projections.revenue import CustomerRevenue, Order, Reversal
from service.books.tables import ROWS, TOTALS
from service.books.view import View, customer_key, sum_columns
from service.storage.statements import POSTGRESQL, days_between

_KEY_COLUMNS = ("processor", "account", "currency", "customer_id")
_COLUMNS = (
    *_KEY_COLUMNS,
    *"first_date last_date lifespan_days orders".split(),
    *"revenue_cents refunded_cents disputed_cents net_cents".split(),
)
_customers = ROWS[CustomerRevenue]
_orders = ROWS[Order]
_reversals = ROWS[Reversal]
_cohorts = TOTALS["cohort_months"]


class CustomerSet(Struct, frozen=True):
    """The customers with an order: a table or subquery of `_COLUMNS`, and the conditions to query it with.

    `recomputed` holds the customers whose rows were computed again; None if there are none.
    """

    table: FromClause
    conditions: list[ColumnElement[bool]]
    recomputed: FromClause | None = None

    @property
    def c(self) -> Any:
        """The columns."""
        return self.table.c


def customers_at_end_of_day(view: View) -> CustomerSet:
    """The customers at the end of `today`."""
    conditions, today = view.filters(_customers, "revenue"), view.scope.today.isoformat()
    latest_change = view.one(select(func.max(_customers.c.changed_date)).where(*conditions))[0]
    if latest_change is None or latest_change <= today:
        return CustomerSet(_customers, [*conditions, NoIndex(_customers.c.orders) > 0])
    recomputed = _recompute(view).subquery()
    unchanged = select(*(_customers.c[name] for name in _COLUMNS)).where(
        *conditions, _customers.c.orders > 0, _customers.c.changed_date <= today
    )
    return CustomerSet(union_all(unchanged, select(recomputed)).subquery(), [], recomputed)


class NoIndex(FunctionElement[Any]):
    """A column for which SQLite uses no index.

    SQLite would choose the index of a condition that nearly all rows meet, and then sort them all. PostgreSQL
    estimates how many rows meet it.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(NoIndex)
def _no_index(element: NoIndex, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    return column if compiler.dialect.name == POSTGRESQL else f"+{column}"


def _recompute(view: View) -> Select[Any]:
    """The customers whose rows hold something later than `today`, computed from their orders until then."""
    today = view.scope.today.isoformat()
    is_same_customer = and_(*(_customers.c[name] == _orders.c[name] for name in ("book", *_KEY_COLUMNS)))
    first, last = func.min(_orders.c.date), func.max(_orders.c.date)

    def reversed_cents(*kinds: str) -> ColumnElement[int]:
        query = select(*sum_columns(_reversals, ("amount_cents",))).where(
            *view.filters(_reversals, "revenue"), _reversals.c.kind.in_(kinds), _reversals.c.date <= today
        )
        return query.where(
            *(_reversals.c[name] == _orders.c[name] for name in _KEY_COLUMNS)
        ).scalar_subquery()

    return (
        select(
            *(_orders.c[name] for name in _KEY_COLUMNS),
            first.label("first_date"),
            last.label("last_date"),
            days_between(first, last).label("lifespan_days"),
            func.count().label("orders"),
            _revenue().label("revenue_cents"),
            reversed_cents("refunded").label("refunded_cents"),
            reversed_cents("disputed").label("disputed_cents"),
            (_revenue() - reversed_cents("refunded", "disputed")).label("net_cents"),
        )
        .select_from(_customers.join(_orders, is_same_customer))
        .where(*view.filters(_customers, "revenue"), _customers.c.changed_date > today)
        .where(_orders.c.date <= today)
        .group_by(_orders.c.book, *(_orders.c[name] for name in _KEY_COLUMNS))
    )


def _revenue() -> ColumnElement[int]:
    """The sum of the orders' amounts, cast since PostgreSQL sums to a numeric."""
    return cast(func.sum(_orders.c.amount_cents), BigInteger)


class CohortMonth(Struct):
    """The purchases of a cohort in a month."""

    customers: int = 0
    orders: int = 0
    revenue_cents: int = 0

    def add(self, customers: int, orders: int, revenue_cents: int) -> None:
        """Add to the totals; negative numbers subtract."""
        self.customers += customers
        self.orders += orders
        self.revenue_cents += revenue_cents


def cohort_months(view: View, customers: CustomerSet) -> dict[tuple[str, str], CohortMonth]:
    """The purchases by (cohort, month), until the end of `today`."""
    query = select(
        _cohorts.c.cohort, _cohorts.c.month, *sum_columns(_cohorts, ("customers", "orders", "revenue_cents"))
    )
    query = query.where(*view.filters(_cohorts, "revenue")).group_by(_cohorts.c.cohort, _cohorts.c.month)
    months: dict[tuple[str, str], CohortMonth] = defaultdict(CohortMonth)
    for cohort, month, *added in view.all(query):
        months[cohort, month].add(*added)
    if customers.recomputed is not None:
        _apply_recomputed(view, customers.recomputed, months)
    return {key: totals for key, totals in months.items() if totals.customers}


def _apply_recomputed(view: View, recomputed: FromClause, months: dict[tuple[str, str], CohortMonth]) -> None:
    """Replace the recomputed customers' share of the totals by their purchases until `today`."""
    today = view.scope.today.isoformat()
    changed = select(_customers.c.months).where(*view.filters(_customers, "revenue"))
    for (encoded_months,) in view.all(changed.where(_customers.c.changed_date > today)):
        months_of_customer = json.decode(encoded_months)
        for month, orders, cents in months_of_customer:
            months[months_of_customer[0][0], month].add(-1, -orders, -cents)
    cohort = func.substr(recomputed.c.first_date, 1, 7).label("cohort")
    month = func.substr(_orders.c.date, 1, 7).label("month")
    totals = (func.count(distinct(customer_key(_orders))), func.count(), _revenue())
    is_same_customer = and_(*(_orders.c[name] == recomputed.c[name] for name in _KEY_COLUMNS))
    query = select(cohort, month, *totals).select_from(recomputed.join(_orders, is_same_customer))
    query = query.where(*view.filters(_orders, "revenue"), _orders.c.date <= today)
    for cohort_name, month_name, *added in view.all(query.group_by(cohort, month)):
        months[cohort_name, month_name].add(*added)
