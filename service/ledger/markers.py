"""The histories of markers: a marker belongs to all histories of the event that it supersedes.

Its data names them as they were when it was appended. An event may belong to more since then.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from service.core.events import Event, Superseded, subjects
from service.ledger import tables
from service.ledger.history import EVENT_COLUMNS, to_event
from service.storage.statements import any_of

_events = tables.Event.__table__  # type: ignore[attr-defined]
_ids = tables.EventId.__table__  # type: ignore[attr-defined]
_SELECT_BY_ID = (
    select(*EVENT_COLUMNS)
    .select_from(_ids.join(_events, _events.c.position == _ids.c.position))
    .where(any_of(_ids.c.event_id, "ids"))
)


def subjects_of_markers(connection: Connection, events: Sequence[tuple[int, Event]]) -> set[tuple[str, int]]:
    """The subjects of what is superseded by the markers among `events`, with each marker's position."""
    markers = [
        (position, event, event.data.event_id)
        for position, event in events
        if isinstance(event.data, Superseded)
    ]
    if not markers:
        return set()
    rows = connection.execute(_SELECT_BY_ID, {"ids": sorted({event_id for *_, event_id in markers})})
    superseded = {
        (event.processor, event.account, event.event_id): subjects(event) for event in map(to_event, rows)
    }
    return {
        (name, position)
        for position, marker, event_id in markers
        for name in superseded.get((marker.processor, marker.account, event_id), ())
    }
