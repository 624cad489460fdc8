"""Hot statements: compiled by SQLAlchemy once, and run on the driver's own cursor.

For a small transaction, building a statement and its result takes several times as long as running it in the
database. So frequent statements are compiled when they are first run, and take and return tuples.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from asyncpg import InterfaceError, PostgresError
from msgspec import json
from sqlalchemy import (
    Boolean,
    ClauseElement,
    ColumnElement,
    Connection,
    Date,
    Dialect,
    Integer,
    LargeBinary,
    Select,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from service.storage.damage import explained

POSTGRESQL = "postgresql"
_READ_ONLY = "25006"  # a primary that has become a standby
_DIALECTS: dict[str, tuple[Any, Dialect]] = {  # by name: SQLAlchemy's module, and the dialect with its driver
    "sqlite": (sqlite, sqlite.dialect(paramstyle="qmark")),
    POSTGRESQL: (postgresql, asyncpg.dialect()),  # type: ignore[no-untyped-call]
}


class HotStatement:
    """A statement compiled at its first use on each kind of database.

    `make` gets SQLAlchemy's module of the dialect, for constructs that differ between the two. Parameters
    are passed by position; a list is one parameter (see `any_of`).
    """

    def __init__(self, make: Callable[[Any], ClauseElement], columns: Sequence[str] | None = None) -> None:
        self._make = make
        self._columns = columns
        self._sql: dict[str, str] = {}

    def sql(self, dialect: str) -> str:
        """Its text for this dialect."""
        if dialect not in self._sql:
            self._sql[dialect] = str(self._compile(dialect))
        return self._sql[dialect]

    def parameters(self, dialect: str) -> list[str]:
        """The names of its parameters, in their order; the same for each dialect."""
        return list(self._compile(dialect).positiontup or ())

    def _compile(self, dialect: str) -> Any:
        module, driver = _DIALECTS[dialect]
        return self._make(module).compile(dialect=driver, column_keys=self._columns)

    def run(self, connection: Connection, *values: Any) -> list[Any]:
        """Run it; return all its rows as tuples."""
        sql = self.sql(connection.dialect.name)
        if connection.dialect.name != POSTGRESQL:
            values = tuple(json.encode(v).decode() if isinstance(v, list) else v for v in values)
        with _cursor(connection, sql) as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())


class HotInsert:
    """Insert rows into one table; on PostgreSQL by one statement for all of them.

    COPY would be faster, but a process that is stopped in the middle of one keeps its locks past all of
    PostgreSQL's timeouts. `conflict` adds a clause to the dialect's insert.
    """

    def __init__(
        self,
        table: Table,
        columns: Sequence[str] | None = None,
        conflict: Callable[[Any], ClauseElement] = lambda insert: insert,
    ) -> None:
        self.columns = tuple(columns or (c.name for c in table.c))

        def make(dialect: Any) -> ClauseElement:
            insert = dialect.insert(table)
            return conflict(insert if dialect is sqlite else insert.from_select(self.columns, arrays))

        values = [bindparam(n, type_=postgresql.ARRAY(_item_type(table.c[n]))) for n in self.columns]
        arrays = select(func.unnest(*values).table_valued(*self.columns).render_derived())
        self._statement = HotStatement(make, self.columns)

    def add(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert `rows`, their values in the order of `columns`."""
        sql = self._statement.sql(connection.dialect.name)
        with _cursor(connection, sql) as cursor:
            if connection.dialect.name == POSTGRESQL:
                cursor.execute(sql, tuple(zip(*rows, strict=True)))
            else:
                cursor.executemany(sql, rows)


def _item_type(column: ColumnElement[Any]) -> TypeEngine[Any]:
    """The type of a column's values in an array."""
    return column.type if isinstance(column.type, Integer | LargeBinary | Boolean) else Text()


@contextmanager
def _cursor(connection: Connection, sql: str) -> Iterator[DBAPICursor]:
    """The driver's cursor."""
    with _translate_errors(connection, sql):
        cursor = connection.connection.cursor()
        try:
            yield cursor
        finally:
            cursor.close()


@contextmanager
def _translate_errors(connection: Connection, sql: str) -> Iterator[None]:
    """Raise the driver's errors as SQLAlchemy's, without the values, and discard a lost connection.

    A connection that timed out is discarded, too, but not reported as lost: a retry would take as long.
    """
    dialect, driver = connection.dialect, connection.connection.dbapi_connection
    try:
        yield
    except (dialect.loaded_dbapi.Error, PostgresError, InterfaceError, TimeoutError, OSError) as error:
        demoted = getattr(error, "sqlstate", None) == _READ_ONLY
        lost = demoted or dialect.is_disconnect(error, driver, None)  # type: ignore[arg-type]
        if lost or isinstance(error, TimeoutError | OSError):
            connection.invalidate(error)
        cause = explained(connection.engine, error)
        raise OperationalError(sql, None, cause, connection_invalidated=lost) from error


def first_rows(query: Select[Any]) -> Select[Any]:
    """`query` limited to its first rows, by a parameter `count`; for a `HotStatement`."""
    return query.limit(bindparam("count")).offset(literal_column("0"))  # SQLite's own 0 is a parameter


def now_us(dialect: Any) -> ColumnElement[int]:
    """The time of the database's clock in microseconds, for either dialect of a `HotStatement`."""
    if dialect is postgresql:
        return literal_column("CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)", Integer)
    return literal_column("CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)", Integer)


class _ListParameter(TypeDecorator[list[Any]]):
    """A list as one parameter: an array on PostgreSQL, JSON text on SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, item: TypeEngine[Any]) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return postgresql.ARRAY(self.item) if dialect.name == POSTGRESQL else dialect.type_descriptor(Text())

    def process_bind_param(self, value: list[Any] | None, dialect: Dialect) -> Any:
        return value if dialect.name == POSTGRESQL else json.encode(value).decode()


class days_between(ColumnElement[int]):  # noqa: N801 - it is used like a function in queries
    """Whole days from one date to another, both as text."""

    inherit_cache = False
    type = Integer()

    def __init__(self, first_rows: ColumnElement[Any], last: ColumnElement[Any]) -> None:
        self.first = first_rows
        self.last = last


@compiles(days_between)
def _days_between(element: days_between, compiler: SQLCompiler, **options: Any) -> str:
    if compiler.dialect.name == POSTGRESQL:
        days: Any = cast(element.last, Date) - cast(element.first, Date)
    else:
        days = cast(func.julianday(element.last) - func.julianday(element.first), Integer)
    return compiler.process(days, **options)


class any_of(ColumnElement[bool]):  # noqa: N801 - it is used like a function in queries
    """`column` is in a list of any length, which is passed as one parameter."""

    inherit_cache = False  # a cached statement would serve every column

    def __init__(self, column: ColumnElement[Any], name: str) -> None:
        self.column = column
        self.name = name


@compiles(any_of)
def _any_of(element: any_of, compiler: SQLCompiler, **options: Any) -> str:
    values = bindparam(element.name, type_=_ListParameter(_item_type(element.column)))
    if compiler.dialect.name == POSTGRESQL:
        return compiler.process(element.column == func.any(values), **options)
    listed = select(func.json_each(values).table_valued("value").c.value)
    return compiler.process(element.column.in_(listed), **options)
