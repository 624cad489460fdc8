"""Explains a figure: its rows come from the books, and their events and raw bytes from the ledger."""

from functools import partial
from typing import Any

from msgspec import json
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.books.view import View
from service.core.errors import ParameterError
from service.intake import provenance
from service.reads.explain.figures import EXPLAINABLE, READ_PARAMETERS, explain
from service.reads.parameters import cursor, integer, text, to_cursor
from service.reads.read import Read
from service.reads.schemas import columns
from service.web.reads import (
    ReadQuery,
    answer_when_reached,
    build_meta,
    check_key,
    open_view,
    parse_query,
    tagged_response,
    to_csv,
    with_meta,
)
from service.web.state import state_of


def _explain_figure(view: View, args: dict[str, Any]) -> dict[str, Any]:
    if args["figure"] is None:
        raise ParameterError(f"figure: one of {', '.join(EXPLAINABLE)}, and a JSON pointer into its answer")
    given = {
        parameter.name: args[parameter.name]
        for parameter in READ_PARAMETERS
        if args[parameter.name] is not None
    }
    offset = args["cursor"] or "0"
    if not (offset.isascii() and offset.isdigit() and len(offset) < 10):
        raise ParameterError("cursor: the `next_cursor` of the page before")
    document = explain(view, args["figure"], given, int(offset), args["limit"])
    return {**document, "next_cursor": to_cursor(document["next_cursor"])}


EXPLAIN = Read(
    path="/api/v1/explain",
    summary="What a figure is made of: rows of the books, their events, and signatures checked again",
    answer=_explain_figure,
    shape="Explanation",
    rows="rows",
    parameters=(
        text("figure", "a read and a JSON pointer into its answer, such as month-detail/summary/total_cents"),
        *READ_PARAMETERS,
        integer("limit", lambda _: 100, 1, 500, "rows a page"),
        cursor(),
    ),
)


def explain_routes() -> list[Route]:
    """The one GET route."""
    return [Route(EXPLAIN.path, _respond, methods=["GET"])]


async def _respond(request: Request) -> Response:
    check_key(request)
    state = state_of(request)
    query = parse_query(EXPLAIN, request, state)
    return await answer_when_reached(
        state, query.at_least, query.timeout_ms, partial(_answer, request, query)
    )


async def _answer(request: Request, query: ReadQuery) -> Response:
    state = state_of(request)

    def find(connection: Connection) -> tuple[dict[str, Any], int, dict[str, int]]:
        positions, view = open_view(connection, query.scope, state)
        reached = positions.position_under(query.args["policy"] or "")
        return EXPLAIN.answer(view, query.args), reached, view.counts()

    document, position, counts = await state.store.read(find)
    next_page = {"cursor": document["next_cursor"]} if document["next_cursor"] else None
    rows = document["rows"]
    if query.csv:
        body = to_csv(columns(EXPLAIN.shape, EXPLAIN.rows), rows)
        return tagged_response(request, body, "text/csv; charset=utf-8", next_page)
    async with state.ledger.reading() as reader:
        causes = {(cause, row["account"]) for row in rows for cause in row["causes"]}
        document["events"] = await provenance.trace(reader, causes, state.settings)
    body = with_meta(json.encode(document), await build_meta(query.scope.today, state, position, counts))
    return tagged_response(request, body, "application/json", next_page)
