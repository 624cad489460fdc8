"""Which events the books of a lookback hold: the ledger's position at a moment, and the digest there."""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from functools import partial
from hashlib import sha256
from typing import Any

from msgspec import json
from sqlalchemy import Connection, bindparam, select

from service.core.errors import ParameterError
from service.core.moments import day_of, to_us
from service.ledger import chain, tables
from service.ledger.append import read_head
from service.ledger.history import read_recorded_at
from service.ledger.store import Ledger
from service.lookback.files import LookbackSpec
from service.storage.statements import HotStatement

_events = tables.Event.__table__  # type: ignore[attr-defined]
_set_aside = tables.SetAsideHistory.__table__  # type: ignore[attr-defined]
_SELECT_DIGEST = HotStatement(
    lambda _: select(_events.c.digest).where(_events.c.position == bindparam("position"))
)

_SELECT_LIMITS = HotStatement(
    lambda _: (
        select(_set_aside.c.subject, _set_aside.c.up_to)
        .where(_set_aside.c.up_to < bindparam("position"))
        .order_by(_set_aside.c.subject)
    )
)


def default_today(known_at: date | datetime | None, today: date, zone: tzinfo) -> date:
    """The default of `today`: the day of `known_at`, unless that is in the future."""
    if known_at is None:
        return today
    return min(today, day_of(known_at, zone) if isinstance(known_at, datetime) else known_at)


async def requested_position(
    args: Mapping[str, Any], ledger: Ledger, zone: tzinfo, now: datetime
) -> int | None:
    """The ledger position for which the books are requested; None for the books as they are now.

    A `known_at` in the future means now. Raises ParameterError.
    """
    position, known_at = args.get("position"), args.get("known_at")
    if position is not None and known_at is not None:
        raise ParameterError("known_at: not together with position")
    if position is not None:
        if position > (last := (await ledger.read(read_head)).position):
            raise ParameterError(f"position: at most {last}, the ledger's last")
        return int(position)
    return None if known_at is None else await known_position(known_at, ledger, zone, now)


async def known_position(
    known_at: date | datetime, ledger: Ledger, zone: tzinfo, now: datetime
) -> int | None:
    """The last position recorded by a moment, or by the end of a day; None if that is in the future."""
    moment_us = last_us(known_at, zone)
    if moment_us >= to_us(now):
        return None
    return await ledger.read(partial(position_known_by, moment_us=moment_us))


async def wanted_books(ledger: Ledger, position: int, since: int | None = None) -> LookbackSpec:
    """The wanted books file, identified by the chain's digest at `position`."""
    digest = await ledger.read(partial(digest_at, position=position))
    return LookbackSpec(position=position, digest=digest, since=since)


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
    """16 hex digits that identify the events up to a position, and which of them the books read.

    They are the first ones of the chain's digest there, unless histories are set aside before it.
    """
    rows = _SELECT_DIGEST.run(connection, position)
    digest = bytes(rows[0][0] if rows else chain.GENESIS)
    if limits := [list(row) for row in _SELECT_LIMITS.run(connection, position)]:
        digest = sha256(digest + json.encode(limits)).digest()
    return digest.hex()[:16]
