"""One way from a request to an answer, for all reads: parse, wait, find, add `meta`, tag, answer.

Only how a read finds its document differs: in the books, here; in the ledger; or in both.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from contextlib import ExitStack, nullcontext
from datetime import date, datetime, time
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from msgspec import Struct, json
from msgspec.structs import asdict, replace
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.books.store import BookPositions, BookStore
from service.books.view import Scope, View, format_fraction
from service.core.errors import ParameterError, Unavailable
from service.core.moments import from_us, rfc3339
from service.core.scopes import PEOPLE
from service.ledger.append import read_head
from service.ledger.history import read_recorded_at
from service.lookback.positions import default_today, requested_position
from service.reads import snapshots, stored_models
from service.reads.answers import Meta
from service.reads.catalog import READS
from service.reads.files import MEDIA_TYPES, FileFormat, check_format, to_file
from service.reads.parameters import LOOK_BACK, SCOPE, Parameter, choice, integer, parse_all
from service.reads.personal import without_personal
from service.reads.read import BookRead, Read
from service.web.access import require
from service.web.bounds import while_connected, with_timeout
from service.web.clients import client_of
from service.web.comments import with_comments
from service.web.lookback import is_at_position, state_as_known
from service.web.problems import status_of
from service.web.repeats import request_key
from service.web.responses import Answer, respond
from service.web.state import State, state_of, today_in

T = TypeVar("T")

_READ_SECONDS = 10.0  # for the stores, besides the wait until the books hold `at_least`
_SMALL_BYTES = 16 << 10  # of a document that takes the event loop less time than a change of threads


WAIT = (
    integer("at_least", lambda _: 0, 0, 2**62, "wait until the books hold this ledger position"),
    integer("timeout_ms", lambda _: 2_000, 0, 30_000, "how long to wait for it"),
)
FORMAT = choice(
    "format",
    None,
    ("json", "csv", "xlsx"),
    "csv for the list alone as CSV, as Accept: text/csv does; xlsx for it as a workbook of Excel",
)
AMOUNTS = choice(
    "amounts", None, ("decimal",), "in a file, each amount as a decimal, too, beside that in minor units"
)
COMMON = (*SCOPE, *WAIT, FORMAT, AMOUNTS)
JSON = choice("format", None, ("json",), "this read has no list to show as CSV")


class ReadQuery(Struct, frozen=True, kw_only=True):
    """The parsed parameters of a request for a read; no `file_format` asks for JSON."""

    scope: Scope
    args: dict[str, Any]
    at_least: int
    timeout_ms: int
    file_format: FileFormat | None
    decimals: bool


class Found(Struct, frozen=True, kw_only=True):
    """What a read found: its answer in JSON without `meta`, and that."""

    document: bytes
    meta: Meta


class _PageOfCursor(Struct, rename={"next": "next_cursor"}):
    next: str | None


class _PageOfLog(Struct, rename={"next": "next_after"}):
    next: int | None


_PAGES: dict[str, type[_PageOfCursor | _PageOfLog]] = {"cursor": _PageOfCursor, "after": _PageOfLog}

Find = Callable[[ReadQuery, State], Awaitable[Found]]


def book_routes() -> list[Route]:
    """The reads of the catalog, which find their documents in the books."""
    return [read_route(read, partial(_find_in_books, read)) for read in READS]


def read_route(read: Read, find: Find) -> Route:
    """The GET route of a read."""

    async def endpoint(request: Request) -> Response:
        with state_of(request).metrics.timed_read(read.path, status_of) as answered:
            response = await respond_to(request)
            answered(response.status_code)
            return response

    async def respond_to(request: Request) -> Response:
        scopes, state = require(request, *read.scopes), state_of(request)
        today = today_in(state)
        key = _key(request, scopes, today)
        waits = "at_least" in request.query_params
        answer = None if waits else await state.answers.find(key)
        if answer is None:
            query = parse_query(read, request, state, today, with_people=PEOPLE in scopes)
            answer = await _make_answer(request, key, query, partial(_make, read, find, query, state))
        response = respond(request, answer)
        state.answers.remember(request_key(request.scope, today), key, answer, response)
        return response

    return Route(_allow_slashes(read.path), endpoint, methods=["GET"])


def common_parameters(read: Read) -> tuple[Parameter, ...]:
    """What a read takes beside its own parameters."""
    return COMMON if read.has_list else (*SCOPE, *WAIT, JSON)


def _allow_slashes(path: str) -> str:
    """The path with ids that may contain slashes, as those of customers and events may."""
    return re.sub("{(customer_id|cause)}", r"{\1:path}", path)


def _key(request: Request, scopes: frozenset[str], today: date) -> Hashable:
    """What an answer depends on, besides the stores and the settings."""
    given = (item for item in request.query_params.multi_items() if item[0] != "at_least")
    accepts_csv = "text/csv" in request.headers.get("accept", "")
    return request.scope["path"], tuple(sorted(given)), accepts_csv, scopes, today


async def _make(read: Read, find: Find, query: ReadQuery, state: State) -> Answer:
    """The answer, made now; what takes long does not keep the event loop."""
    found = await find(query, state)
    if query.file_format:
        async with state.maker:  # a long one takes seconds
            return await asyncio.to_thread(_file_answer, read, query, query.file_format, found)
    moment = None if read.dated else _moment(query.scope.today, state)
    answer = partial(_json_answer, read, query, found, moment)
    return answer() if len(found.document) < _SMALL_BYTES else await asyncio.to_thread(answer)


def _json_answer(read: Read, query: ReadQuery, found: Found, moment: str | None) -> Answer:
    """The answer in JSON. Its tag leaves out what changes without the rest: its `moment`, and some lags."""
    document = _document(read, query, found)
    dated = _with_meta(document, asdict(found.meta))
    body, tag_source = dated, _without_lag(document, found.meta)
    if moment:
        body, tag_source = _with_meta(document, asdict(replace(found.meta, calculation_date=moment))), dated
    etag = f"W/{_tag(tag_source)}" if tag_source else _tag(body)
    return Answer(
        path=read.path,
        body=body,
        etag=etag,
        media_type="application/json",
        next_page=_next_page(read, document),
    )


def _file_answer(read: Read, query: ReadQuery, file_format: FileFormat, found: Found) -> Answer:
    """The list of an answer as a file with a name."""
    document = _document(read, query, found)
    rows, currency = read.rows_of(query.args), query.scope.currency
    body = to_file(file_format, read.shape, rows, document, currency, decimals=query.decimals)
    return Answer(
        path=read.path,
        body=body,
        etag=_tag(body),
        media_type=MEDIA_TYPES[file_format],
        next_page=_next_page(read, document),
        file_name=f"{read.file_stem(query.args, query.scope.today)}.{file_format}",
    )


def _document(read: Read, query: ReadQuery, found: Found) -> bytes:
    """What was found, as the query's scopes show it."""
    return found.document if query.scope.people else without_personal(read.shape, found.document)


def _tag(source: bytes) -> str:
    return f'"{sha256(source).hexdigest()[:32]}"'


def _next_page(read: Read, document: bytes) -> dict[str, Any] | None:
    """The parameters of the next page, if there is one."""
    if read.page_parameter is None:
        return None
    value = json.decode(document, type=_PAGES[read.page_parameter]).next
    return {read.page_parameter: value} if value else None


def _moment(today: date, state: State) -> str:
    """When an answer is computed, if that is on `today`; else the beginning of that day, in RFC 3339."""
    now = state.clock().replace(microsecond=0)
    if today == today_in(state):
        return rfc3339(now)
    return rfc3339(datetime.combine(today, time(), ZoneInfo(state.settings.reporting_tz)))


def parse_query(read: Read, request: Request, state: State, today: date, *, with_people: bool) -> ReadQuery:
    """The query of a request for a read that comes on a day.

    Raises ParameterError for a parameter that is unknown, unusable or there twice.
    """
    given, common = dict(request.query_params), common_parameters(read)
    for name in given:
        if (count := len(request.query_params.getlist(name))) > 1:
            raise ParameterError(f"{name}: once, not {count} times")
    known = {parameter.name for parameter in (*common, *read.parameters)}
    if unknown := set(given) - known:
        raise ParameterError(f"{min(unknown)}: no such parameter here; there are {', '.join(sorted(known))}")
    values = parse_all(common, given, _default_today(read, request, state, today))
    args = parse_all(read.parameters, given, values["today"]) | request.path_params
    file_format = _file_format(read, args, values["format"], request)
    if values.get("amounts") and not file_format:
        raise ParameterError("amounts: only of a file, with format=csv or format=xlsx")
    if file_format and read.page_parameter and "limit" not in given:
        args["limit"] = None  # a file could not show that it is only a page
    return ReadQuery(
        scope=Scope(
            currency=values["currency"] or state.settings.reporting_currency,
            account=values["account"],
            today=values["today"],
            people=with_people,
        ),
        args=args,
        at_least=values["at_least"],
        timeout_ms=values["timeout_ms"],
        file_format=file_format,
        decimals=values.get("amounts") == "decimal",
    )


def _default_today(read: Read, request: Request, state: State, today: date) -> date:
    """The default of the parameter `today`: the day of `known_at`, if the request has one."""
    if not read.looks_back:
        return today
    known_at = parse_all(LOOK_BACK, dict(request.query_params), today)["known_at"]
    return default_today(known_at, today, ZoneInfo(state.settings.reporting_tz))


def _file_format(
    read: Read, args: Mapping[str, Any], given: str | None, request: Request
) -> FileFormat | None:
    """The format of the file that is asked for by `format`, else by the Accept header; None for JSON.

    Raises ParameterError where the answer has no list, or the format's package is not installed.
    """
    if given is None:
        accepts_csv = "text/csv" in request.headers.get("accept", "")
        return "csv" if accepts_csv and read.rows_of(args) else None
    if given == "json":
        return None
    if not read.rows_of(args):
        raise ParameterError(
            f"format: only with detail={', '.join(read.rows_of_detail)}; else there is no list"
        )
    file_format: FileFormat = "csv" if given == "csv" else "xlsx"
    check_format(file_format)
    return file_format


async def _make_answer(
    request: Request, key: Hashable, query: ReadQuery, make: Callable[[], Coroutine[Any, Any, Answer]]
) -> Answer:
    """The answer once the books hold `at_least`; with limits on time, and on the reads that wait or run.

    Raises Busy, Behind, TimeoutError, or ClientDisconnect if the client leaves while it waits.
    """
    state, client = state_of(request), client_of(request)
    seconds = _READ_SECONDS + query.timeout_ms / 1000

    def begin() -> asyncio.Task[Answer]:
        place = ExitStack()
        place.enter_context(state.reads.slot(client))

        async def work() -> Answer:
            with place:  # held until the work ends, even if everybody has left
                return await make()

        return asyncio.create_task(with_timeout(seconds, work()))

    if query.at_least:
        with state.waiting_reads.slot(client):
            await while_connected(request, state.progress.reach(query.at_least, query.timeout_ms))
    if _is_to_come(query.args.get("known_at"), state):
        return await begin()
    return await with_timeout(seconds, state.answers.find_or_make(key, begin))


def _is_to_come(known_at: date | datetime | None, state: State) -> bool:
    """Whether a moment is still to come: what was known then will change without a change of the stores."""
    return isinstance(known_at, datetime) and known_at >= state.clock()


async def _find_in_books(read: BookRead, query: ReadQuery, state: State) -> Found:
    """The snapshot, or else a document made now, with `meta` and what the ledger adds to it."""

    def make(view: View, _store: BookStore, _version: int) -> tuple[bytes, float]:
        return json.encode(read.answer(view, query.args)), read.inferred_share(view, query.args)

    snapshot = await _find_snapshot(read, query, state) if read.precomputed else None
    document, meta = snapshot or await read_books(query, state, make)
    if read.commented and query.scope.people:
        document = await with_comments(document, read.commented, state)
    return Found(document=document, meta=meta)


class _NoSnapshot(Exception):
    """There is none of these rows: what else an answer needs of the books is not looked for in vain."""


async def _find_snapshot(read: BookRead, query: ReadQuery, state: State) -> tuple[bytes, Meta] | None:
    """The document that the worker has made, with `meta`; None if it is missing or outdated."""

    def find(view: View, store: BookStore, version: int) -> tuple[bytes, float]:
        name = snapshots.snapshot_name(store, read, query.scope, query.args, state.options)
        document = snapshots.find(view.connection, name, version)
        if document is None:
            raise _NoSnapshot
        return document, read.inferred_share(view, query.args)

    try:
        return await read_books(query, state, find, makes=False)
    except _NoSnapshot:
        return None


FindInView = Callable[[View, BookStore, int], tuple[T, float]]


async def read_books(
    query: ReadQuery, state: State, find: FindInView[T], *, makes: bool = True
) -> tuple[T, Meta]:
    """What `find` makes of the books, as they are or at an earlier position if the query asks for one.

    `find` takes a view, its store and the version of the rows, and also returns the share of what is
    inferred. If it `makes` a document, it waits for its turn: that keeps Python busy, and webhooks and
    snapshots would wait for many of them. Raises Unavailable.
    """
    zone = ZoneInfo(state.settings.reporting_tz)
    position = await requested_position(query.args, state.ledger, zone, state.clock())
    found = await _read_at(query, state, find, position, makes=makes)
    if found is None and position is not None:
        async with state_as_known(state, position, query.timeout_ms) as known_state:
            found = await _read_at(query, known_state, find, position, makes=makes)
    if found is None:
        raise Unavailable("the books as known then can't be read now")
    return found


async def _read_at(
    query: ReadQuery, state: State, find: FindInView[T], position: int | None, *, makes: bool
) -> tuple[T, Meta] | None:
    """What `find` makes of the state's books, with `meta`; None if they are not at `position`."""

    def read(connection: Connection) -> tuple[T, int, dict[str, int], float] | None:
        positions, view = open_view(connection, query.scope, state)
        if position is not None and not is_at_position(connection, positions.books, state, position):
            return None
        found, inferred_share = find(view, state.store, positions.version)
        position_of_books = positions.position_under(query.args.get("policy") or "")
        return found, position_of_books, view.counts(), inferred_share

    async with state.maker if makes else nullcontext():
        result = await state.store.read(read)
    if result is None:
        return None
    meta = await build_meta(query.scope.today, state, *result[1:])
    if position is not None:
        meta = replace(meta, data_freshness="as_known")
    return result[0], meta


async def found_in_ledger(answer: Struct, query: ReadQuery, state: State) -> Found:
    """An answer that was read from the ledger; its `meta` tells of the books as they are."""
    meta = await build_meta(query.scope.today, state, *await position_and_counts(query.scope, state))
    return Found(document=json.encode(answer), meta=meta)


async def position_and_counts(scope: Scope, state: State) -> tuple[int, dict[str, int]]:
    """The books' position, and the counts of what they leave out."""

    def find(connection: Connection) -> tuple[int, dict[str, int]]:
        positions, view = open_view(connection, scope, state)
        return positions.position, view.counts()

    return await state.store.read(find)


def _with_meta(document: bytes, meta: dict[str, Any]) -> bytes:
    """A JSON object's bytes with `meta` as its last field."""
    return document[:-1] + b',"meta":' + json.encode(meta) + b"}"


def _without_lag(document: bytes, meta: Meta) -> bytes | None:
    """An answer without its lag, if nothing else of it can change any more; else None."""
    if meta.data_freshness != "as_known":
        return None
    fields = asdict(meta)
    del fields["lag_events"]
    return _with_meta(document, fields)


def open_view(connection: Connection, scope: Scope, state: State) -> tuple[BookPositions, View]:
    """The books' positions, and a view of the books. Raises Unavailable before they are laid out."""
    store, positions = state.store, state.store.positions(connection)
    if len(positions.books) < len(store.books):
        raise Unavailable("the books are not laid out yet")

    def find_model(kind: str) -> bytes | None:
        return stored_models.find(connection, store, kind, scope.currency, scope.account)

    return positions, View(
        connection=connection,
        books=positions.books,
        scope=scope,
        options=state.options,
        stored_model=find_model,
    )


async def build_meta(
    today: date, state: State, position: int, counts: dict[str, int], inferred_share: float = 0.0
) -> Meta:
    """The `meta` of an answer that was made from the books at this position; `counts` are the view's."""
    head, recorded_at_us = await state.ledger.read(
        lambda connection: (read_head(connection).position, read_recorded_at(connection, position))
    )
    return Meta(
        position=position,
        recorded_at=rfc3339(from_us(recorded_at_us)) if recorded_at_us is not None else None,
        lag_events=head - position,
        calculation_date=today.isoformat(),
        data_freshness="real_time" if head == position else "catching_up",
        weeks_per_month=format_fraction(state.settings.weeks_per_month),
        inferred_share=inferred_share,
        **counts,
    )
