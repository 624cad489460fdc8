"""Cursors: the progress and the findings of long tasks, by their names."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, select

from service.core.moments import to_us
from service.ledger import tables
from service.storage.statements import HotInsert

_cursors = tables.Cursor.__table__  # type: ignore[attr-defined]

_SAVE = HotInsert(
    _cursors,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=["name"],
        set_={name: insert.excluded[name] for name in ("body", "kept_at_us")},
    ),
)


def save_cursor(connection: Connection, name: str, body: bytes, now: datetime) -> None:
    """Save a cursor in place of the last one under this name."""
    _SAVE.add(connection, [(name, body, to_us(now))])


def read_cursors(connection: Connection, names: Iterable[str]) -> dict[str, bytes]:
    """Those of the named cursors that were saved, by name."""
    query = select(_cursors.c.name, _cursors.c.body).where(_cursors.c.name.in_(list(names)))
    return {row[0]: row[1] for row in connection.execute(query)}
