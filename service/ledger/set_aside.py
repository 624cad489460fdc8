"""Histories that are set aside: no book is made from their events after a position. Plain functions.

A row of the table `set_aside` is written in the transaction that appends the event `subject.set_aside`, and
removed in the one that appends `subject.lifted`. So all who read histories agree how far each is read.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from msgspec import Struct
from sqlalchemy import Connection, bindparam, func, select

from service.core.events import (
    READING,
    REVISION_MARK,
    TYPE_OF,
    Data,
    Event,
    Lifted,
    SetAside,
    histories_of,
    split_key,
    subject,
)
from service.core.moments import from_us
from service.ledger import tables
from service.ledger.history import EVENT_COLUMNS, to_event
from service.storage.statements import HotInsert, HotStatement, any_of

_events = tables.Event.__table__  # type: ignore[attr-defined]
_subjects = tables.Subject.__table__  # type: ignore[attr-defined]
_set_aside = tables.SetAsideHistory.__table__  # type: ignore[attr-defined]

_ADD = HotInsert(_set_aside)
_REMOVE = HotStatement(lambda _: _set_aside.delete().where(any_of(_set_aside.c.subject, "names")))
_SELECT_LAST_MOMENT = HotStatement(
    lambda _: (
        select(func.max(_events.c.occurred_at_us))
        .select_from(_subjects.join(_events, _events.c.position == _subjects.c.position))
        .where(_subjects.c.subject == bindparam("name"))
    )
)


class SetAsideSubject(Struct, frozen=True, kw_only=True):
    """A history that is set aside now: up to which position it is read, and which book failed how.

    `position` is that of the event that says so, `at` when it was recorded.
    """

    subject: str
    up_to: int
    position: int
    at: datetime
    book: str
    error: str


def read_set_aside(
    connection: Connection, after: str = "", limit: int | None = None
) -> list[SetAsideSubject]:
    """The histories that are set aside now, by name: all after a name, or the first ones of them."""
    query = (
        select(*EVENT_COLUMNS, _events.c.recorded_at_us, _set_aside.c.up_to, _set_aside.c.subject)
        .select_from(_set_aside.join(_events, _events.c.position == _set_aside.c.position))
        .where(_set_aside.c.subject > after)
        .order_by(_set_aside.c.subject)
        .limit(limit)
    )
    found = []
    for row in connection.execute(query):
        data = to_event(row).data
        assert isinstance(data, SetAside)  # noqa: S101 - `apply` writes no other
        found.append(
            SetAsideSubject(
                subject=row[-1],
                up_to=row[-2],
                position=row[0],
                at=from_us(row[-3]),
                book=data.book,
                error=data.error,
            )
        )
    return found


def count_set_aside(connection: Connection) -> int:
    """How many histories are set aside now."""
    return int(connection.execute(select(func.count()).select_from(_set_aside)).scalar_one())


def last_change(connection: Connection) -> int:
    """The position of the last event that says how far a history is read; 0 without one."""
    query = select(func.max(_subjects.c.position)).where(
        _subjects.c.subject > f"{READING}|", _subjects.c.subject < f"{READING}}}"
    )
    return connection.execute(query).scalar_one() or 0


def apply(connection: Connection, changes: Iterable[tuple[str, int | None, int]]) -> None:
    """Write what appended events say, in their order.

    `changes` are (history, the position up to which it is read, None for its end, the event's position).
    """
    last = {name: (name, up_to, position) for name, up_to, position in changes}
    if last:
        _REMOVE.run(connection, sorted(last))
    if rows := [row for row in last.values() if row[1] is not None]:
        _ADD.add(connection, rows)


def set_aside_events(
    connection: Connection,
    first_unread: Mapping[str, int],
    book: str,
    error: str,
    position: int,
    now: datetime,
) -> list[Event]:
    """The events which say that these histories are not read from these positions on.

    None for those that are not read from there on already. The first event gets the given position.
    """
    query = select(_set_aside.c.subject, _set_aside.c.up_to).where(any_of(_set_aside.c.subject, "names"))
    current = {row[0]: row[1] for row in connection.execute(query, {"names": sorted(first_unread)})}
    new = {name: at for name, at in first_unread.items() if name not in current or current[name] >= at}
    query = select(_events.c.position, _events.c.event_id).where(any_of(_events.c.position, "positions"))
    ids = {row[0]: row[1] for row in connection.execute(query, {"positions": sorted({*new.values()})})}
    return [
        _event(
            connection,
            name,
            SetAside(kind=kind, key=key, event_id=ids[new[name]], book=book, error=error),
            position + number,
            now,
        )
        for number, name in enumerate(sorted(new))
        for kind, _, _, key in [split_key(name)]
    ]


def lifting_events(connection: Connection, names: Iterable[str], position: int, now: datetime) -> list[Event]:
    """The events which say that these histories are read to their ends again; none for those that are.

    The first event gets the given position.
    """
    query = select(_set_aside.c.subject).where(any_of(_set_aside.c.subject, "names"))
    found = sorted(connection.execute(query, {"names": sorted(names)}).scalars())
    return [
        _event(connection, name, Lifted(kind=kind, key=key), position + number, now)
        for number, name in enumerate(found)
        for kind, _, _, key in [split_key(name)]
    ]


def _event(connection: Connection, name: str, data: Data, position: int, now: datetime) -> Event:
    """An event of how far a history is read, later than those before it, whatever the clock says."""
    _, processor, account, _ = split_key(name)
    what = TYPE_OF[type(data)].rpartition(".")[2].replace("_", "-")
    event = Event(
        processor=processor,
        account=account,
        event_id=f"{what}{REVISION_MARK}at-{position}",
        occurred_at=now,
        trust="unsigned",
        data=data,
    )
    of_reading = next(subject(kind, event, key) for kind, key in histories_of(data) if kind == READING)
    ((last_us,),) = _SELECT_LAST_MOMENT.run(connection, of_reading)
    if last_us is None:
        return event
    return Event(
        processor=processor,
        account=account,
        event_id=event.event_id,
        occurred_at=max(now, from_us(last_us) + timedelta(microseconds=1)),
        trust=event.trust,
        data=data,
    )
