"""Reading events from the ledger: the new ones, and whole histories. Plain functions on a connection."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import json
from sqlalchemy import Connection, bindparam, select

from service.core.events import READING, TYPE_OF, TYPES, Event, Lifted, SetAside
from service.core.moments import from_us
from service.ledger import tables
from service.ledger.personal_data import CUSTOMER, has_sealed_fields, unseal_data
from service.ledger.vault import Vault
from service.storage.statements import HotStatement, any_of

_events = tables.Event.__table__  # type: ignore[attr-defined]
_subjects = tables.Subject.__table__  # type: ignore[attr-defined]
_set_aside = tables.SetAsideHistory.__table__  # type: ignore[attr-defined]

READING_TYPES = (TYPE_OF[SetAside], TYPE_OF[Lifted])  # they say how far a history is read, and are none of it

_DECODE = {name: json.Decoder(data) for name, data in TYPES.items()}
_COLUMN_NAMES = "position processor account event_id type occurred_at_us rank trust data before".split()
EVENT_COLUMNS = [
    _events.c[name] for name in _COLUMN_NAMES
]  # the columns from which `to_event` makes an event

_TYPE_INDEX, _DATA_INDEX, _BEFORE_INDEX = (_COLUMN_NAMES.index(name) for name in ("type", "data", "before"))

_SELECT_AFTER = HotStatement(
    lambda _: (
        select(*EVENT_COLUMNS)
        .where(_events.c.position > bindparam("after"), _events.c.position <= bindparam("last"))
        .order_by(_events.c.position)
    )
)
_SELECT_HISTORIES = HotStatement(
    lambda _: (
        select(*EVENT_COLUMNS, _subjects.c.subject)
        .select_from(_subjects.join(_events, _events.c.position == _subjects.c.position))
        .where(any_of(_subjects.c.subject, "names"))
        .where(_subjects.c.position <= bindparam("up_to"))
    )
)
_SELECT_SET_ASIDE = HotStatement(
    lambda _: select(_set_aside.c.subject, _set_aside.c.up_to).where(any_of(_set_aside.c.subject, "names"))
)
_SELECT_NAMES = HotStatement(
    lambda _: (
        select(_subjects.c.subject)
        .where(_subjects.c.position > bindparam("after"), _subjects.c.position <= bindparam("until"))
        .distinct()
    )
)
_SELECT_RECORDED_AT = HotStatement(
    lambda _: select(_events.c.recorded_at_us).where(_events.c.position == bindparam("position"))
)


def read_names_between(connection: Connection, after: int, until: int) -> list[str]:
    """The histories to which the events after a position belong, up to another one; each once."""
    return [row[0] for row in _SELECT_NAMES.run(connection, after, until)]


def read_recorded_at(connection: Connection, position: int) -> int | None:
    """When the event at a position was recorded, in microseconds; None if there is no such event."""
    rows = _SELECT_RECORDED_AT.run(connection, position)
    return int(rows[0][0]) if rows else None


def read_events(connection: Connection, position: int, limit: int) -> list[tuple[int, Event]]:
    """The next `limit` events after `position`, in order, as (position, event). Positions have no gaps."""
    return [(row[0], to_event(row)) for row in _SELECT_AFTER.run(connection, position, position + limit)]


def read_histories(
    connection: Connection, names: Iterable[str], up_to: int, vault: Vault, *, whole: bool = False
) -> dict[str, list[Event]]:
    """The events of each subject up to a position, in any order; see `read_placed_histories`."""
    histories = read_placed_histories(connection, names, up_to, vault, whole=whole)
    return {name: [event for _, event in placed] for name, placed in histories.items()}


def read_placed_histories(
    connection: Connection, names: Iterable[str], up_to: int, vault: Vault, *, whole: bool = False
) -> dict[str, list[tuple[int, Event]]]:
    """The events of each subject up to a position, as (position, event), in any order.

    Of a history that is set aside they are those of which books are made, whatever the position; `whole`
    gives the others, too, to who makes none.

    Of sealed data they hold names alone: figures follow from nothing that an erasure takes away.
    """
    events_by_name: dict[str, list[tuple[int, Event]]] = {name: [] for name in names}
    by_position: dict[int, Event] = {}
    limits = {} if whole else read_limits(connection, events_by_name)
    rows = [
        row
        for row in _SELECT_HISTORIES.run(connection, list(events_by_name), up_to)
        if row[0] <= limits.get(row[-1], up_to) and _is_of_history(row)
    ]
    for row in unseal_rows(connection, vault, rows, lambda row: row[_TYPE_INDEX] == CUSTOMER):
        event = by_position.get(row[0]) or by_position.setdefault(row[0], to_event(row))
        events_by_name[row[-1]].append((row[0], event))
    return events_by_name


def read_limits(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """The position up to which each of these histories is read, of those that are set aside."""
    return {row[0]: row[1] for row in _SELECT_SET_ASIDE.run(connection, list(names))}


def _is_of_history(row: Sequence[Any]) -> bool:
    return row[_TYPE_INDEX] not in READING_TYPES or row[-1].startswith(f"{READING}|")


def unseal_rows(
    connection: Connection,
    vault: Vault,
    rows: Sequence[Sequence[Any]],
    is_wanted: Callable[[Sequence[Any]], bool] = lambda _row: True,
) -> list[Sequence[Any]]:
    """Rows that begin with the `EVENT_COLUMNS`, with the sealed personal data of those that are wanted."""
    sides = slice(_DATA_INDEX, _BEFORE_INDEX + 1)
    texts = {text for row in rows if is_wanted(row) for text in row[sides] if has_sealed_fields(text)}
    unsealed = dict(zip(texts, unseal_data(connection, vault, list(texts)), strict=True)) if texts else {}
    return [
        (*row[:_DATA_INDEX], *(unsealed.get(text, text) for text in row[sides]), *row[_BEFORE_INDEX + 1 :])
        if unsealed
        else row
        for row in rows
    ]


def to_event(row: Sequence[Any]) -> Event:
    """A row that begins with the `EVENT_COLUMNS` as an event.

    From a row as it is stored the event comes without its sealed personal data.
    """
    _, processor, account, event_id, kind, occurred_at_us, rank, trust, data, before = row[
        : len(EVENT_COLUMNS)
    ]
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
