"""Hot statements: made by SQLAlchemy once, run on the driver's own cursor.

For a small transaction, making a statement and its result costs several times what SQLite needs to
run it. So the engine's statements are compiled when they are imported, and take and give tuples.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import json
from sqlalchemy import ClauseElement, ColumnElement, Connection, bindparam, func, select
from sqlalchemy.dialects import sqlite

_DIALECT = sqlite.dialect(paramstyle="qmark")


class HotStatement:
    """A statement compiled once. Its parameters go by position, in the order of `parameters`."""

    def __init__(self, statement: ClauseElement, columns: Sequence[str] | None = None) -> None:
        compiled = statement.compile(dialect=_DIALECT, column_keys=columns)
        self.sql = str(compiled)
        self.parameters = tuple(compiled.positiontup or ())  # type: ignore[attr-defined]

    def rows(self, connection: Connection, *values: Any) -> list[tuple[Any, ...]]:
        """Every row that it gives."""
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self.sql, values)
            return list(cursor.fetchall())
        finally:
            cursor.close()

    def change(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Run it for each of `rows`; how many rows of the table that changed."""
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(self.sql, rows)
            return int(cursor.rowcount)
        finally:
            cursor.close()


def any_of(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """`column` is in a list of any length, given as one parameter: see `listed`."""
    return column.in_(select(func.json_each(bindparam(name)).table_valued("value").c.value))


def listed(values: Iterable[str]) -> str:
    """A list as the parameter of `any_of`."""
    return json.encode(list(values)).decode()
