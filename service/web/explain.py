"""Explains a figure: its rows come from the books, and their events and raw bytes from the ledger."""

from msgspec import convert, json
from msgspec.structs import replace
from starlette.routing import Route

from service.books.view import View
from service.core.errors import ParameterError
from service.intake import provenance
from service.reads.explain.catalog import EXPLAINABLE, READ_PARAMETERS
from service.reads.explain.figures import (
    EXPLAIN,
    Cause,
    ExplainedFigure,
    check_looks_back,
    explain,
)
from service.web.reads import Found, ReadQuery, read_books, read_route
from service.web.state import State


def explain_routes() -> list[Route]:
    """The one GET route."""
    return [read_route(EXPLAIN, _find)]


async def _find(query: ReadQuery, state: State) -> Found:
    args = query.args
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
    check_looks_back(args["figure"], given, args)

    def find(view: View, *_: object) -> tuple[ExplainedFigure, float]:
        return explain(view, args["figure"], given, int(offset), args["limit"])

    figure, meta = await read_books(query, state, find)
    if not query.file_format:  # which shows the rows alone
        figure = replace(figure, events=await _trace(figure, state))
    return Found(document=json.encode(figure), meta=meta)


async def _trace(figure: ExplainedFigure, state: State) -> list[Cause]:
    """The events behind the rows, their signatures checked again."""
    causes = {(cause, row.account) for row in figure.rows for cause in row.causes}
    async with state.ledger.reading() as reader:
        return convert(await provenance.trace(reader, causes, state.settings), list[Cause])
