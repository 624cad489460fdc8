"""Appending to the ledger: one transaction's work, as plain functions on its connection."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.dialects import sqlite

from service.ledger import chain, tables
from service.ledger.draft import Draft, EventKey, Head, Incoming, Outcome, Seen
from service.sql import HotStatement, any_of, listed

_events = tables.Event.__table__  # type: ignore[attr-defined]
_deliveries = tables.Delivery.__table__  # type: ignore[attr-defined]
_subjects = tables.Subject.__table__  # type: ignore[attr-defined]
_quarantine = tables.Quarantine.__table__  # type: ignore[attr-defined]

_HEAD = HotStatement(
    select(_events.c.position, _events.c.digest).where(
        _events.c.position == select(func.max(_events.c.position)).scalar_subquery()
    )
)
_KNOWN = HotStatement(
    select(
        _events.c.processor,
        _events.c.account,
        _events.c.event_id,
        _events.c.position,
        _events.c.content_digest,
    ).where(any_of(_events.c.event_id, "ids"))
)
_ADD_EVENTS = HotStatement(insert(_events))
_ADD_DELIVERIES = HotStatement(insert(_deliveries))
_ADD_SUBJECTS = HotStatement(insert(_subjects))
_ADD_QUARANTINE = HotStatement(
    sqlite.insert(_quarantine).on_conflict_do_nothing(),
    [c.name for c in _quarantine.c if c.name != "id"],
)


def append(connection: Connection, batch: Sequence[Incoming], now_us: int) -> list[Outcome]:
    """Write what a batch adds. The connection holds the write lock, so positions have no gaps."""
    draft = Draft(head(connection), _known(connection, batch), now_us)
    outcomes = [draft.add(incoming) for incoming in batch]
    for statement, rows in (
        (_ADD_EVENTS, draft.events),
        (_ADD_DELIVERIES, draft.deliveries),
        (_ADD_SUBJECTS, draft.subjects),
        (_ADD_QUARANTINE, draft.quarantine),
    ):
        if rows:
            statement.change(connection, [tuple(row[name] for name in statement.parameters) for row in rows])
    return outcomes


def head(connection: Connection) -> Head:
    """The last position and its digest."""
    rows = _HEAD.rows(connection)
    return Head(position=rows[0][0], digest=rows[0][1]) if rows else Head(position=0, digest=chain.GENESIS)


def _known(connection: Connection, batch: Sequence[Incoming]) -> dict[EventKey, Seen]:
    """Which of the batch's events the ledger already holds."""
    ids = listed(event.event_id for incoming in batch for event in incoming.events)
    return {(row[0], row[1], row[2]): (row[3], row[4]) for row in _KNOWN.rows(connection, ids)}
