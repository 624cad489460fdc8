"""Leases: which worker writes which partition, where there are many (on PostgreSQL only).

Every worker says now and then that it lives; one that has not for some time loses its partitions to those
that do. Each taking raises the partition's fence, and every transaction shows the fences that its worker
knows: one that was paused and wakes up late can't write.
"""

from collections.abc import Iterable
from datetime import timedelta

import structlog
from sqlalchemy import Connection, text

from service.books.engine import Overtaken
from service.books.store import BookStore

ROUND_SECONDS = 0.5  # how often a worker says that it lives, and takes what is free
ALIVE = timedelta(seconds=2)  # a worker that has said nothing for so long is dead to the others

log = structlog.get_logger()

_LIVE = text(
    """INSERT INTO workers VALUES (:worker, clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at"""
)
_BURY = text(
    """DELETE FROM workers WHERE name IN (
        SELECT name FROM workers WHERE seen_at < clock_timestamp() - CAST(:alive AS interval)
        FOR UPDATE SKIP LOCKED)"""
)
_FAIR = text("SELECT ceil(:partitions / count(*)::numeric)::int FROM workers")
_HELD = text("SELECT partition, fence FROM leases WHERE worker = :worker ORDER BY partition")
_GIVE = text(  # what is being written just now is given in a later round
    """UPDATE leases SET worker = NULL WHERE partition IN (
        SELECT partition FROM leases WHERE worker = :worker AND partition = ANY(:partitions)
        FOR UPDATE SKIP LOCKED)"""
)
_TAKE = text(
    """UPDATE leases SET worker = :worker, fence = fence + 1 WHERE partition IN (
        SELECT partition FROM leases
        WHERE worker IS NULL OR NOT EXISTS (SELECT FROM workers WHERE workers.name = leases.worker)
        ORDER BY partition LIMIT :wanted FOR UPDATE OF leases SKIP LOCKED)"""
)
_LEAVE = text("DELETE FROM workers WHERE name = :worker")
_SHOWN = text("SELECT partition, fence FROM leases WHERE worker = :worker FOR SHARE")


class Leases:
    """What one worker holds. `store` is its own: no long transaction may delay a round.

    Close it, or the others wait until this worker is dead to them.
    """

    def __init__(self, store: BookStore, worker: str) -> None:
        self._store = store
        self._worker = worker  # a name that no other has ever had
        self.fences: dict[int, int] = {}

    async def renew(self) -> bool:
        """Say that this worker lives, and hold a fair share; whether what it holds has changed."""
        before, self.fences = self.fences, await self._store.write(self._renew)
        if changed := self.fences != before:
            log.info("leases", worker=self._worker, partitions=sorted(self.fences))
        return changed

    async def close(self) -> None:
        """Give up everything, and close the connections."""
        self.fences = {}
        try:
            await self._store.write(lambda connection: connection.execute(_LEAVE, {"worker": self._worker}))
        finally:
            await self._store.close()

    def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        """Raise Overtaken unless these are held under the fences known, and will be until the end."""
        found = {row[0]: row[1] for row in connection.execute(_SHOWN, {"worker": self._worker})}
        known = self.fences
        if any(part not in known or found.get(part) != known[part] for part in partitions):
            raise Overtaken("another worker has taken a partition")

    def _renew(self, connection: Connection) -> dict[int, int]:
        me = {"worker": self._worker}
        connection.execute(_LIVE, me)
        connection.execute(_BURY, {"alive": ALIVE})
        fair = connection.execute(_FAIR, {"partitions": self._store.partitions}).scalar_one()
        held = [row.partition for row in connection.execute(_HELD, me)]
        if len(held) > fair:
            connection.execute(_GIVE, {**me, "partitions": held[fair:]})
        elif len(held) < fair:
            connection.execute(_TAKE, {**me, "wanted": fair - len(held)})
        return {row.partition: row.fence for row in connection.execute(_HELD, me)}
