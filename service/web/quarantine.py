"""Quarantine as a read: deliveries that could not be recorded, and why; bodies only in the detail."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.core.errors import ParameterError
from service.intake import quarantine
from service.reads.parameters import choice, cursor, integer, text, to_cursor
from service.web.ledger import ledger_answer, ledger_read
from service.web.reads import SCOPED
from service.web.state import state_of

QUARANTINE = (
    choice("status", "open", ("open", "all"), "those that wait, or those that were settled, too"),
    text("processor", "only of this processor"),
    text("reason", "only for this reason"),
    integer("limit", lambda _: 100, 1, 1000, "deliveries a page"),
    cursor(),
    *SCOPED,
)


def quarantine_routes() -> list[Route]:
    """GET routes under /api/v1/quarantine."""
    return [
        Route("/api/v1/quarantine", ledger_read(_list, QUARANTINE), methods=["GET"]),
        Route("/api/v1/quarantine/{id}", ledger_read(_detail), methods=["GET"]),
    ]


async def _list(request: Request, args: dict[str, Any]) -> Response:
    async with state_of(request).ledger.reading() as reader:
        rows = await reader.quarantine_entries(
            _parse_number("cursor", args["cursor"] or "0"),
            args["limit"] + 1,
            settled=args["status"] == "all",
            processor=args["processor"],
            reason=args["reason"],
        )
    page = [quarantine.list_entry(row) for row in rows[: args["limit"]]]
    next_page = to_cursor(str(page[-1]["id"])) if len(rows) > len(page) else None
    document = {"quarantine": page, "next_cursor": next_page}
    return await ledger_answer(request, args, document, {"cursor": next_page} if next_page else None)


async def _detail(request: Request, args: dict[str, Any]) -> Response:
    number = _parse_number("id", request.path_params["id"])
    async with state_of(request).ledger.reading() as reader:
        document = await quarantine.read_document(reader, number)
    return await ledger_answer(request, args, document)


def _parse_number(name: str, text_: str) -> int:
    if not (text_.isascii() and text_.isdigit() and len(text_) < 19):
        raise ParameterError(f"{name}: a whole number as `/api/v1/quarantine` gives it")
    return int(text_)
