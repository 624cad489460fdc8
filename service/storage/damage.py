"""What to do where SQLite finds a file damaged, in place of the words that it has for it."""

import sqlite3
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_MENDS = {
    "books.db": "nothing is lost: stop Daybook, delete books.db, books.db-wal and books.db-shm, and start "
    "it; the books are filled again from the ledger",
    "ledger.db": "stop Daybook; `daybook verify` names what is damaged, and `daybook restore` takes a backup",
}


class DamagedFile(sqlite3.DatabaseError):
    """A file that SQLite can't read: which it is, and what mends it."""


def explained(engine: Engine, error: BaseException) -> BaseException:
    """The driver's error; DamagedFile in its place where it says that the engine's file is damaged."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
        return error
    name = Path(engine.url.database or "").name
    mend = _MENDS.get(name, "it is made again once it is deleted")
    return DamagedFile(f"{name} is damaged ({error}): {mend}")


def damage(error: BaseException) -> dict[str, str]:
    """For a line of the log: `reason`, where a store's error is that of a damaged file."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, DamagedFile):
        return {"reason": str(error.orig)}
    return {}
