"""The ledger's parts on PostgreSQL: tables by range of position, so that old ones can be moved.

The part after the one in use is always there, made by the append that enters a part: a part that is
empty costs nothing, and one that is missing would stop the ledger.
"""

from sqlalchemy import Connection

PART = 10_000_000  # positions in a part; the parts that stand were made with it, so it never changes
_TABLES = ("events", "deliveries")


def make_room(connection: Connection, before: int, last: int) -> None:
    """Make the parts up to the one after that of `last`, if the positions after `before` enter one."""
    if last // PART > before // PART:
        add_parts(connection, before // PART + 2, last // PART + 1)


def add_parts(connection: Connection, first: int, last: int) -> None:
    """Make the parts with these numbers, of every table that has parts.

    Made first and attached then, each waits for no reader; made as a part at once it would wait for all.
    """
    for number in range(first, last + 1):
        for table in _TABLES:
            part = f"{table}_{number:05d}"
            connection.exec_driver_sql(f"CREATE TABLE {part} (LIKE {table} INCLUDING ALL)")
            connection.exec_driver_sql(
                f"ALTER TABLE {table} ATTACH PARTITION {part} "
                f"FOR VALUES FROM ({number * PART}) TO ({(number + 1) * PART})"
            )
