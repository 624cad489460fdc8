"""The thin events of which what they name is still to be fetched: plain functions on the ledger's connection.

An entry is written in the transaction that appends its thin event, and removed in the one that appends what
was fetched. Who fetches claims an entry first, which moves its due moment on: then nobody else fetches the
same, and after a failure or a crash it is due again, each time later than the last.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct
from sqlalchemy import Connection, delete, exists, func, select, update

from service.core.events import Event, ThinEvent
from service.core.moments import from_us, to_us
from service.ledger import tables
from service.ledger.draft import fetch_row
from service.storage.statements import HotInsert

CLAIM = timedelta(seconds=90)  # how long the first claim holds; each further one twice as long as the last
_LONGEST_CLAIM = timedelta(hours=1)
_MAX_DOUBLINGS = 8  # beyond these the longest holds

_fetches = tables.Fetch.__table__  # type: ignore[attr-defined]

ADD_FETCHES = HotInsert(_fetches, conflict=lambda insert: insert.on_conflict_do_nothing())


class PendingFetches(Struct, frozen=True, kw_only=True):
    """How many thin events of a processor wait for what they name, and since when the oldest does."""

    processor: str
    count: int
    oldest_at: datetime


def request_fetches(connection: Connection, events: Iterable[Event], now: datetime) -> None:
    """Have what the thin events among these name fetched, where it is not requested yet."""
    rows = [fetch_row(event, to_us(now)) for event in events if isinstance(event.data, ThinEvent)]
    if rows:
        ADD_FETCHES.add(connection, [tuple(row[name] for name in ADD_FETCHES.columns) for row in rows])


def has_due_fetch(connection: Connection, processor: str, now: datetime) -> bool:
    """Whether `claim_fetch` would find one."""
    due = exists().where(_fetches.c.processor == processor, _fetches.c.due_at_us <= to_us(now))
    return bool(connection.execute(select(due)).scalar_one())


def claim_fetch(connection: Connection, processor: str, now: datetime) -> str | None:
    """The id of the thin event that has been due for longest, claimed; None if none is due."""
    row = connection.execute(
        select(_fetches.c.event_id, _fetches.c.attempts)
        .where(_fetches.c.processor == processor, _fetches.c.due_at_us <= to_us(now))
        .order_by(_fetches.c.due_at_us, _fetches.c.event_id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    event_id, attempts = row
    held = min(CLAIM * 2 ** min(attempts, _MAX_DOUBLINGS), _LONGEST_CLAIM)
    connection.execute(
        update(_fetches)
        .where(_fetches.c.processor == processor, _fetches.c.event_id == event_id)
        .values(due_at_us=to_us(now + held), attempts=attempts + 1)
    )
    return str(event_id)


def remove_fetch(connection: Connection, processor: str, event_id: str) -> None:
    """Remove the entry of a thin event: what it names is recorded, or will never be."""
    connection.execute(
        delete(_fetches).where(_fetches.c.processor == processor, _fetches.c.event_id == event_id)
    )


def read_pending_fetches(connection: Connection) -> list[PendingFetches]:
    """What waits to be fetched, of each processor of which anything does."""
    query = select(_fetches.c.processor, func.count(), func.min(_fetches.c.since_us))
    rows = connection.execute(query.group_by(_fetches.c.processor).order_by(_fetches.c.processor))
    return [
        PendingFetches(processor=processor, count=count, oldest_at=from_us(since_us))
        for processor, count, since_us in rows
    ]
