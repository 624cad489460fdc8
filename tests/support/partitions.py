"""Partitions of the books without leases."""

from collections.abc import Iterable

from sqlalchemy import Connection


class HeldPartitions:
    """Some partitions, held whatever anybody says."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.fences = dict.fromkeys(partitions, 0)

    def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        assert connection.in_transaction()
        assert set(partitions) <= set(self.fences)
