"""Appending to the ledger: one transaction's work, as plain functions on its connection."""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update

from service.core.errors import Integrity
from service.core.events import (
    SUPERSEDED_SUFFIX,
    Event,
    SetAside,
    Superseded,
    original_id,
    revision_id,
    revision_number,
)
from service.ledger import chain, set_aside, tables
from service.ledger.draft import (
    Draft,
    EventKey,
    Head,
    Incoming,
    KnownEvent,
    Outcome,
    keys_by_id,
    rendering_of,
)
from service.ledger.fetches import ADD_FETCHES
from service.ledger.key_destruction import destroy_erased_keys, find_unexplained
from service.ledger.personal_data import owner_of
from service.ledger.quarantine_chain import append_records
from service.ledger.range_partitions import ensure_partitions
from service.ledger.renderings import EventRenderings, read_renderings
from service.ledger.vault import GENERAL, Vault
from service.storage.statements import POSTGRESQL, HotInsert, HotStatement, any_of

_events = tables.Event.__table__  # type: ignore[attr-defined]
_ids = tables.EventId.__table__  # type: ignore[attr-defined]
_deliveries = tables.Delivery.__table__  # type: ignore[attr-defined]
_subjects = tables.Subject.__table__  # type: ignore[attr-defined]
_quarantine = tables.Quarantine.__table__  # type: ignore[attr-defined]
_turn = tables.Turn.__table__  # type: ignore[attr-defined]

_LOCK_HEAD = HotStatement(lambda _: select(_turn.c.position, _turn.c.digest).with_for_update())
_STORE_HEAD = HotStatement(
    lambda _: update(_turn).values(position=bindparam("position"), digest=bindparam("digest"))
)
_READ_STORED_HEAD = HotStatement(lambda _: select(_turn.c.position, _turn.c.digest))
_READ_LAST_EVENT = HotStatement(
    lambda _: select(_events.c.position, _events.c.digest).where(
        _events.c.position == select(func.max(_events.c.position)).scalar_subquery()
    )
)
_FIND_KNOWN = HotStatement(
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
_QUARANTINED = [c.name for c in _quarantine.c if c.name != "id" and not c.name.startswith("settled_")]
_ADD_QUARANTINE = HotStatement(
    lambda dialect: dialect.insert(_quarantine).on_conflict_do_nothing().returning(*_quarantine.c),
    _QUARANTINED,
)


def append_deliveries(
    connection: Connection, old_head: Head, batch: Sequence[Incoming], now_us: int, vault: Vault
) -> list[Outcome]:
    """Write the rows that a batch adds after the head, which this transaction has locked.

    So positions have no gaps, and are in the order of the commits.
    """
    is_postgresql = connection.dialect.name == POSTGRESQL
    events = [event for incoming in batch for event in incoming.events]
    keys = _Keys(connection, vault, {GENERAL, *map(owner_of, events)})
    known = _find_known(connection, events)
    renderings = _read_renderings(connection, vault, batch, known)
    draft = Draft(old_head, known, renderings, now_us, keys, vault.digest)
    outcomes = [draft.add(incoming) for incoming in batch]
    if is_postgresql and draft.events:
        ensure_partitions(connection, old_head.position, draft.head.position)
        _STORE_HEAD.run(connection, draft.head.position, draft.head.digest)
    for statement, rows in (
        (_ADD_EVENTS, draft.events),
        (_ADD_IDS, draft.events),
        (_ADD_DELIVERIES, draft.deliveries),
        (_ADD_SUBJECTS, draft.subjects),
        (ADD_FETCHES, draft.fetches),
    ):
        if rows:
            statement.add(connection, list(map(itemgetter(*statement.columns), rows)))
    set_aside.apply(connection, draft.set_aside)
    _add_quarantine(connection, draft.quarantine)
    destroy_erased_keys(connection, vault, [*events, *draft.corrections], keys)
    return outcomes


def _add_quarantine(connection: Connection, entries: Sequence[dict[str, Any]]) -> None:
    """Add entries to quarantine, and to its chain; one that is there already is not added again."""
    added = [
        dict(zip(_quarantine.c.keys(), row, strict=True))
        for entry in entries
        for row in _ADD_QUARANTINE.run(connection, *(entry[name] for name in _QUARANTINED))
    ]
    append_records(connection, added)


class _Keys(dict[str, bytes | None]):
    """The keys of these owners, and of each further one who is asked for in the transaction.

    Raises Integrity if a key is gone without an erasure: what is sealed then could never be read.
    """

    def __init__(self, connection: Connection, vault: Vault, owners: set[str]) -> None:
        super().__init__()
        self._connection = connection
        self._vault = vault
        self._add(owners)

    def __missing__(self, owner: str) -> bytes | None:
        self._add([owner])
        return self[owner]

    def _add(self, owners: Iterable[str]) -> None:
        keys = self._vault.make_keys(self._connection, owners)
        destroyed = [owner for owner, key in keys.items() if key is None]
        if destroyed and (names := find_unexplained(self._connection, self._vault, destroyed)):
            raise Integrity(f"the key of {names[0]} is gone, and no event says that they were erased")
        self.update(keys)


def lock_head(connection: Connection) -> Head:
    """The last position and its digest, after which this transaction alone may append until it ends.

    On PostgreSQL it locks the only row of `turn`; SQLite has one writer anyway.
    """
    is_postgresql = connection.dialect.name == POSTGRESQL
    return _head_from(_LOCK_HEAD.run(connection)) if is_postgresql else read_head(connection)


def read_head(connection: Connection) -> Head:
    """The last position and its digest."""
    return _head_from(
        (_READ_STORED_HEAD if connection.dialect.name == POSTGRESQL else _READ_LAST_EVENT).run(connection)
    )


def _head_from(rows: list[Any]) -> Head:
    return Head(position=rows[0][0], digest=rows[0][1]) if rows else Head(position=0, digest=chain.GENESIS)


def _find_known(connection: Connection, events: Sequence[Event]) -> dict[EventKey, KnownEvent]:
    """The events that the ledger holds already, by their keys; of a revision the one before it, too."""
    ids = {event.event_id for event in events}
    for event in events:
        if (number := revision_number(event.event_id)) > 1:
            previous = revision_id(original_id(event.event_id), number - 1)
            ids |= {previous, previous + SUPERSEDED_SUFFIX}
        if isinstance(event.data, Superseded | SetAside):
            ids.add(event.data.event_id)
    rows = _FIND_KNOWN.run(connection, sorted(ids))
    return {(row[0], row[1], row[2]): (row[3], row[4], row[5]) for row in rows}


def is_rendering(connection: Connection, vault: Vault, incoming: Incoming) -> bool:
    """Whether a delivery is a rendering of an event of this ledger, and contradicts none that is there."""
    event = incoming.rendered_event
    if event is None or incoming.render is None:
        return False
    renderings = read_renderings(connection, vault, event.processor, event.event_id, incoming.render)
    rendering = rendering_of(incoming, event, 0, vault.digest(incoming.content_digest))
    return bool(renderings.all) and renderings.is_whole and not renderings.contradicted(rendering)


def _read_renderings(
    connection: Connection, vault: Vault, batch: Sequence[Incoming], known: dict[EventKey, KnownEvent]
) -> dict[tuple[str, str], EventRenderings]:
    """The events of which the batch has another rendering than the first in the ledger."""
    keys, renderings = keys_by_id(known), dict[tuple[str, str], EventRenderings]()
    for incoming in batch:
        event = incoming.rendered_event
        name = (event.processor, event.event_id) if event else None
        if event is None or name is None or name not in keys or name in renderings or incoming.render is None:
            continue
        _, digest, trust = known[keys[name]]
        is_first = digest in (vault.digest(incoming.content_digest), incoming.content_digest)
        if not (is_first and (keys[name][1], trust) == (event.account, event.trust)):
            renderings[name] = read_renderings(connection, vault, *name, incoming.render)
    return renderings
