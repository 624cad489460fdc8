"""Leases: which of several workers writes which partition (on PostgreSQL only).

Every worker sends heartbeats; one without a heartbeat for some time loses its partitions to the others. Each
acquisition raises the partition's fence, and every transaction compares the fences that its worker knows: a
worker that was paused and wakes up late can't write.
"""

from collections.abc import Iterable
from datetime import timedelta

import structlog
from sqlalchemy import Connection, text

from service.books.engine import Overtaken
from service.books.store import BookStore

RENEW_SECONDS = 0.5  # between two heartbeats, at which a worker also acquires free partitions
WORKER_TIMEOUT = timedelta(seconds=2)  # the others take a worker without a heartbeat for so long as dead

log = structlog.get_logger()

_HEARTBEAT = text(
    """INSERT INTO workers VALUES (:worker, clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at"""
)
_REMOVE_DEAD_WORKERS = text(
    """DELETE FROM workers WHERE name IN (
        SELECT name FROM workers WHERE seen_at < clock_timestamp() - CAST(:alive AS interval)
        FOR UPDATE SKIP LOCKED)"""
)
_FAIR_SHARE = text("SELECT ceil(:partitions / count(*)::numeric)::int FROM workers")
_SELECT_LEASES = text("SELECT partition, fence FROM leases WHERE worker = :worker ORDER BY partition")
_RELEASE_LEASES = text(  # a partition that is being written is released in a later round
    """UPDATE leases SET worker = NULL WHERE partition IN (
        SELECT partition FROM leases WHERE worker = :worker AND partition = ANY(:partitions)
        FOR UPDATE SKIP LOCKED)"""
)
_ACQUIRE_LEASES = text(
    """UPDATE leases SET worker = :worker, fence = fence + 1 WHERE partition IN (
        SELECT partition FROM leases
        WHERE worker IS NULL OR NOT EXISTS (SELECT FROM workers WHERE workers.name = leases.worker)
        ORDER BY partition LIMIT :wanted FOR UPDATE OF leases SKIP LOCKED)"""
)
_REMOVE_WORKER = text("DELETE FROM workers WHERE name = :worker")
_LOCK_LEASES = text("SELECT partition, fence FROM leases WHERE worker = :worker FOR SHARE")


class Leases:
    """The leases of one worker. `store` has connections of its own, so no long transaction delays a round.

    Close it, or the other workers wait until they take this one as dead.
    """

    def __init__(self, store: BookStore, worker: str) -> None:
        self._store = store
        self._worker = worker  # a name that no other worker ever had
        self.fences: dict[int, int] = {}

    async def renew(self) -> bool:
        """Send a heartbeat, and acquire or release partitions up to a fair share; whether any changed."""
        previous, self.fences = self.fences, await self._store.write(self._renew)
        if changed := self.fences != previous:
            log.info("leases", worker=self._worker, partitions=sorted(self.fences))
        return changed

    async def close(self) -> None:
        """Give up all partitions, and close the connections."""
        self.fences = {}
        try:
            await self._store.write(
                lambda connection: connection.execute(_REMOVE_WORKER, {"worker": self._worker})
            )
        finally:
            await self._store.close()

    def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        """Raise Overtaken unless this worker holds these partitions, and does until the transaction's end."""
        stored = {row[0]: row[1] for row in connection.execute(_LOCK_LEASES, {"worker": self._worker})}
        known = self.fences
        if any(part not in known or stored.get(part) != known[part] for part in partitions):
            raise Overtaken("another worker has taken a partition")

    def _renew(self, connection: Connection) -> dict[int, int]:
        worker = {"worker": self._worker}
        connection.execute(_HEARTBEAT, worker)
        connection.execute(_REMOVE_DEAD_WORKERS, {"alive": WORKER_TIMEOUT})
        share = connection.execute(_FAIR_SHARE, {"partitions": self._store.partitions}).scalar_one()
        leased = [row.partition for row in connection.execute(_SELECT_LEASES, worker)]
        if len(leased) > share:
            connection.execute(_RELEASE_LEASES, {**worker, "partitions": leased[share:]})
        elif len(leased) < share:
            connection.execute(_ACQUIRE_LEASES, {**worker, "wanted": share - len(leased)})
        return {row.partition: row.fence for row in connection.execute(_SELECT_LEASES, worker)}
