"""Look back: a read's answer from books that hold only what was known then."""

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


def today_of(known_at: date | datetime | None, today: date, zone: ZoneInfo) -> date:
    """The day that `today` is by default: that of `known_at`, if it has come."""
    if known_at is None:
        return today
    return min(today, day_of(known_at, zone) if isinstance(known_at, datetime) else known_at)


async def position_of(args: dict[str, Any], state: State) -> int | None:
    """The position up to which the books are asked for; None for the books as they are.

    What is known by a moment that has not come is what is known now. Raises ParameterError.
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
    """The last position recorded by a moment, or by the end of a day; None if that has not come."""
    moment_us = last_us(known_at, ZoneInfo(state.settings.reporting_tz))
    if moment_us >= to_us(state.clock()):
        return None
    return await state.ledger.read(partial(position_known_by, moment_us=moment_us))


def stands_at(connection: Connection, books: dict[str, int], state: State, position: int) -> bool:
    """Whether the books of this state hold the events up to this position, and no more in any partition."""
    return set(state.store.checkpoints(connection, books).values()) == {position}


@asynccontextmanager
async def as_known(state: State, position: int, timeout_ms: int) -> AsyncIterator[State]:
    """The state with books of the first `position` events. Raises Unavailable while they are being made."""
    wanted = await wanted_at(state.ledger, position)
    path = await state.lookback.find_or_make(wanted, timeout_ms)
    store = open_file(state.settings, path)
    try:
        yield replace(state, store=store)
    finally:
        await store.close()


async def wanted_at(ledger: Ledger, position: int, since: int | None = None) -> LookbackSpec:
    """What is wanted, named by the chain's digest."""
    digest = await ledger.read(partial(digest_at, position=position))
    return LookbackSpec(position=position, digest=digest, since=since)
