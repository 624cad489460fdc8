"""Reads out: find the document, mark it with position and lag, send bytes."""

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
from service.web.lookback import as_known, position_of, stands_at, today_of
from service.web.state import State

AS_KNOWN = "as_known"  # the freshness of an answer that nothing will change
_READ_SECONDS = 10.0  # for the stores, besides what the books may take to get there


WAIT = (
    integer("at_least", lambda _: 0, 0, 2**62, "wait until the books hold this ledger position"),
    integer("timeout_ms", lambda _: 2_000, 0, 30_000, "how long to wait for it"),
)
FORMAT = choice("format", None, ("json", "csv"), "csv for the list alone as CSV, as Accept: text/csv does")
SCOPED = (*SCOPE, *WAIT)
COMMON = (*SCOPED, FORMAT)


class Asked(Struct, frozen=True, kw_only=True):
    """A request for a read, parsed."""

    scope: Scope
    args: dict[str, Any]
    at_least: int
    timeout_ms: int
    csv: bool


class _Page(Struct):
    """What of a document says that there is more of its list."""

    next_cursor: str | None = None


def read_routes() -> list[Route]:
    """One GET route for each read in the catalog."""
    return [Route(_any_text(read.path), _reader(read), methods=["GET"]) for read in READS]


def _any_text(path: str) -> str:
    """A route's path whose parts may hold slashes, as ids may."""
    return path.replace("}", ":path}")


def check_key(request: Request) -> None:
    """Raise Unauthorized unless no key is set, or the request carries one that is.

    Every key is compared, each in constant time, so that time tells nothing of them.
    """
    keys = request.state.daybook.settings.api_keys
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    matches = [compare_digest(given.encode(), key.encode()) for key in keys]
    if keys and not any(matches):
        raise Unauthorized("a read key is needed: Authorization: Bearer …, or X-API-Key: …")


def _reader(read: Read) -> Any:
    async def respond(request: Request) -> Response:
        check_key(request)
        state: State = request.state.daybook
        asked = parse(read, request, state)
        answer = partial(_answer, read, request, asked)
        return await when_reached(state, asked.at_least, asked.timeout_ms, answer)

    return respond


async def _answer(read: Read, request: Request, asked: Asked) -> Response:
    state: State = request.state.daybook
    document, marked = await _document(read, asked, state)
    body = with_meta(document, marked)
    cursor = json.decode(body, type=_Page).next_cursor if read.paged else None
    following = {"cursor": cursor} if cursor else None
    if asked.csv:
        names = columns(read.shape, read.rows)
        listed = to_csv(names, json.decode(body)[read.rows])
        return tagged(request, listed, "text/csv; charset=utf-8", following)
    if read.dated:
        return tagged(request, body, "application/json", following, same_as=lasting(document, marked))
    at_a_moment = marked | {"calculation_date": _moment(asked.scope.today, state)}
    return tagged(request, with_meta(document, at_a_moment), "application/json", following, same_as=body)


def _moment(today: date, state: State) -> str:
    """When an answer is computed, if that is on `today`; else the beginning of that day, in RFC 3339."""
    now = state.clock().replace(microsecond=0)
    if today == today_in(state):
        return rfc3339(now)
    return rfc3339(datetime.combine(today, time(), ZoneInfo(state.settings.reporting_tz)))


def parse(read: Read, request: Request, state: State) -> Asked:
    """What a request asks of a read."""
    common = query(COMMON, read.parameters, request, _today(read, request, state))
    args = parse_all(read.parameters, dict(request.query_params), common["today"]) | request.path_params
    if common["format"] == "csv" and not read.rows:
        raise ParameterError("format: json; this read has no list")
    csv = bool(read.rows) and wants_csv(common["format"], request)
    if csv and read.paged and "limit" not in request.query_params:
        args["limit"] = None  # a file says nowhere that it is cut
    return Asked(
        scope=scope_of(common, state),
        args=args,
        at_least=common["at_least"],
        timeout_ms=common["timeout_ms"],
        csv=csv,
    )


def _today(read: Read, request: Request, state: State) -> date:
    """`today` where a request names none."""
    today = today_in(state)
    if not read.looks_back:
        return today
    known_at = parse_all(LOOK_BACK, dict(request.query_params), today)["known_at"]
    return today_of(known_at, today, ZoneInfo(state.settings.reporting_tz))


def scope_of(common: dict[str, Any], state: State) -> Scope:
    """The scope that the common parameters name."""
    currency = common["currency"] or state.settings.reporting_currency
    return Scope(currency=currency, account=common["account"], today=common["today"])


def query(
    parameters: tuple[Parameter, ...], others: tuple[Parameter, ...], request: Request, today: date
) -> dict[str, Any]:
    """The values of `parameters`, with every default filled in; `others` may be there too.

    Raises ParameterError for what is not known or can't be used.
    """
    given = dict(request.query_params)
    known = {parameter.name for parameter in (*parameters, *others)}
    if unknown := set(given) - known:
        raise ParameterError(f"{min(unknown)}: no such parameter here; there are {', '.join(sorted(known))}")
    return parse_all(parameters, given, today)


def wants_csv(stated: str | None, request: Request) -> bool:
    """Whether the answer is CSV: `format` says so, else the Accept header."""
    return stated == "csv" or (stated is None and "text/csv" in request.headers.get("accept", ""))


async def when_reached(
    state: State, at_least: int, timeout_ms: int, answer: Callable[[], Coroutine[Any, Any, Response]]
) -> Response:
    """The answer once the books hold `at_least`, as one of so many reads, whatever the stores do.

    Raises Busy, Behind, or TimeoutError.
    """

    async def respond() -> Response:
        with state.reads.slot():  # until it has ended, even if nobody waits for it any more
            await state.progress.reach(at_least, timeout_ms)
            return await answer()

    return await with_timeout(_READ_SECONDS + timeout_ms / 1000, respond())


async def _document(read: Read, asked: Asked, state: State) -> tuple[bytes, dict[str, Any]]:
    """The document and its `meta`; from books of the first so many events where that is asked."""
    position = await position_of(asked.args, state)
    found = await _found(read, asked, state, position)
    if found is None and position is not None:
        async with as_known(state, position, asked.timeout_ms) as then:
            found = await _found(read, asked, then, position)
    if found is None:
        raise Unavailable("the books as known then can't be read now")
    return found


async def _found(
    read: Read, asked: Asked, state: State, position: int | None
) -> tuple[bytes, dict[str, Any]] | None:
    """A snapshot where one stands, else made now; None if the books do not stand at `position`."""

    def find(connection: Connection) -> tuple[bytes, int, int] | None:
        positions, view = view_of(connection, asked.scope, state)
        if position is not None and not stands_at(connection, positions.books, state, position):
            return None
        name = snapshots.snapshot_name(state.store, read, asked.scope, asked.args, state.options)
        body = snapshots.find(connection, name, positions.version) or json.encode(
            read.answer(view, asked.args)
        )
        return body, positions.position_under(asked.args.get("policy", "")), view.unpriced_contracts()

    found = await state.store.read(find)
    if found is None:
        return None
    marked = await meta_of(asked.scope.today, state, *found[1:])
    return found[0], marked if position is None else marked | {"data_freshness": AS_KNOWN}


async def meta(state: State, scope: Scope) -> dict[str, Any]:
    """What every answer is marked with, for reads of the ledger."""

    def find(connection: Connection) -> tuple[int, int]:
        positions, view = view_of(connection, scope, state)
        return positions.position, view.unpriced_contracts()

    return await meta_of(scope.today, state, *await state.store.read(find))


def with_meta(body: bytes, marked: dict[str, Any]) -> bytes:
    """A JSON object's bytes with `meta` as its last field."""
    return body[:-1] + b',"meta":' + json.encode(marked) + b"}"


def lasting(document: bytes, marked: dict[str, Any]) -> bytes | None:
    """What of an answer stays, where that is all but how far behind the ledger it is; else None."""
    if marked["data_freshness"] != AS_KNOWN:
        return None
    return with_meta(document, {name: value for name, value in marked.items() if name != "lag_events"})


def view_of(connection: Connection, scope: Scope, state: State) -> tuple[BookPositions, View]:
    """Where the books are, and the view of them. Raises Unavailable before they are laid out."""
    store, positions = state.store, state.store.positions(connection)
    if len(positions.books) < len(store.books):
        raise Unavailable("the books are not laid out yet")

    def found(what: str) -> bytes | None:
        return stored_models.find(connection, store, what, scope.currency)

    return positions, View(
        connection=connection, books=positions.books, scope=scope, options=state.options, stored_model=found
    )


async def meta_of(today: date, state: State, position: int, unpriced: int) -> dict[str, Any]:
    """What an answer made at this position of the books is marked with."""
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
        "unpriced_contracts": unpriced,
    }


def today_in(state: State) -> date:
    """Today in the reporting zone."""
    return state.clock().astimezone(ZoneInfo(state.settings.reporting_tz)).date()


def tagged(
    request: Request,
    body: bytes,
    media_type: str,
    following: dict[str, Any] | None = None,
    same_as: bytes | None = None,
) -> Response:
    """`body` with its ETag, or 304 if the caller has it already.

    `following`: the parameters that ask for the next page, where there is one. `same_as`: the body without
    what says nothing new, which makes the tag a weak one.
    """
    etag = f'"{sha256(same_as or body).hexdigest()[:32]}"'
    headers = {
        "ETag": f"W/{etag}" if same_as else etag,
        "Cache-Control": "private, no-cache",
        "Vary": "Accept",
    }
    if following:
        asked = urlencode(dict(request.query_params) | following)
        headers["Link"] = f'<{request.url.path}?{asked}>; rel="next"'
    held = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in held or "*" in held:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def to_csv(names: list[str], rows: list[dict[str, Any]]) -> bytes:
    """Rows as CSV (RFC 4180). Text that a spreadsheet would run as a formula gets a quote before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows([cell(row[name]) for name in names] for row in rows)
    return out.getvalue().encode()
