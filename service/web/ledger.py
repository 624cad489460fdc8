"""The ledger's own reads: its head, its events, and the events that caused a row."""

import base64
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from msgspec import Raw, json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.core.errors import Integrity, NotFound, ParameterError
from service.core.events import SUPERSEDED_SUFFIX
from service.core.moments import from_us, rfc3339
from service.ledger.store import LedgerReader
from service.reads.parameters import Parameter, integer
from service.reads.schemas import columns
from service.web.reads import (
    FORMAT,
    SCOPED,
    answer_when_reached,
    check_key,
    parse_parameters,
    read_meta,
    scope_of,
    tagged_response,
    to_csv,
    today_in,
    wants_csv,
    with_meta,
)
from service.web.state import state_of

PAGE = (
    integer("after", lambda _: 0, 0, 2**62, "events after this position"),
    integer("limit", lambda _: 100, 1, 1000, "events a page"),
)
_Handler = Callable[[Request, dict[str, Any]], Coroutine[Any, Any, Response]]
LIST_PARAMETERS = (*PAGE, *SCOPED, FORMAT)


def ledger_routes() -> list[Route]:
    """GET routes under /api/v1/ledger."""
    return [
        Route("/api/v1/ledger/head", ledger_read(_head), methods=["GET"]),
        Route("/api/v1/ledger/events", ledger_read(_events, LIST_PARAMETERS), methods=["GET"]),
        Route("/api/v1/ledger/events/{position}", ledger_read(_event), methods=["GET"]),
        Route("/api/v1/ledger/causes/{cause:path}", ledger_read(_cause), methods=["GET"]),
    ]


def ledger_read(
    handler: _Handler, parameters: tuple[Parameter, ...] = SCOPED
) -> Callable[[Request], Awaitable[Response]]:
    """A route's function: checks the key, parses the parameters and waits for `at_least` before `handler`."""

    async def respond(request: Request) -> Response:
        check_key(request)
        state = state_of(request)
        args = parse_parameters(parameters, (), request, today_in(state))
        answer = partial(handler, request, args)
        return await answer_when_reached(state, args["at_least"], args["timeout_ms"], answer)

    return respond


async def ledger_answer(
    request: Request,
    args: dict[str, Any],
    document: dict[str, Any],
    next_page: dict[str, Any] | None = None,
) -> Response:
    """A document with its `meta`; `next_page` holds the parameters of the next page, if there is one."""
    state = state_of(request)
    body = with_meta(json.encode(document), await read_meta(state, scope_of(args, state)))
    return tagged_response(request, body, "application/json", next_page)


async def _head(request: Request, args: dict[str, Any]) -> Response:
    state = state_of(request)
    async with state.ledger.reading() as reader:
        head = await reader.head()
    return await ledger_answer(request, args, {"position": head.position, "digest": head.digest.hex()})


async def _events(request: Request, args: dict[str, Any]) -> Response:
    state = state_of(request)
    async with state.ledger.reading() as reader:
        rows = await reader.rows(args["after"], args["limit"] + 1, args["account"])
        head = (await reader.head()).position
    events = [_event_document(row) for row in rows[: args["limit"]]]
    last = events[-1]["position"] if len(rows) > len(events) else None
    next_page = {"after": last} if last else None
    if wants_csv(args["format"], request):
        csv_rows = [
            {**event, **{name: _json_text(event[name]) for name in ("data", "before")}} for event in events
        ]
        body = to_csv(columns("LedgerEvents", "events"), csv_rows)
        return tagged_response(request, body, "text/csv; charset=utf-8", next_page)
    document = {"events": events, "next_after": last, "head": head}
    return await ledger_answer(request, args, document, next_page)


async def _event(request: Request, args: dict[str, Any]) -> Response:
    text = request.path_params["position"]
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ParameterError("position: a whole number from 1")
    async with state_of(request).ledger.reading() as reader:
        document = await _event_with_delivery(reader, int(text), args["account"])
    return await ledger_answer(request, args, document)


async def _cause(request: Request, args: dict[str, Any]) -> Response:
    cause = request.path_params["cause"]
    processor, _, event_id = cause.partition(":")
    if not cause.isprintable():  # every id is printable, and PostgreSQL takes no NUL
        raise NotFound("the ledger holds no such event")
    async with state_of(request).ledger.reading() as reader:
        position = await reader.find_effective(processor, event_id, args["account"])
        if position is None:
            raise NotFound("the ledger holds no such event")
        document = await _event_with_delivery(reader, position)
    return await ledger_answer(request, args, document)


async def _event_with_delivery(
    reader: LedgerReader, position: int, account: str | None = None
) -> dict[str, Any]:
    """One event with the raw bytes of its delivery, their headers and the proof."""
    rows = await reader.rows(position - 1, 1, account) if 0 < position < 2**62 else []
    if not rows or rows[0]["position"] != position:
        raise NotFound(f"the ledger holds no position {position}")
    try:
        delivery = await reader.delivery(rows[0]["delivery"])
    except Integrity as error:  # an operator may have moved old ones away
        raise NotFound(str(error)) from None
    return {
        **_event_document(rows[0]),
        "superseded_by": await _superseded_by(reader, rows[0]),
        "raw_body": delivery["body"].decode("utf-8", "replace"),
        "raw_body_base64": base64.b64encode(delivery["body"]).decode(),
        "headers": Raw(delivery["headers"]),
        "verification": Raw(delivery["proof"]),
    }


async def _superseded_by(reader: LedgerReader, row: dict[str, Any]) -> str | None:
    """The cause of the event that supersedes this one, if there is one."""
    event_id = row["event_id"] + SUPERSEDED_SUFFIX
    position = await reader.find_position(row["processor"], event_id, row["account"])
    return f"{row['processor']}:{event_id}" if position else None


def _json_text(value: Raw | None) -> str | None:
    return None if value is None else bytes(value).decode()


def _event_document(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "position": row["position"],
        "cause": f"{row['processor']}:{row['event_id']}",
        "processor": row["processor"],
        "account": row["account"],
        "event_id": row["event_id"],
        "type": row["type"],
        "occurred_at": rfc3339(from_us(row["occurred_at_us"])),
        "recorded_at": rfc3339(from_us(row["recorded_at_us"])),
        "rank": row["rank"],
        "trust": row["trust"],
        "data": Raw(row["data"]),
        "before": Raw(row["before"]) if row["before"] else None,
        "content_digest": row["content_digest"].hex(),
        "delivery": row["delivery"],
        "digest": row["digest"].hex(),
    }
