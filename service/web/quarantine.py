"""Quarantine as a read: what could not be recorded, and why; a body only where one is asked for."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.core.errors import ParameterError
from service.intake import quarantine
from service.reads.parameters import choice, cursor, integer, text, to_cursor
from service.web.ledger import ledger_answer, ledger_read
from service.web.reads import SCOPED

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
        Route("/api/v1/quarantine/{id}", ledger_read(_one), methods=["GET"]),
    ]


async def _list(request: Request, asked: dict[str, Any]) -> Response:
    async with request.state.daybook.ledger.reading() as reader:
        rows = await reader.quarantine_entries(
            _number("cursor", asked["cursor"] or "0"),
            asked["limit"] + 1,
            settled=asked["status"] == "all",
            processor=asked["processor"],
            reason=asked["reason"],
        )
    page = [quarantine.list_entry(row) for row in rows[: asked["limit"]]]
    following = to_cursor(str(page[-1]["id"])) if len(rows) > len(page) else None
    document = {"quarantine": page, "next_cursor": following}
    return await ledger_answer(request, asked, document, {"cursor": following} if following else None)


async def _one(request: Request, asked: dict[str, Any]) -> Response:
    number = _number("id", request.path_params["id"])
    async with request.state.daybook.ledger.reading() as reader:
        document = await quarantine.read_document(reader, number)
    return await ledger_answer(request, asked, document)


def _number(name: str, given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise ParameterError(f"{name}: a whole number as `/api/v1/quarantine` gives it")
    return int(given)
