"""What the engine reads of the ledger: new events, and whole histories. Plain functions on a connection."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import json
from sqlalchemy import Connection, bindparam, select

from service.core.events import TYPES, Event
from service.core.moments import from_us
from service.ledger import tables
from service.ledger.personal_data import PERSONAL, open_data
from service.ledger.vault import Vault
from service.storage.statements import HotStatement, any_of

_events = tables.Event.__table__  # type: ignore[attr-defined]
_subjects = tables.Subject.__table__  # type: ignore[attr-defined]

_DECODE = {name: json.Decoder(data) for name, data in TYPES.items()}
_NAMES = "position processor account event_id type occurred_at_us rank trust data before".split()
FOLDED = [_events.c[name] for name in _NAMES]  # the columns of which `event_of` makes an event

_TYPE, _DATA, _BEFORE = (_NAMES.index(name) for name in ("type", "data", "before"))

_AFTER = HotStatement(
    lambda _: (
        select(*FOLDED)
        .where(_events.c.position > bindparam("after"), _events.c.position <= bindparam("last"))
        .order_by(_events.c.position)
    )
)
_HISTORIES = HotStatement(
    lambda _: (
        select(*FOLDED, _subjects.c.subject)
        .select_from(_subjects.join(_events, _events.c.position == _subjects.c.position))
        .where(any_of(_subjects.c.subject, "names"))
        .where(_subjects.c.position <= bindparam("up_to"))
    )
)
_RECORDED_AT = HotStatement(
    lambda _: select(_events.c.recorded_at_us).where(_events.c.position == bindparam("position"))
)


def recorded_at(connection: Connection, position: int) -> int | None:
    """When the event at a position was recorded, in microseconds; None where there is none."""
    rows = _RECORDED_AT.run(connection, position)
    return int(rows[0][0]) if rows else None


def after(connection: Connection, position: int, limit: int) -> list[tuple[int, Event]]:
    """The next `limit` events after `position`, in order, as (position, event). Positions have no gaps."""
    return [(row[0], event_of(row)) for row in _AFTER.run(connection, position, position + limit)]


def histories(
    connection: Connection, names: Iterable[str], up_to: int, vault: Vault
) -> dict[str, list[Event]]:
    """The whole history of each subject up to a position, in no order."""
    found: dict[str, list[Event]] = {name: [] for name in names}
    seen: dict[int, Event] = {}
    for row in open_rows(connection, vault, _HISTORIES.run(connection, list(found), up_to)):
        event = seen.get(row[0]) or seen.setdefault(row[0], event_of(row))
        found[row[-1]].append(event)
    return found


def open_rows(connection: Connection, vault: Vault, rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Rows whose first columns are those of `FOLDED`, with what is sealed in them opened."""
    sealed = [row for row in rows if row[_TYPE] == PERSONAL]
    texts = {text for row in sealed for text in row[_DATA : _BEFORE + 1] if text is not None}
    plain = dict(zip(texts, open_data(connection, vault, list(texts)), strict=True)) if texts else {}
    return [
        (*row[:_DATA], plain[row[_DATA]], plain.get(row[_BEFORE]), *row[_BEFORE + 1 :])
        if row[_TYPE] == PERSONAL
        else row
        for row in rows
    ]


def event_of(row: Sequence[Any]) -> Event:
    """A row, its first columns those of `FOLDED`, as the event that folds see.

    Of a row as it is stored, without what is sealed in it.
    """
    _, processor, account, event_id, kind, occurred_at_us, rank, trust, data, before = row[: len(FOLDED)]
    return Event(
        processor=processor,
        account=account,
        event_id=event_id,
        occurred_at=from_us(occurred_at_us),
        rank=rank,
        trust=trust,
        data=_DECODE[kind].decode(data),
        before=before,
    )
