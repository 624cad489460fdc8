"""The ledger's partitions on PostgreSQL: tables by range of position, so that old ones can be moved.

The append that enters a partition makes the next one, so that there is always one more than is in use: an
empty partition costs nothing, and a missing one would stop the ledger.
"""

from sqlalchemy import Connection

PARTITION_SIZE = 10_000_000  # positions; existing partitions were made with it, so it never changes
_TABLES = ("events", "deliveries")


def ensure_partitions(connection: Connection, before: int, last: int) -> None:
    """Make the partitions up to the one after that of `last`, if the positions after `before` enter one."""
    if last // PARTITION_SIZE > before // PARTITION_SIZE:
        add_partitions(connection, before // PARTITION_SIZE + 2, last // PARTITION_SIZE + 1)


def add_partitions(connection: Connection, first: int, last: int) -> None:
    """Make the partitions with these numbers, of every partitioned table.

    Each is made as a table and attached afterwards, which waits for no reader. CREATE TABLE … PARTITION OF
    would wait for all readers.
    """
    for number in range(first, last + 1):
        for table in _TABLES:
            partition = f"{table}_{number:05d}"
            connection.exec_driver_sql(f"CREATE TABLE {partition} (LIKE {table} INCLUDING ALL)")
            connection.exec_driver_sql(
                f"ALTER TABLE {table} ATTACH PARTITION {partition} "
                f"FOR VALUES FROM ({number * PARTITION_SIZE}) TO ({(number + 1) * PARTITION_SIZE})"
            )
