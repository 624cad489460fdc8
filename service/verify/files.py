"""SQLite's files: whether the pages and indexes of one are whole."""

import sqlite3
from contextlib import closing
from pathlib import Path

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
