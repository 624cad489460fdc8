"""The customers at the end of a day, as something to select from.

Those in whose row nothing is later than `today` are taken as the book has them; the others are added up again
from their orders until then. So today's answer is a lookup, and any other is right.
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

_WHO = ("processor", "account", "currency", "customer_id")
_COLUMNS = (
    *_WHO,
    *"first_date last_date lifespan_days orders".split(),
    *"revenue_cents refunded_cents disputed_cents net_cents".split(),
)
_customers = ROWS[CustomerRevenue]
_orders = ROWS[Order]
_back = ROWS[Reversal]
_cohorts = TOTALS["cohort_months"]


class CustomerSet(Struct, frozen=True):
    """The customers with an order, a table or a subquery of `_COLUMNS`, and the conditions of the query.

    `later` are those of them that were added up again; None where that is nobody.
    """

    of: FromClause
    within: list[ColumnElement[bool]]
    later: FromClause | None = None

    @property
    def c(self) -> Any:
        """The columns."""
        return self.of.c


def customers_at_end_of_day(view: View) -> CustomerSet:
    """The customers at the end of `today`."""
    within, today = view.filters(_customers, "revenue"), view.scope.today.isoformat()
    latest = view.one(select(func.max(_customers.c.changed_date)).where(*within))[0]
    if latest is None or latest <= today:
        return CustomerSet(_customers, [*within, NoIndex(_customers.c.orders) > 0])
    later = _added_up(view).subquery()
    still = select(*(_customers.c[name] for name in _COLUMNS)).where(
        *within, _customers.c.orders > 0, _customers.c.changed_date <= today
    )
    return CustomerSet(union_all(still, select(later)).subquery(), [], later)


class NoIndex(FunctionElement[Any]):
    """A column that SQLite seeks by no index.

    It would take the index of a condition that nearly all rows meet, and sort what it finds. PostgreSQL knows
    how many those are.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(NoIndex)
def _no_index(element: NoIndex, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    return column if compiler.dialect.name == POSTGRESQL else f"+{column}"


def _added_up(view: View) -> Select[Any]:
    """The customers in whose row something is later than `today`, from their orders until then."""
    today = view.scope.today.isoformat()
    same = and_(*(_customers.c[name] == _orders.c[name] for name in ("book", *_WHO)))
    first, last = func.min(_orders.c.date), func.max(_orders.c.date)

    def back(*kinds: str) -> ColumnElement[int]:
        query = select(*sum_columns(_back, ("amount_cents",))).where(
            *view.filters(_back, "revenue"), _back.c.kind.in_(kinds), _back.c.date <= today
        )
        return query.where(*(_back.c[name] == _orders.c[name] for name in _WHO)).scalar_subquery()

    return (
        select(
            *(_orders.c[name] for name in _WHO),
            first.label("first_date"),
            last.label("last_date"),
            days_between(first, last).label("lifespan_days"),
            func.count().label("orders"),
            _revenue().label("revenue_cents"),
            back("refunded").label("refunded_cents"),
            back("disputed").label("disputed_cents"),
            (_revenue() - back("refunded", "disputed")).label("net_cents"),
        )
        .select_from(_customers.join(_orders, same))
        .where(*view.filters(_customers, "revenue"), _customers.c.changed_date > today)
        .where(_orders.c.date <= today)
        .group_by(_orders.c.book, *(_orders.c[name] for name in _WHO))
    )


def _revenue() -> ColumnElement[int]:
    """The sum of these orders, which is no whole number to PostgreSQL."""
    return cast(func.sum(_orders.c.amount_cents), BigInteger)


class CohortMonth(Struct):
    """What a cohort bought in a month."""

    customers: int = 0
    orders: int = 0
    revenue_cents: int = 0

    def add(self, customers: int, orders: int, revenue_cents: int) -> None:
        """Add, or with negative numbers take away."""
        self.customers += customers
        self.orders += orders
        self.revenue_cents += revenue_cents


def cohort_months(view: View, customers: CustomerSet) -> dict[tuple[str, str], CohortMonth]:
    """What cohorts bought by (cohort, month), until the end of `today`."""
    query = select(
        _cohorts.c.cohort, _cohorts.c.month, *sum_columns(_cohorts, ("customers", "orders", "revenue_cents"))
    )
    query = query.where(*view.filters(_cohorts, "revenue")).group_by(_cohorts.c.cohort, _cohorts.c.month)
    months: dict[tuple[str, str], CohortMonth] = defaultdict(CohortMonth)
    for cohort, month, *added in view.all(query):
        months[cohort, month].add(*added)
    if customers.later is not None:
        _correct(view, customers.later, months)
    return {key: found for key, found in months.items() if found.customers}


def _correct(view: View, later: FromClause, months: dict[tuple[str, str], CohortMonth]) -> None:
    """Take out what customers with something later have bought, and put in what they had until `today`."""
    today = view.scope.today.isoformat()
    changed = select(_customers.c.months).where(*view.filters(_customers, "revenue"))
    for (listed,) in view.all(changed.where(_customers.c.changed_date > today)):
        of = json.decode(listed)
        for month, orders, cents in of:
            months[of[0][0], month].add(-1, -orders, -cents)
    cohort = func.substr(later.c.first_date, 1, 7).label("cohort")
    month = func.substr(_orders.c.date, 1, 7).label("month")
    known = (func.count(distinct(customer_key(_orders))), func.count(), _revenue())
    same = and_(*(_orders.c[name] == later.c[name] for name in _WHO))
    query = select(cohort, month, *known).select_from(later.join(_orders, same))
    query = query.where(*view.filters(_orders, "revenue"), _orders.c.date <= today)
    for own, name, *added in view.all(query.group_by(cohort, month)):
        months[own, name].add(*added)
