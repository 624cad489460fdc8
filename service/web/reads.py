"""Serves the reads: finds or makes the document, adds `meta` with position and lag, answers."""

import csv
import io
from collections.abc import Callable, Coroutine
from datetime import date, datetime, time
from functools import partial
from hashlib import sha256
from secrets import compare_digest
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from msgspec import Struct, json
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.books.store import BookPositions
from service.books.view import Scope, View, format_fraction
from service.core.errors import ParameterError, Unauthorized, Unavailable
from service.core.moments import from_us, rfc3339
from service.ledger.append import read_head
from service.ledger.history import read_recorded_at
from service.reads import snapshots, stored_models
from service.reads.catalog import READS
from service.reads.csv_cells import cell
from service.reads.parameters import LOOK_BACK, SCOPE, Parameter, choice, integer, parse_all
from service.reads.read import Read
from service.reads.schemas import columns
from service.web.bounds import with_timeout
from service.web.lookback import default_today, is_at_position, requested_position, state_as_known
from service.web.state import State, state_of

AS_KNOWN = "as_known"  # the freshness of an answer that can't change any more
_READ_SECONDS = 10.0  # for the stores, besides the wait until the books hold `at_least`


WAIT = (
    integer("at_least", lambda _: 0, 0, 2**62, "wait until the books hold this ledger position"),
    integer("timeout_ms", lambda _: 2_000, 0, 30_000, "how long to wait for it"),
)
FORMAT = choice("format", None, ("json", "csv"), "csv for the list alone as CSV, as Accept: text/csv does")
SCOPED = (*SCOPE, *WAIT)
COMMON = (*SCOPED, FORMAT)


class ReadQuery(Struct, frozen=True, kw_only=True):
    """The parsed parameters of a request for a read."""

    scope: Scope
    args: dict[str, Any]
    at_least: int
    timeout_ms: int
    csv: bool


class _Page(Struct):
    """The field of a paged document that leads to the next page."""

    next_cursor: str | None = None


def read_routes() -> list[Route]:
    """One GET route for each read in the catalog."""
    return [Route(_allow_slashes(read.path), _reader(read), methods=["GET"]) for read in READS]


def _allow_slashes(path: str) -> str:
    """The path with variables that may contain slashes, as ids may."""
    return path.replace("}", ":path}")


def check_key(request: Request) -> None:
    """Raise Unauthorized unless no key is set, or the request carries one that is.

    Every key is compared, each in constant time, so that the time taken reveals nothing about the keys.
    """
    keys = state_of(request).settings.api_keys
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    matches = [compare_digest(given.encode(), key.encode()) for key in keys]
    if keys and not any(matches):
        raise Unauthorized("a read key is needed: Authorization: Bearer …, or X-API-Key: …")


def _reader(read: Read) -> Any:
    async def respond(request: Request) -> Response:
        check_key(request)
        state = state_of(request)
        query = parse_query(read, request, state)
        answer = partial(_answer, read, request, query)
        return await answer_when_reached(state, query.at_least, query.timeout_ms, answer)

    return respond


async def _answer(read: Read, request: Request, query: ReadQuery) -> Response:
    state = state_of(request)
    document, meta = await _document(read, query, state)
    body = with_meta(document, meta)
    cursor = json.decode(body, type=_Page).next_cursor if read.paged else None
    next_page = {"cursor": cursor} if cursor else None
    if query.csv:
        names = columns(read.shape, read.rows)
        body = to_csv(names, json.decode(body)[read.rows])
        return tagged_response(request, body, "text/csv; charset=utf-8", next_page)
    if read.dated:
        return tagged_response(
            request, body, "application/json", next_page, tag_source=without_lag(document, meta)
        )
    timed_meta = meta | {"calculation_date": _moment(query.scope.today, state)}
    return tagged_response(
        request, with_meta(document, timed_meta), "application/json", next_page, tag_source=body
    )


def _moment(today: date, state: State) -> str:
    """When an answer is computed, if that is on `today`; else the beginning of that day, in RFC 3339."""
    now = state.clock().replace(microsecond=0)
    if today == today_in(state):
        return rfc3339(now)
    return rfc3339(datetime.combine(today, time(), ZoneInfo(state.settings.reporting_tz)))


def parse_query(read: Read, request: Request, state: State) -> ReadQuery:
    """The query of a request for a read. Raises ParameterError."""
    common = parse_parameters(COMMON, read.parameters, request, _today(read, request, state))
    args = parse_all(read.parameters, dict(request.query_params), common["today"]) | request.path_params
    if common["format"] == "csv" and not read.rows:
        raise ParameterError("format: json; this read has no list")
    csv = bool(read.rows) and wants_csv(common["format"], request)
    if csv and read.paged and "limit" not in request.query_params:
        args["limit"] = None  # a CSV file could not show that it is only a page
    return ReadQuery(
        scope=scope_of(common, state),
        args=args,
        at_least=common["at_least"],
        timeout_ms=common["timeout_ms"],
        csv=csv,
    )


def _today(read: Read, request: Request, state: State) -> date:
    """The default of `today`: the day of `known_at`, if the request has one."""
    today = today_in(state)
    if not read.looks_back:
        return today
    known_at = parse_all(LOOK_BACK, dict(request.query_params), today)["known_at"]
    return default_today(known_at, today, ZoneInfo(state.settings.reporting_tz))


def scope_of(common: dict[str, Any], state: State) -> Scope:
    """The scope that the common parameters name."""
    currency = common["currency"] or state.settings.reporting_currency
    return Scope(currency=currency, account=common["account"], today=common["today"])


def parse_parameters(
    parameters: tuple[Parameter, ...], others_allowed: tuple[Parameter, ...], request: Request, today: date
) -> dict[str, Any]:
    """The values of `parameters`, with every default filled in; `others_allowed` may be given, too.

    Raises ParameterError for an unknown parameter or an unusable value.
    """
    given = dict(request.query_params)
    known = {parameter.name for parameter in (*parameters, *others_allowed)}
    if unknown := set(given) - known:
        raise ParameterError(f"{min(unknown)}: no such parameter here; there are {', '.join(sorted(known))}")
    return parse_all(parameters, given, today)


def wants_csv(format_: str | None, request: Request) -> bool:
    """Whether the answer is CSV: `format` says so, else the Accept header."""
    return format_ == "csv" or (format_ is None and "text/csv" in request.headers.get("accept", ""))


async def answer_when_reached(
    state: State, at_least: int, timeout_ms: int, answer: Callable[[], Coroutine[Any, Any, Response]]
) -> Response:
    """The answer once the books hold `at_least`, with a limit on time and on concurrent reads.

    Raises Busy, Behind, or TimeoutError.
    """

    async def respond() -> Response:
        with state.reads.slot():  # held until the work ends, even if the caller has left
            await state.progress.reach(at_least, timeout_ms)
            return await answer()

    return await with_timeout(_READ_SECONDS + timeout_ms / 1000, respond())


async def _document(read: Read, query: ReadQuery, state: State) -> tuple[bytes, dict[str, Any]]:
    """The document and its `meta`, from the books at an earlier position if the query asks for one."""
    position = await requested_position(query.args, state)
    result = await _find_document(read, query, state, position)
    if result is None and position is not None:
        async with state_as_known(state, position, query.timeout_ms) as known_state:
            result = await _find_document(read, query, known_state, position)
    if result is None:
        raise Unavailable("the books as known then can't be read now")
    return result


async def _find_document(
    read: Read, query: ReadQuery, state: State, position: int | None
) -> tuple[bytes, dict[str, Any]] | None:
    """The snapshot, or else a document made now, with `meta`; None if the books are not at `position`."""

    def find(connection: Connection) -> tuple[bytes, int, dict[str, int]] | None:
        positions, view = open_view(connection, query.scope, state)
        if position is not None and not is_at_position(connection, positions.books, state, position):
            return None
        name = snapshots.snapshot_name(state.store, read, query.scope, query.args, state.options)
        body = snapshots.find(connection, name, positions.version) or json.encode(
            read.answer(view, query.args)
        )
        return body, positions.position_under(query.args.get("policy", "")), view.counts()

    result = await state.store.read(find)
    if result is None:
        return None
    meta = await build_meta(query.scope.today, state, *result[1:])
    return result[0], meta if position is None else meta | {"data_freshness": AS_KNOWN}


async def read_meta(state: State, scope: Scope) -> dict[str, Any]:
    """The `meta` of an answer that is read from the ledger."""

    def find(connection: Connection) -> tuple[int, dict[str, int]]:
        positions, view = open_view(connection, scope, state)
        return positions.position, view.counts()

    return await build_meta(scope.today, state, *await state.store.read(find))


def with_meta(body: bytes, meta: dict[str, Any]) -> bytes:
    """A JSON object's bytes with `meta` as its last field."""
    return body[:-1] + b',"meta":' + json.encode(meta) + b"}"


def without_lag(document: bytes, meta: dict[str, Any]) -> bytes | None:
    """An answer without its lag, if nothing else of it can change any more; else None."""
    if meta["data_freshness"] != AS_KNOWN:
        return None
    return with_meta(document, {name: value for name, value in meta.items() if name != "lag_events"})


def open_view(connection: Connection, scope: Scope, state: State) -> tuple[BookPositions, View]:
    """The books' positions, and a view of the books. Raises Unavailable before they are laid out."""
    store, positions = state.store, state.store.positions(connection)
    if len(positions.books) < len(store.books):
        raise Unavailable("the books are not laid out yet")

    def find_model(kind: str) -> bytes | None:
        return stored_models.find(connection, store, kind, scope.currency)

    return positions, View(
        connection=connection,
        books=positions.books,
        scope=scope,
        options=state.options,
        stored_model=find_model,
    )


async def build_meta(today: date, state: State, position: int, counts: dict[str, int]) -> dict[str, Any]:
    """The `meta` of an answer that was made from the books at this position; `counts` are the view's."""
    head, recorded_at_us = await state.ledger.read(
        lambda connection: (read_head(connection).position, read_recorded_at(connection, position))
    )
    return {
        "position": position,
        "recorded_at": rfc3339(from_us(recorded_at_us)) if recorded_at_us is not None else None,
        "lag_events": head - position,
        "calculation_date": today.isoformat(),
        "data_freshness": "real_time" if head == position else "catching_up",
        "weeks_per_month": format_fraction(state.settings.weeks_per_month),
        **counts,
    }


def today_in(state: State) -> date:
    """Today in the reporting zone."""
    return state.clock().astimezone(ZoneInfo(state.settings.reporting_tz)).date()


def tagged_response(
    request: Request,
    body: bytes,
    media_type: str,
    next_page: dict[str, Any] | None = None,
    tag_source: bytes | None = None,
) -> Response:
    """`body` with its ETag, or 304 if the caller has it already.

    `next_page` holds the parameters that ask for the next page, if there is one. `tag_source` is the body
    without the parts that change even when the content does not; the tag is a weak one then.
    """
    etag = f'"{sha256(tag_source or body).hexdigest()[:32]}"'
    headers = {
        "ETag": f"W/{etag}" if tag_source else etag,
        "Cache-Control": "private, no-cache",
        "Vary": "Accept",
    }
    if next_page:
        parameters_of_page = urlencode(dict(request.query_params) | next_page)
        headers["Link"] = f'<{request.url.path}?{parameters_of_page}>; rel="next"'
    known_tags = [
        tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
    ]
    if etag in known_tags or "*" in known_tags:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def to_csv(names: list[str], rows: list[dict[str, Any]]) -> bytes:
    """Rows as CSV (RFC 4180). Text that a spreadsheet would run as a formula gets a quote before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows([cell(row[name]) for name in names] for row in rows)
    return out.getvalue().encode()
