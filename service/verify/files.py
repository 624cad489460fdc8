"""SQLite's files: whether a file's pages and indexes are intact, and its values of their columns' types."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from service.storage.database import open_to_look
from service.verify.fault import Fault, Location


def verify_file(path: Path) -> None:
    """Check a file with SQLite. Raises Fault if it is damaged, SQLite's errors if it can't be read."""
    try:
        with closing(open_to_look(path)) as connection:
            result = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        result = str(error)
    if result != "ok":
        raise Fault(f"{path.name} is damaged: {' '.join(result.split())}", Location(table=path.name))


def find_unreadable_value(path: Path) -> Fault | None:
    """The first value that can't be read as its column's type: SQLite accepts any value in any column.

    Such a value is a text that is no UTF-8, or a text in place of bytes. The search is slow, and is done
    after reading has failed.
    """
    with closing(open_to_look(path)) as connection:
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        for (table,) in names.fetchall():
            types = {row[1]: row[2] for row in connection.execute(f"PRAGMA table_info({table})")}
            for row in connection.execute(f"SELECT {', '.join(types)} FROM {table}"):  # noqa: S608
                values = dict(zip(types, row, strict=True))
                wrong = tuple(name for name, value in values.items() if _is_unreadable(types[name], value))
                if wrong:
                    position, key = values.get("position"), values.get("key")
                    row_name = f"position {position}" if key is None else f"key {key}"
                    where = Location(table=table, position=position, key=key, columns=wrong)
                    return Fault(f"what {table} holds can't be read: {row_name}", where)
    return None


def _is_unreadable(column_type: str, value: Any) -> bool:
    return isinstance(value, str) and (column_type == "BLOB" or (not value.isascii() and _is_no_utf8(value)))


def _is_no_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
