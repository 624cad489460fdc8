"""Hot statements: made by SQLAlchemy once, run on the driver's own cursor.

For a small transaction, making a statement and its result costs several times what SQLite needs to
run it. So the engine's statements are compiled when they are imported, and take and give tuples.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import json
from sqlalchemy import ClauseElement, ColumnElement, Connection, bindparam, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import OperationalError

_DIALECT = sqlite.dialect(paramstyle="qmark")


class HotStatement:
    """A statement compiled once. Its parameters go by position, in the order of `parameters`."""

    def __init__(self, statement: ClauseElement, columns: Sequence[str] | None = None) -> None:
        compiled = statement.compile(dialect=_DIALECT, column_keys=columns)
        self.sql = str(compiled)
        self.parameters = tuple(compiled.positiontup or ())  # type: ignore[attr-defined]

    def rows(self, connection: Connection, *values: Any) -> list[tuple[Any, ...]]:
        """Every row that it gives."""
        with self._cursor(connection) as cursor:
            cursor.execute(self.sql, values)
            return list(cursor.fetchall())

    def change(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Run it for each of `rows`; how many rows of the table that changed."""
        with self._cursor(connection) as cursor:
            cursor.executemany(self.sql, rows)
            return int(cursor.rowcount)

    @contextmanager
    def _cursor(self, connection: Connection) -> Iterator[DBAPICursor]:
        """The driver's cursor; its errors become SQLAlchemy's, without the values."""
        cursor = connection.connection.cursor()
        try:
            yield cursor
        except connection.dialect.loaded_dbapi.Error as error:
            raise OperationalError(self.sql, None, error) from error
        finally:
            cursor.close()


def any_of(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """`column` is in a list of any length, given as one parameter: see `listed`."""
    return column.in_(select(func.json_each(bindparam(name)).table_valued("value").c.value))


def listed(values: Iterable[str]) -> str:
    """A list as the parameter of `any_of`."""
    return json.encode(list(values)).decode()
