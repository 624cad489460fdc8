"""Restatements: read from a file that is built for the requested range of days."""

from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from msgspec import json
from msgspec.structs import replace
from starlette.routing import Route

from projections.work import TooMuchWork
from service.books.view import View
from service.core.errors import ParameterError
from service.ledger.append import read_head
from service.lookback.positions import known_position, wanted_books
from service.reads.parameters import check_range
from service.reads.restatements import RESTATEMENTS, Restatements, restatements
from service.storage.database import SqliteDatabase
from service.web.reads import Found, ReadQuery, build_meta, position_and_counts, read_route
from service.web.state import State


def restatement_routes() -> list[Route]:
    """The one GET route."""
    return [read_route(RESTATEMENTS, _find)]


async def _find(query: ReadQuery, state: State) -> Found:
    check_range(query.args["from"], query.args["to"])
    ledger, zone, now = state.ledger, ZoneInfo(state.settings.reporting_tz), state.clock()
    since = await known_position(query.args["from"] - timedelta(days=1), ledger, zone, now)
    until = await known_position(query.args["to"], ledger, zone, now)
    end = (await state.ledger.read(read_head)).position
    position = end if until is None else until
    wanted = await wanted_books(state.ledger, position, end if since is None else since)
    try:
        path = await state.lookback.find_or_make(wanted, query.timeout_ms)
    except TooMuchWork:
        detail = "from: a later day; what was recorded since takes too long to compare"
        raise ParameterError(detail) from None
    _, counts = await position_and_counts(query.scope, state)
    meta = await build_meta(query.scope.today, state, position, counts)
    if until is not None:
        meta = replace(meta, data_freshness="as_known")
    return Found(document=json.encode(await _read(path, query)), meta=meta)


async def _read(path: Path, query: ReadQuery) -> Restatements:
    """The page, from the file."""
    database = SqliteDatabase(path, "NORMAL", time_limited=True)
    try:
        return await database.read(
            lambda connection: restatements(
                View(connection=connection, books={}, scope=query.scope), query.args
            )
        )
    finally:
        await database.close()
