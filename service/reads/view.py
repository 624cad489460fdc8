"""What every read looks through: one consistent view of the books, in one currency."""

from datetime import date
from typing import Any

from msgspec import Struct
from sqlalchemy import BigInteger, ColumnElement, Connection, Select, Table, cast, func, literal, select

from projections.bills import Contract
from projections.customers import Name
from service.books import tables


class Scope(Struct, frozen=True, kw_only=True):
    """Which part of the books is read. `account` None: all accounts. `today` splits past from coming."""

    currency: str
    today: date
    account: str | None = None


class View(Struct, frozen=True, kw_only=True):
    """One read transaction on the books; `books` gives each book's id by its name."""

    connection: Connection
    books: dict[str, int]
    scope: Scope

    def within(self, table: Table, book: str, *, currency: bool = True) -> list[ColumnElement[bool]]:
        """The conditions that keep a query on `table` inside the scope."""
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

    def unpriced_contracts(self) -> int:
        """How many live contracts have a price or discount that can't be read."""
        table = tables.ROWS[Contract]
        query = select(func.count()).where(*self.within(table, "bills"), table.c.unpriced)
        return int((self.one(query))[0])

    def named(self, query: Select[Any], table: Table) -> Select[Any]:
        """`query` on a row table, with the customer's name joined to each row."""
        names = tables.ROWS[Name]
        return query.add_columns(names.c.name.label("customer_name")).select_from(
            table.outerjoin(
                names,
                (names.c.book == self.books["customers"])
                & (names.c.customer_id == table.c.customer_id)
                & (names.c.processor == table.c.processor)
                & (names.c.account == table.c.account),
            )
        )


def customer_key(table: Table) -> ColumnElement[str]:
    """What tells customers apart: ids are unique only within a processor's account."""
    return table.c.processor + literal("|") + table.c.account + literal("|") + table.c.customer_id


def sums(table: Table, names: tuple[str, ...]) -> list[ColumnElement[Any]]:
    """The sums of these columns, 0 where there are no rows; whole numbers, as PostgreSQL's are not."""
    return [cast(func.coalesce(func.sum(table.c[name]), 0), BigInteger).label(name) for name in names]
