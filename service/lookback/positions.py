"""The ledger's position at a moment, and the chain's digest at a position. Functions on a connection."""

from datetime import date, datetime, time, timedelta, tzinfo

from sqlalchemy import Connection, bindparam, select

from service.core.moments import to_us
from service.ledger import chain, tables
from service.ledger.append import read_head
from service.ledger.history import read_recorded_at
from service.storage.statements import HotStatement

_events = tables.Event.__table__  # type: ignore[attr-defined]
_SELECT_DIGEST = HotStatement(
    lambda _: select(_events.c.digest).where(_events.c.position == bindparam("position"))
)


def last_us(known_at: date | datetime, zone: tzinfo) -> int:
    """The last microsecond that counts: that of a moment, or of a day in `zone`."""
    if isinstance(known_at, datetime):
        return to_us(known_at)
    return to_us(datetime.combine(known_at + timedelta(days=1), time(), zone)) - 1


def position_known_by(connection: Connection, moment_us: int) -> int:
    """The position of the last event recorded by a moment; 0 if the first came later.

    A binary search by powers of two: events recorded later never change the answer, even if a clock went
    back.
    """
    last = read_head(connection).position
    position = 0
    for power in reversed(range(last.bit_length())):
        step = position + (1 << power)
        if step <= last and (read_recorded_at(connection, step) or 0) <= moment_us:
            position = step
    return position


def digest_at(connection: Connection, position: int) -> str:
    """The first 16 hex digits of the chain's digest at a position: they identify the events up to there."""
    rows = _SELECT_DIGEST.run(connection, position)
    return bytes(rows[0][0] if rows else chain.GENESIS).hex()[:16]
