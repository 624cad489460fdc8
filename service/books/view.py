"""The view of a read: one consistent state of the books, in one currency."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

from msgspec import Struct, json
from msgspec.structs import replace
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Table,
    cast,
    false,
    func,
    literal,
    select,
    true,
)

from projections.bills import Bill, Contract
from projections.book import Rules
from projections.customers import CustomerName
from projections.mrr import MRR
from service.books import tables
from service.books.overdue import makes_contract_overdue
from service.core.cadence import FREQUENCY_LIMITS
from service.core.errors import ParameterError
from service.rulebook import Opportunity

_names = tables.ROWS[CustomerName]

DEFAULT_POLICY = "default"


class ReadOptions(Struct, frozen=True, kw_only=True):
    """The settings on which reads depend. The limits of segments, three or four, are in whole units.

    `frequency_limits` are the most days between purchases, on average, of each frequency but the last.
    `hides_people`: some key may read figures, but neither names nor e-mail addresses. `treatment` is by
    segment, `focus` by lifecycle stage.
    """

    segment_limits: tuple[Decimal, ...] = (Decimal(10_000), Decimal(1_000), Decimal(100))
    frequency_limits: tuple[int, ...] = FREQUENCY_LIMITS
    opportunities: tuple[Opportunity, ...] = ()
    hides_people: bool = False
    treatment: dict[str, str] = {}
    focus: dict[str, str] = {}


DEFAULT_OPTIONS = ReadOptions()


def _no_stored_model(_name: str) -> bytes | None:
    return None


class Scope(Struct, frozen=True, kw_only=True):
    """The part of the books that is read. `account` None: all accounts. `today` divides past and future.

    Without `people` no customer has a name.
    """

    currency: str
    today: date
    account: str | None = None
    people: bool = True
    policy: str = DEFAULT_POLICY  # for MRR; see `View.with_policy`


class View(Struct, frozen=True, kw_only=True):
    """One read transaction on the books; `books` holds each book's id by its name.

    `stored_model` finds the model that the worker has stored for this currency and account, by its kind.
    """

    connection: Connection
    books: dict[str, int]
    scope: Scope
    options: ReadOptions = DEFAULT_OPTIONS
    stored_model: Callable[[str], bytes | None] = _no_stored_model

    def with_policy(self, policy: str, parameter: str = "policy") -> "View":
        """The same view with MRR as a policy counts it.

        Raises ParameterError with the name of `parameter` and the policies that there are.
        """
        book_names = {name.partition(":")[2] or DEFAULT_POLICY: name for name in self.books if _is_mrr(name)}
        if policy not in book_names:
            raise ParameterError(f"{parameter}: of {', '.join(sorted(book_names))}")
        books = {**self.books, MRR.name: self.books[book_names[policy]]}
        return replace(self, books=books, scope=replace(self.scope, policy=policy))

    def rules(self) -> Rules:
        """The rules by which MRR is counted in this view."""
        book = self.one(select(tables.books.c.rules).where(tables.books.c.id == self.books[MRR.name]))
        return _RULES.decode(book.rules)

    def filters(self, table: Table, book: str, *, currency: bool = True) -> list[ColumnElement[bool]]:
        """The conditions that limit a query on `table` to the scope."""
        conditions = [table.c.book == self.books[book]]
        if currency:
            conditions.append(table.c.currency == self.scope.currency)
        if self.scope.account is not None:
            conditions.append(table.c.account == self.scope.account)
        return conditions

    def all(self, query: Select[Any]) -> list[Any]:
        """Every row of a query."""
        return list(self.connection.execute(query))

    def one(self, query: Select[Any]) -> Any:
        """The one row of a query."""
        return (self.connection.execute(query)).one()

    def counts(self) -> dict[str, int]:
        """The counts in `meta`: of all that the figures leave out."""
        return {
            "unpriced_contracts": self._count_contracts(tables.ROWS[Contract].c.unpriced),
            "overdue_contracts": self.overdue_contracts(),
            "unknown_statuses": self._count_contracts(tables.ROWS[Contract].c.unknown_status)
            + self._sum_of_collections("unknown_status_totals", "objects"),
            "unlinked_payments": self._sum_of_collections("unlinked_payments", "payments"),
            "ignored_events": self.ignored_events(),
            "set_aside": self._sum_over_accounts("set_aside", "set_aside_totals", "histories"),
        }

    def _sum_of_collections(self, total: str, column: str) -> int:
        """The sum of a column of a total of the collections book."""
        table = tables.TOTALS[total]
        query = select(*sum_columns(table, (column,))).where(*self.filters(table, "collections"))
        return int(self.one(query)[0])

    def overdue_contracts(self) -> int:
        """How many live contracts are overdue, and nothing was heard of them since."""
        bills = tables.ROWS[Bill]
        query = select(func.count(bills.c.key.distinct())).where(
            *self.filters(bills, "bills"), makes_contract_overdue(self.scope.today)
        )
        return int(self.one(query)[0])

    def ignored_events(self) -> int:
        """How many events don't count because of their mode, in any currency."""
        return self._sum_over_accounts("ignored", "ignored_totals", "events")

    def _sum_over_accounts(self, book: str, total: str, column: str) -> int:
        """The sum of a column of a total without currencies."""
        table = tables.TOTALS[total]
        query = select(*sum_columns(table, (column,))).where(*self.filters(table, book, currency=False))
        return int(self.one(query)[0])

    def _count_contracts(self, flag: ColumnElement[bool]) -> int:
        """How many contracts have a flag."""
        query = select(func.count()).where(*self.filters(tables.ROWS[Contract], "bills"), flag)
        return int(self.one(query)[0])

    def with_names(self, query: Select[Any], table: FromClause, *, with_email: bool = False) -> Select[Any]:
        """`query` on a row table, with the customer's name, and maybe e-mail address, joined to each row."""
        columns = [_names.c.name.label("customer_name")]
        columns += [_names.c.email.label("customer_email")] if with_email else []
        is_customer = (
            (_names.c.customer_id == table.c.customer_id)
            & (_names.c.processor == table.c.processor)
            & (_names.c.account == table.c.account)
        )
        return query.add_columns(*columns).select_from(table.outerjoin(_names, self.names() & is_customer))

    def names(self) -> ColumnElement[bool]:
        """The condition on the table of names that selects those that may be read: none without `people`."""
        return (_names.c.book == self.books["customers"]) & (true() if self.scope.people else false())


_RULES = json.Decoder(Rules, dec_hook=lambda kind, value: kind(value))  # fractions are texts in JSON


def _is_mrr(book: str) -> bool:
    return book.partition(":")[0] == MRR.name


def format_fraction(value: Fraction) -> str:
    """A fraction as text: a decimal if that is exact ("4.33"), else numerator and denominator ("13/3")."""
    decimal = Decimal(value.numerator) / Decimal(value.denominator)
    return str(decimal) if Fraction(decimal) == value else str(value)


def customer_key(table: Table) -> ColumnElement[str]:
    """A key that is unique to a customer: their id is unique only within a processor's account."""
    return table.c.processor + literal("|") + table.c.account + literal("|") + table.c.customer_id


def sum_columns(table: Table, names: tuple[str, ...]) -> list[ColumnElement[Any]]:
    """The sums of these columns as integers, 0 without rows; PostgreSQL's own sums are decimals."""
    return [cast(func.coalesce(func.sum(table.c[name]), 0), BigInteger).label(name) for name in names]
