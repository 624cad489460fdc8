"""What late events changed of days already gone: read from a file that is made for the range asked for."""

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.books.view import View
from service.ledger.append import read_head
from service.reads.parameters import check_range
from service.reads.restatements import RESTATEMENTS
from service.reads.schemas import columns
from service.storage.database import SqliteDatabase
from service.web.lookback import known_position, wanted_at
from service.web.reads import (
    AS_KNOWN,
    Asked,
    check_key,
    lasting,
    meta,
    meta_of,
    parse,
    tagged,
    to_csv,
    when_reached,
    with_meta,
)
from service.web.state import State


def restatement_routes() -> list[Route]:
    """The one GET route."""
    return [Route(RESTATEMENTS.path, _respond, methods=["GET"])]


async def _respond(request: Request) -> Response:
    check_key(request)
    state: State = request.state.daybook
    asked = parse(RESTATEMENTS, request, state)
    return await when_reached(state, asked.at_least, asked.timeout_ms, partial(_answer, request, asked))


async def _answer(request: Request, asked: Asked) -> Response:
    state: State = request.state.daybook
    check_range(asked.args["from"], asked.args["to"])
    since = await known_position(asked.args["from"] - timedelta(days=1), state)
    until = await known_position(asked.args["to"], state)
    end = (await state.ledger.read(read_head)).position
    position = end if until is None else until
    wanted = await wanted_at(state.ledger, position, end if since is None else since)
    path = await state.lookback.find_or_make(wanted, asked.timeout_ms)
    document = await _read(path, asked)
    following = {"cursor": document["next_cursor"]} if document["next_cursor"] else None
    if asked.csv:
        listed = to_csv(columns(RESTATEMENTS.shape, RESTATEMENTS.rows), document[RESTATEMENTS.rows])
        return tagged(request, listed, "text/csv; charset=utf-8", following)
    body = json.encode(document)
    unpriced = (await meta(state, asked.scope))["unpriced_contracts"]
    marked = await meta_of(asked.scope.today, state, position, unpriced)
    if until is not None:
        marked["data_freshness"] = AS_KNOWN
    same = lasting(body, marked)
    return tagged(request, with_meta(body, marked), "application/json", following, same_as=same)


async def _read(path: Path, asked: Asked) -> dict[str, Any]:
    """The document, from the file."""
    database = SqliteDatabase(path, "NORMAL", time_limited=True)
    try:
        return await database.read(
            lambda connection: RESTATEMENTS.answer(
                View(connection=connection, books={}, scope=asked.scope), asked.args
            )
        )
    finally:
        await database.close()
