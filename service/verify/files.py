"""SQLite's files: whether a file's pages and indexes are intact, and its values of their columns' types."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from service.core.errors import DaybookError
from service.settings import Settings
from service.storage.database import books_path, ledger_path, open_to_look
from service.verify.fault import Fault, Location

_KINDS = {"INT": int, "BOOL": int, "CHAR": str, "TEXT": str, "DATE": str, "BLOB": bytes}  # by part of a type


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


@contextmanager
def named_if_unreadable(settings: Settings) -> Iterator[None]:
    """Raise Fault in place of an error that comes from a value of another type than its column's.

    SQLite accepts any value in any column. PostgreSQL does not.
    """
    try:
        yield
    except DaybookError:
        raise
    except Exception:
        paths = ledger_path(settings.data_dir), books_path(settings.data_dir)
        for path in () if settings.database_url else paths:
            if path.exists() and (fault := find_unreadable_value(path)):
                raise fault from None
        raise


def find_unreadable_value(path: Path) -> Fault | None:
    """The first value that can't be read as its column's type, or a text that is no UTF-8.

    The search is slow, and is done after reading has failed.
    """
    with closing(open_to_look(path)) as connection:
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        for (table,) in names.fetchall():
            columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
            types = {column[1]: column[2] for column in columns}
            key_names = [column[1] for column in columns if column[5]] or [columns[0][1]]
            for row in connection.execute(f"SELECT {', '.join(types)} FROM {table}"):  # noqa: S608
                values = dict(zip(types, row, strict=True))
                wrong = tuple(name for name, value in values.items() if _is_unreadable(types[name], value))
                if wrong:
                    position, key = values.get("position"), values.get("key")
                    position = position if isinstance(position, int) else None
                    if position is None and key is None:
                        key = "|".join(str(values[name]) for name in key_names)
                    row_name = f"position {position}" if key is None else f"key {key}"
                    where = Location(table=table, position=position, key=key, columns=wrong)
                    return Fault(f"what {table} holds can't be read: {row_name}", where)
    return None


def _is_unreadable(column_type: str, value: Any) -> bool:
    kind = next((kind for name, kind in _KINDS.items() if name in column_type), object)
    if value is None:
        return False
    return not isinstance(value, kind) or (isinstance(value, str) and _is_no_utf8(value))


def _is_no_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
