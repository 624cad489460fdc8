"""Emptying books that hold what their ledger lacks: it was set back, as an operator has accepted.

Events that these books contain are gone, and other events will get their positions. The books would wait
for the ledger to reach their position, and then be wrong without any sign of it; so they are emptied, and
filled again.
"""

from collections.abc import Callable

import structlog
from sqlalchemy import Connection, delete

from service.books import tables
from service.books.witnesses import read_from_books
from service.ledger.witness import Witness
from service.storage.statements import POSTGRESQL

log = structlog.get_logger()


def reset_if_ahead_of_ledger(connection: Connection, is_held: Callable[[Witness], bool]) -> bool:
    """Empty all books if one is at a position that the ledger lacks; whether they were emptied.

    `is_held` says whether the ledger has what the books know. It is called after that was read, since the
    ledger may grow meanwhile. The leases stay, as fences must never go back.
    """
    known = read_from_books(connection)
    if known is None or is_held(known):
        return False
    log.warning("books_ahead", books=known.position)
    leasing = (tables.leases, tables.workers)
    emptied = [table for table in tables.metadata.sorted_tables if table not in leasing]
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql(f"TRUNCATE {', '.join(table.name for table in emptied)}")
    else:
        for table in emptied:
            connection.execute(delete(table))
    return True
