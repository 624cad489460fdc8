"""Look back: answer a read from books that hold only the events known at an earlier moment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from msgspec.structs import replace
from sqlalchemy import Connection

from service.core.errors import ParameterError
from service.core.moments import day_of, to_us
from service.ledger.append import read_head
from service.ledger.store import Ledger
from service.lookback.files import LookbackSpec
from service.lookback.make_file import open_file
from service.lookback.positions import digest_at, last_us, position_known_by
from service.web.state import State


def default_today(known_at: date | datetime | None, today: date, zone: ZoneInfo) -> date:
    """The default of `today`: the day of `known_at`, unless that is in the future."""
    if known_at is None:
        return today
    return min(today, day_of(known_at, zone) if isinstance(known_at, datetime) else known_at)


async def requested_position(args: dict[str, Any], state: State) -> int | None:
    """The ledger position for which the books are requested; None for the books as they are now.

    A `known_at` in the future means now. Raises ParameterError.
    """
    position, known_at = args.get("position"), args.get("known_at")
    if position is not None and known_at is not None:
        raise ParameterError("known_at: not together with position")
    if position is not None:
        if position > (last := (await state.ledger.read(read_head)).position):
            raise ParameterError(f"position: at most {last}, the ledger's last")
        return int(position)
    if known_at is None:
        return None
    return await known_position(known_at, state)


async def known_position(known_at: date | datetime, state: State) -> int | None:
    """The last position recorded by a moment, or by the end of a day; None if that is in the future."""
    moment_us = last_us(known_at, ZoneInfo(state.settings.reporting_tz))
    if moment_us >= to_us(state.clock()):
        return None
    return await state.ledger.read(partial(position_known_by, moment_us=moment_us))


def is_at_position(connection: Connection, books: dict[str, int], state: State, position: int) -> bool:
    """Whether all partitions of the books hold exactly the events up to this position."""
    return set(state.store.checkpoints(connection, books).values()) == {position}


@asynccontextmanager
async def state_as_known(state: State, position: int, timeout_ms: int) -> AsyncIterator[State]:
    """The state with books of the first `position` events. Raises Unavailable while they are being built."""
    wanted = await wanted_books(state.ledger, position)
    path = await state.lookback.find_or_make(wanted, timeout_ms)
    store = open_file(state.settings, path)
    try:
        yield replace(state, store=store)
    finally:
        await store.close()


async def wanted_books(ledger: Ledger, position: int, since: int | None = None) -> LookbackSpec:
    """The wanted books file, identified by the chain's digest at `position`."""
    digest = await ledger.read(partial(digest_at, position=position))
    return LookbackSpec(position=position, digest=digest, since=since)
