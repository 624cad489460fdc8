"""The ledger's own reads: its head, its events, and what caused a row."""

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
    check_key,
    meta,
    query,
    scope_of,
    tagged,
    to_csv,
    today_in,
    wants_csv,
    when_reached,
    with_meta,
)
from service.web.state import State

PAGE = (
    integer("after", lambda _: 0, 0, 2**62, "events after this position"),
    integer("limit", lambda _: 100, 1, 1000, "events a page"),
)
_Find = Callable[[Request, dict[str, Any]], Coroutine[Any, Any, Response]]
LISTED = (*PAGE, *SCOPED, FORMAT)


def ledger_routes() -> list[Route]:
    """GET routes under /api/v1/ledger."""
    return [
        Route("/api/v1/ledger/head", ledger_read(_head), methods=["GET"]),
        Route("/api/v1/ledger/events", ledger_read(_events, LISTED), methods=["GET"]),
        Route("/api/v1/ledger/events/{position}", ledger_read(_event), methods=["GET"]),
        Route("/api/v1/ledger/causes/{cause:path}", ledger_read(_cause), methods=["GET"]),
    ]


def ledger_read(
    find: _Find, parameters: tuple[Parameter, ...] = SCOPED
) -> Callable[[Request], Awaitable[Response]]:
    """A route's function: the key, the parameters and `at_least` seen to before `find` answers."""

    async def respond(request: Request) -> Response:
        check_key(request)
        state: State = request.state.daybook
        asked = query(parameters, (), request, today_in(state))
        answer = partial(find, request, asked)
        return await when_reached(state, asked["at_least"], asked["timeout_ms"], answer)

    return respond


async def ledger_answer(
    request: Request,
    asked: dict[str, Any],
    document: dict[str, Any],
    following: dict[str, Any] | None = None,
) -> Response:
    """A document with its `meta`; `following` asks for the next page, where there is one."""
    state: State = request.state.daybook
    body = with_meta(json.encode(document), await meta(state, scope_of(asked, state)))
    return tagged(request, body, "application/json", following)


async def _head(request: Request, asked: dict[str, Any]) -> Response:
    state: State = request.state.daybook
    async with state.ledger.reading() as reader:
        head = await reader.head()
    return await ledger_answer(request, asked, {"position": head.position, "digest": head.digest.hex()})


async def _events(request: Request, asked: dict[str, Any]) -> Response:
    state: State = request.state.daybook
    async with state.ledger.reading() as reader:
        rows = await reader.rows(asked["after"], asked["limit"] + 1, asked["account"])
        head = (await reader.head()).position
    events = [_shown(row) for row in rows[: asked["limit"]]]
    last = events[-1]["position"] if len(rows) > len(events) else None
    following = {"after": last} if last else None
    if wants_csv(asked["format"], request):
        listed = [
            {**event, **{name: _json_text(event[name]) for name in ("data", "before")}} for event in events
        ]
        body = to_csv(columns("LedgerEvents", "events"), listed)
        return tagged(request, body, "text/csv; charset=utf-8", following)
    document = {"events": events, "next_after": last, "head": head}
    return await ledger_answer(request, asked, document, following)


async def _event(request: Request, asked: dict[str, Any]) -> Response:
    text = request.path_params["position"]
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ParameterError("position: a whole number from 1")
    async with request.state.daybook.ledger.reading() as reader:
        document = await _with_delivery(reader, int(text), asked["account"])
    return await ledger_answer(request, asked, document)


async def _cause(request: Request, asked: dict[str, Any]) -> Response:
    cause = request.path_params["cause"]
    processor, _, event_id = cause.partition(":")
    if not cause.isprintable():  # as every id is; PostgreSQL takes no NUL
        raise NotFound("the ledger holds no such event")
    async with request.state.daybook.ledger.reading() as reader:
        position = await reader.find_position(processor, event_id, asked["account"])
        if position is None:
            raise NotFound("the ledger holds no such event")
        document = await _with_delivery(reader, position)
    return await ledger_answer(request, asked, document)


async def _with_delivery(reader: LedgerReader, position: int, account: str | None = None) -> dict[str, Any]:
    """One event with the bytes that it came in and what they were verified by."""
    rows = await reader.rows(position - 1, 1, account) if 0 < position < 2**62 else []
    if not rows or rows[0]["position"] != position:
        raise NotFound(f"the ledger holds no position {position}")
    try:
        raw = await reader.delivery(rows[0]["delivery"])
    except Integrity as error:  # an operator may have moved old ones away
        raise NotFound(str(error)) from None
    return {
        **_shown(rows[0]),
        "superseded_by": await _superseded_by(reader, rows[0]),
        "raw_body": raw["body"].decode("utf-8", "replace"),
        "raw_body_base64": base64.b64encode(raw["body"]).decode(),
        "headers": Raw(raw["headers"]),
        "verification": Raw(raw["proof"]),
    }


async def _superseded_by(reader: LedgerReader, row: dict[str, Any]) -> str | None:
    """The name of the event that says that this one counts no more, if there is one."""
    event_id = row["event_id"] + SUPERSEDED_SUFFIX
    position = await reader.find_position(row["processor"], event_id, row["account"])
    return f"{row['processor']}:{event_id}" if position else None


def _json_text(value: Raw | None) -> str | None:
    return None if value is None else bytes(value).decode()


def _shown(row: dict[str, Any]) -> dict[str, Any]:
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
