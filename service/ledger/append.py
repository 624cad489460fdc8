"""Appending to the ledger: one transaction's work, as plain functions on its connection."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from service.ledger import chain, tables
from service.ledger.draft import Draft, EventKey, Head, Incoming, Outcome, Seen
from service.ledger.key_destruction import erase
from service.ledger.parts import make_room
from service.ledger.personal_data import owner_of
from service.ledger.vault import GENERAL, Vault
from service.storage.statements import POSTGRESQL, HotInsert, HotStatement, any_of

_events = tables.Event.__table__  # type: ignore[attr-defined]
_ids = tables.EventId.__table__  # type: ignore[attr-defined]
_deliveries = tables.Delivery.__table__  # type: ignore[attr-defined]
_subjects = tables.Subject.__table__  # type: ignore[attr-defined]
_quarantine = tables.Quarantine.__table__  # type: ignore[attr-defined]
_turn = tables.Turn.__table__  # type: ignore[attr-defined]

_TAKE_TURN = HotStatement(lambda _: select(_turn.c.position, _turn.c.digest).with_for_update())
_PASS_TURN = HotStatement(
    lambda _: update(_turn).values(position=bindparam("position"), digest=bindparam("digest"))
)
_TURN = HotStatement(lambda _: select(_turn.c.position, _turn.c.digest))
_LAST = HotStatement(
    lambda _: select(_events.c.position, _events.c.digest).where(
        _events.c.position == select(func.max(_events.c.position)).scalar_subquery()
    )
)
_KNOWN = HotStatement(
    lambda _: select(
        _ids.c.processor,
        _ids.c.account,
        _ids.c.event_id,
        _ids.c.position,
        _ids.c.content_digest,
        select(_events.c.trust).where(_events.c.position == _ids.c.position).scalar_subquery(),
    ).where(any_of(_ids.c.event_id, "ids"))
)
_ADD_EVENTS = HotInsert(_events)
_ADD_IDS = HotInsert(_ids)
_ADD_DELIVERIES = HotInsert(_deliveries)
_ADD_SUBJECTS = HotInsert(_subjects)
_ADD_QUARANTINE = HotInsert(
    _quarantine,
    [c.name for c in _quarantine.c if c.name != "id" and not c.name.startswith("settled_")],
    lambda insert: insert.on_conflict_do_nothing(),
)


def append(connection: Connection, batch: Sequence[Incoming], now_us: int, vault: Vault) -> list[Outcome]:
    """Write what a batch adds; positions have no gaps, and are in the order of the commits.

    For that one transaction appends at a time: on SQLite there is one writer, on PostgreSQL each holds
    the only row of `turn` until it has committed.
    """
    shared = connection.dialect.name == POSTGRESQL
    before = _head_of(_TAKE_TURN.run(connection)) if shared else head(connection)
    told = [event for incoming in batch for event in incoming.events]
    keys = vault.make_keys(connection, {GENERAL, *map(owner_of, told)})
    draft = Draft(before, _known(connection, batch), now_us, keys, vault.digest)
    outcomes = [draft.add(incoming) for incoming in batch]
    if shared and draft.events:
        make_room(connection, before.position, draft.head.position)
        _PASS_TURN.run(connection, draft.head.position, draft.head.digest)
    for statement, rows in (
        (_ADD_EVENTS, draft.events),
        (_ADD_IDS, draft.events),
        (_ADD_DELIVERIES, draft.deliveries),
        (_ADD_SUBJECTS, draft.subjects),
        (_ADD_QUARANTINE, draft.quarantine),
    ):
        if rows:
            statement.add(connection, [tuple(row[name] for name in statement.columns) for row in rows])
    erase(connection, vault, told, keys)
    return outcomes


def head(connection: Connection) -> Head:
    """The last position and its digest."""
    return _head_of((_TURN if connection.dialect.name == POSTGRESQL else _LAST).run(connection))


def _head_of(rows: list[Any]) -> Head:
    return Head(position=rows[0][0], digest=rows[0][1]) if rows else Head(position=0, digest=chain.GENESIS)


def _known(connection: Connection, batch: Sequence[Incoming]) -> dict[EventKey, Seen]:
    """Which of the batch's events the ledger already holds."""
    ids = [event.event_id for incoming in batch for event in incoming.events]
    return {(row[0], row[1], row[2]): (row[3], row[4], row[5]) for row in _KNOWN.run(connection, ids)}
