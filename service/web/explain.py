"""A figure taken apart: its rows from the books, and their events, down to the bytes, from the ledger."""

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
from service.reads.explain.figures import PASSED, TOLD, explain
from service.reads.parameters import cursor, integer, text, to_cursor
from service.reads.read import Read
from service.reads.schemas import columns
from service.web.reads import (
    Asked,
    check_key,
    meta_of,
    parse,
    tagged,
    to_csv,
    view_of,
    when_reached,
    with_meta,
)
from service.web.state import State


def _taken_apart(view: View, args: dict[str, Any]) -> dict[str, Any]:
    if args["figure"] is None:
        raise ParameterError(f"figure: one of {', '.join(TOLD)}, and a JSON pointer into its answer")
    given = {each.name: args[each.name] for each in PASSED if args[each.name] is not None}
    offset = args["cursor"] or "0"
    if not (offset.isascii() and offset.isdigit() and len(offset) < 10):
        raise ParameterError("cursor: the `next_cursor` of the page before")
    document = explain(view, args["figure"], given, int(offset), args["limit"])
    return {**document, "next_cursor": to_cursor(document["next_cursor"])}


EXPLAIN = Read(
    path="/api/v1/explain",
    summary="What a figure is made of: rows of the books, their events, and signatures checked again",
    answer=_taken_apart,
    shape="Explanation",
    rows="rows",
    parameters=(
        text("figure", "a read and a JSON pointer into its answer, such as month-detail/summary/total_cents"),
        *PASSED,
        integer("limit", lambda _: 100, 1, 500, "rows a page"),
        cursor(),
    ),
)


def explain_routes() -> list[Route]:
    """The one GET route."""
    return [Route(EXPLAIN.path, _respond, methods=["GET"])]


async def _respond(request: Request) -> Response:
    check_key(request)
    state: State = request.state.daybook
    asked = parse(EXPLAIN, request, state)
    return await when_reached(state, asked.at_least, asked.timeout_ms, partial(_answer, request, asked))


async def _answer(request: Request, asked: Asked) -> Response:
    state: State = request.state.daybook

    def find(connection: Connection) -> tuple[dict[str, Any], int, int]:
        positions, view = view_of(connection, asked.scope, state)
        reached = positions.position_under(asked.args["policy"] or "")
        return EXPLAIN.answer(view, asked.args), reached, view.unpriced_contracts()

    document, position, unpriced = await state.store.read(find)
    following = {"cursor": document["next_cursor"]} if document["next_cursor"] else None
    rows = document["rows"]
    if asked.csv:
        listed = to_csv(columns(EXPLAIN.shape, EXPLAIN.rows), rows)
        return tagged(request, listed, "text/csv; charset=utf-8", following)
    async with state.ledger.reading() as reader:
        causes = {(cause, row["account"]) for row in rows for cause in row["causes"]}
        document["events"] = await provenance.trace(reader, causes, state.settings)
    body = with_meta(json.encode(document), await meta_of(asked.scope.today, state, position, unpriced))
    return tagged(request, body, "application/json", following)
