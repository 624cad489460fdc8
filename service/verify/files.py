"""SQLite's files: whether the pages and indexes of one are whole, and its values of their columns' kinds."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from service.verify.fault import Fault, Where


def verify_file(path: Path) -> None:
    """Have SQLite check a file. Raises Fault if it is damaged, SQLite's errors if it can't be read."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA query_only = ON")
            found = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise Fault(f"{path.name} is damaged: {' '.join(found.split())}", Where(table=path.name))


def misfit(path: Path) -> Fault | None:
    """The first value that nobody can read as what its column holds: SQLite takes any value anywhere.

    It is text that is no UTF-8, or text in place of bytes. Slow: for when reading has failed.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        for (table,) in names.fetchall():
            kinds = {row[1]: row[2] for row in connection.execute(f"PRAGMA table_info({table})")}
            for row in connection.execute(f"SELECT {', '.join(kinds)} FROM {table}"):  # noqa: S608
                held = dict(zip(kinds, row, strict=True))
                wrong = tuple(name for name, value in held.items() if _is_misfit(kinds[name], value))
                if wrong:
                    position, key = held.get("position"), held.get("key")
                    row_of = f"position {position}" if key is None else f"key {key}"
                    where = Where(table=table, position=position, key=key, columns=wrong)
                    return Fault(f"what {table} holds can't be read: {row_of}", where)
    return None


def _is_misfit(kind: str, value: Any) -> bool:
    return isinstance(value, str) and (kind == "BLOB" or (not value.isascii() and _is_broken(value)))


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
