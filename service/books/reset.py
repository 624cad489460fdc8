"""Emptying books that are ahead of their ledger: it was restored from an earlier time, and they were not.

Events that these books contain are gone, and other events will get their positions. The books would wait
for the ledger to reach their position, and then be wrong without any sign of it; so they are emptied, and
filled again.
"""

from collections.abc import Callable

import structlog
from sqlalchemy import Connection, delete, func, select

from service.books import tables
from service.storage.statements import POSTGRESQL

log = structlog.get_logger()


def reset_if_ahead_of_ledger(connection: Connection, ledger_end: Callable[[], int]) -> bool:
    """Empty all books if one is at a position that the ledger lacks; whether they were emptied.

    `ledger_end` is called after the books' position was read, since the ledger may grow meanwhile. The
    leases stay, as fences must never go back.
    """
    books_end = connection.execute(select(func.max(tables.checkpoints.c.position))).scalar() or 0
    end = ledger_end()
    if books_end <= end:
        return False
    log.warning("books_ahead", books=books_end, ledger=end)
    leasing = (tables.leases, tables.workers)
    emptied = [table for table in tables.metadata.sorted_tables if table not in leasing]
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql(f"TRUNCATE {', '.join(table.name for table in emptied)}")
    else:
        for table in emptied:
            connection.execute(delete(table))
    return True
