"""The ledger's own reads: its head, its events, and what caused a row."""

import base64
from typing import Any

from msgspec import Raw, json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.core.errors import NotFound, ParameterError
from service.core.moments import from_us, rfc3339
from service.ledger.store import LedgerReader
from service.reads.parameters import integer
from service.reads.schemas import columns
from service.web.reads import (
    COMMON,
    FORMAT,
    check_key,
    meta,
    query,
    tagged,
    to_csv,
    wants_csv,
    with_meta,
)
from service.web.state import State

PAGE = (
    integer("after", lambda _: 0, 0, 2**62, "events after this position"),
    integer("limit", lambda _: 100, 1, 1000, "events a page"),
    FORMAT,
)


def ledger_routes() -> list[Route]:
    """GET routes under /api/v1/ledger."""
    return [
        Route("/api/v1/ledger/head", _head, methods=["GET"]),
        Route("/api/v1/ledger/events", _events, methods=["GET"]),
        Route("/api/v1/ledger/events/{position}", _event, methods=["GET"]),
        Route("/api/v1/ledger/causes/{cause:path}", _cause, methods=["GET"]),
    ]


async def _answer(request: Request, document: dict[str, Any]) -> Response:
    marked = await meta(request.state.daybook)
    return tagged(request, with_meta(json.encode(document), marked), "application/json")


async def _head(request: Request) -> Response:
    check_key(request)
    state: State = request.state.daybook
    async with state.ledger.reading() as reader:
        head = await reader.head()
    return await _answer(request, {"position": head.position, "digest": head.digest.hex()})


async def _events(request: Request) -> Response:
    check_key(request)
    state: State = request.state.daybook
    page = query(PAGE, COMMON, request, state.clock().date())
    async with state.ledger.reading() as reader:
        rows = await reader.rows(page["after"], page["limit"])
        head = (await reader.head()).position
    events = [_shown(row) for row in rows]
    if wants_csv(page["format"], request):
        listed = [
            {**event, **{name: _json_text(event[name]) for name in ("data", "before")}} for event in events
        ]
        return tagged(request, to_csv(columns("LedgerEvents", "events"), listed), "text/csv; charset=utf-8")
    last = events[-1]["position"] if events else page["after"]
    document = {"events": events, "next_after": last if last < head else None, "head": head}
    return await _answer(request, document)


async def _event(request: Request) -> Response:
    check_key(request)
    text = request.path_params["position"]
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ParameterError("position: a whole number from 1")
    async with request.state.daybook.ledger.reading() as reader:
        document = await _with_delivery(reader, int(text))
    return await _answer(request, document)


async def _cause(request: Request) -> Response:
    check_key(request)
    processor, _, event_id = request.path_params["cause"].partition(":")
    async with request.state.daybook.ledger.reading() as reader:
        position = await reader.find(processor, event_id)
        if position is None:
            raise NotFound("the ledger holds no such event")
        document = await _with_delivery(reader, position)
    return await _answer(request, document)


async def _with_delivery(reader: LedgerReader, position: int) -> dict[str, Any]:
    """One event with the bytes that it came in and what they were verified by."""
    rows = await reader.rows(position - 1, 1) if 0 < position < 2**62 else []
    if not rows or rows[0]["position"] != position:
        raise NotFound(f"the ledger holds no position {position}")
    raw = await reader.delivery(rows[0]["delivery"])
    return {
        **_shown(rows[0]),
        "raw_body": raw["body"].decode("utf-8", "replace"),
        "raw_body_base64": base64.b64encode(raw["body"]).decode(),
        "headers": Raw(raw["headers"]),
        "verification": Raw(raw["proof"]),
    }


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
