"""Books that are ahead of their ledger: it was restored from an earlier time, and they were not.

What they took in is gone, and other events will stand in its positions. They would wait for the ledger to
reach them, and then be wrong without a word; so they are begun anew.
"""

from collections.abc import Callable

import structlog
from sqlalchemy import Connection, delete, func, select

from service.books import tables
from service.storage.statements import POSTGRESQL

log = structlog.get_logger()


def reset_if_ahead_of_ledger(connection: Connection, ledger_end: Callable[[], int]) -> bool:
    """Empty all books if any holds a position that the ledger does not; whether they were emptied.

    `ledger_end` is asked after the books were: they follow a ledger that goes on meanwhile. Who holds which
    partition stays, as fences must never go back.
    """
    reached = connection.execute(select(func.max(tables.checkpoints.c.position))).scalar() or 0
    end = ledger_end()
    if reached <= end:
        return False
    log.warning("books_ahead", books=reached, ledger=end)
    emptied = [each for each in tables.metadata.sorted_tables if each not in (tables.leases, tables.workers)]
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql(f"TRUNCATE {', '.join(each.name for each in emptied)}")
    else:
        for each in emptied:
            connection.execute(delete(each))
    return True
