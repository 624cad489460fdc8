"""A payment that names an invoice belongs to its history, too, and so does the marker of a replaced payment.

Older code would add events without these entries, so it can't go on working here. All payments are read
once, which takes a minute or so for ten million.
"""

from alembic import op
from sqlalchemy import select

from service.core.events import subjects
from service.ledger import tables
from service.ledger.history import EVENT_COLUMNS, to_event
from service.ledger.markers import subjects_of_markers
from service.storage.statements import HotInsert

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_PAGE = 10_000
_TYPES = ("payment.recorded", "invoice_payment.recorded", "event.superseded")

_events = tables.Event.__table__  # type: ignore[attr-defined]
_ADD_SUBJECTS = HotInsert(
    tables.Subject.__table__,  # type: ignore[attr-defined]
    conflict=lambda insert: insert.on_conflict_do_nothing(),
)


def upgrade() -> None:
    """Add the entries, a page of events at a time."""
    connection, after = op.get_bind(), 0
    query = select(*EVENT_COLUMNS).where(_events.c.type.in_(_TYPES)).order_by(_events.c.position).limit(_PAGE)
    while rows := connection.execute(query.where(_events.c.position > after)).all():
        events = [(row[0], to_event(row)) for row in rows]
        entries = {(name, position) for position, event in events for name in subjects(event)}
        _ADD_SUBJECTS.add(connection, sorted(entries | subjects_of_markers(connection, events)))
        after = rows[-1][0]
    op.execute("UPDATE compatibility SET oldest = '0004'")
