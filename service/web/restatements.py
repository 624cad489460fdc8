"""Restatements: read from a file that is built for the requested range of days."""

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
from service.web.lookback import known_position, wanted_books
from service.web.reads import (
    AS_KNOWN,
    ReadQuery,
    answer_when_reached,
    build_meta,
    check_key,
    parse_query,
    read_meta,
    tagged_response,
    to_csv,
    with_meta,
    without_lag,
)
from service.web.state import state_of


def restatement_routes() -> list[Route]:
    """The one GET route."""
    return [Route(RESTATEMENTS.path, _respond, methods=["GET"])]


async def _respond(request: Request) -> Response:
    check_key(request)
    state = state_of(request)
    query = parse_query(RESTATEMENTS, request, state)
    return await answer_when_reached(
        state, query.at_least, query.timeout_ms, partial(_answer, request, query)
    )


async def _answer(request: Request, query: ReadQuery) -> Response:
    state = state_of(request)
    check_range(query.args["from"], query.args["to"])
    since = await known_position(query.args["from"] - timedelta(days=1), state)
    until = await known_position(query.args["to"], state)
    end = (await state.ledger.read(read_head)).position
    position = end if until is None else until
    wanted = await wanted_books(state.ledger, position, end if since is None else since)
    path = await state.lookback.find_or_make(wanted, query.timeout_ms)
    document = await _read(path, query)
    next_page = {"cursor": document["next_cursor"]} if document["next_cursor"] else None
    if query.csv:
        body = to_csv(columns(RESTATEMENTS.shape, RESTATEMENTS.rows), document[RESTATEMENTS.rows])
        return tagged_response(request, body, "text/csv; charset=utf-8", next_page)
    body = json.encode(document)
    meta = await read_meta(state, query.scope) | await build_meta(query.scope.today, state, position, {})
    if until is not None:
        meta["data_freshness"] = AS_KNOWN
    tag_source = without_lag(body, meta)
    return tagged_response(
        request, with_meta(body, meta), "application/json", next_page, tag_source=tag_source
    )


async def _read(path: Path, query: ReadQuery) -> dict[str, Any]:
    """The document, from the file."""
    database = SqliteDatabase(path, "NORMAL", time_limited=True)
    try:
        return await database.read(
            lambda connection: RESTATEMENTS.answer(
                View(connection=connection, books={}, scope=query.scope), query.args
            )
        )
    finally:
        await database.close()
