"""What was known when: moments to positions, and the chain's digest there. Functions on a connection."""

from datetime import date, datetime, time, timedelta, tzinfo

from sqlalchemy import Connection, bindparam, select

from service.core.moments import to_us
from service.ledger import chain, tables
from service.ledger.append import read_head
from service.ledger.history import read_recorded_at
from service.storage.statements import HotStatement

_events = tables.Event.__table__  # type: ignore[attr-defined]
_DIGEST = HotStatement(lambda _: select(_events.c.digest).where(_events.c.position == bindparam("position")))


def end_us(known_at: date | datetime, zone: tzinfo) -> int:
    """A moment, or the end of a day in `zone`, as the last microsecond that counts."""
    if isinstance(known_at, datetime):
        return to_us(known_at)
    return to_us(datetime.combine(known_at + timedelta(days=1), time(), zone)) - 1


def known_by(connection: Connection, moment_us: int) -> int:
    """The position of the last event recorded by a moment; 0 before the first.

    A search by powers of two: what is recorded later never changes an answer, even where a clock went back.
    """
    last = read_head(connection).position
    position = 0
    for power in reversed(range(last.bit_length())):
        step = position + (1 << power)
        if step <= last and (read_recorded_at(connection, step) or 0) <= moment_us:
            position = step
    return position


def digest_at(connection: Connection, position: int) -> str:
    """The chain's digest at a position, 16 hex digits of it: it names the events until there, no others."""
    rows = _DIGEST.run(connection, position)
    return bytes(rows[0][0] if rows else chain.GENESIS).hex()[:16]
