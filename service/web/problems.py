"""Errors as `application/problem+json` (RFC 9457). The one place where our errors meet HTTP."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Annotated

import structlog
from msgspec import Struct, json
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.core import errors
from service.reads.answers import about
from service.storage.damage import damage
from service.web.counted_lines import CountedLines
from service.web.state import state_of


class ProblemType(Struct, frozen=True):
    """A kind of problem: the last part of its `type`, its title, status and headers."""

    name: str
    title: str
    status: int
    headers: dict[str, str] = {}

    @property
    def uri(self) -> str:
        """Its `type`."""
        return f"urn:daybook:problem:{self.name}"


PROBLEMS: dict[type[Exception], ProblemType] = {
    errors.VerificationError: ProblemType("not-proved", "The webhook is not proved", 400),
    errors.MalformedBody: ProblemType("not-json", "The webhook's body is not JSON", 400),
    errors.ParameterError: ProblemType("parameter", "A parameter can't be used", 400),
    errors.Unauthorized: ProblemType(
        "unauthorized", "A read key is needed", 401, {"WWW-Authenticate": "Bearer"}
    ),
    errors.Forbidden: ProblemType(
        "forbidden", "The key lacks a scope", 403, {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
    ),
    errors.CrossSite: ProblemType("cross-site", "Another site asks", 403),
    errors.NotFound: ProblemType("not-found", "There is no such thing", 404),
    errors.TooSlow: ProblemType("too-slow", "The body took too long", 408, {"Connection": "close"}),
    errors.Erased: ProblemType("erased", "It was erased with its customer", 410),
    # the rest of the body is not read
    errors.TooLarge: ProblemType("too-large", "The body is too large", 413, {"Connection": "close"}),
    errors.Misdirected: ProblemType("misdirected", "This host is not served here", 421),
    errors.NotConfigured: ProblemType(
        "not-configured", "No secret is set for the processor", 503, {"Retry-After": "60"}
    ),
    errors.Unavailable: ProblemType("unavailable", "A store can't be used now", 503, {"Retry-After": "5"}),
    # another process may have room
    errors.Busy: ProblemType(
        "busy", "Too many requests are under way", 503, {"Retry-After": "1", "Connection": "close"}
    ),
    errors.Behind: ProblemType("behind", "The books are behind", 504),
    errors.LostEvents: ProblemType(
        "lost-events", "The ledger lacks events that it had acknowledged", 503, {"Retry-After": "60"}
    ),
}


class Problem(Struct, frozen=True, kw_only=True):
    """An error."""

    type: Annotated[
        str,
        about(
            "which problem it is; `about:blank` where the status says it all",
            {"examples": [kind.uri for kind in PROBLEMS.values()]},
        ),
    ]
    title: Annotated[str, about("the problem, or the status, in words")]
    status: Annotated[int, about("the HTTP status again")]
    detail: Annotated[str, about("what was wrong; never a secret")]


_UNAVAILABLE = PROBLEMS[errors.Unavailable]

_Handler = Callable[[Request, Exception], Awaitable[Response]]

log = structlog.get_logger()


def _typed(kind: ProblemType, detail: str) -> Response:
    problem = Problem(type=kind.uri, title=kind.title, status=kind.status, detail=detail)
    return Response(json.encode(problem), kind.status, kind.headers, media_type="application/problem+json")


def _untyped(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A problem of which the status says it all."""
    body = untyped_problem(status, detail)
    return Response(body, status, headers, media_type="application/problem+json")


def untyped_problem(status: int, detail: str) -> bytes:
    """The JSON of a problem of which the status says it all."""
    title = HTTPStatus(status).phrase
    return json.encode(Problem(type="about:blank", title=title, status=status, detail=detail))


async def daybook_error(_request: Request, error: Exception) -> Response:
    """Our own errors: their text is fit to be shown."""
    kind = PROBLEMS.get(type(error))
    return _typed(kind, str(error)) if kind else _untyped(500, str(error))


async def client_left(_request: Request, _error: Exception) -> Response:
    """The client closed the connection: nobody reads this answer."""
    return _untyped(408, "the client left")


async def http_error(_request: Request, error: Exception) -> Response:
    """The framework's: no such path, method not allowed, body too large."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    return _untyped(error.status_code, error.detail, error.headers)


def _database_errors() -> _Handler:
    """Answers for a store that can't be read now, or not in time; never its message, which may hold data."""
    lines = CountedLines(log.warning)

    async def answer(request: Request, error: Exception) -> Response:
        now, shown = state_of(request).clock(), damage(error)
        lines.add(now, "store_unavailable", shown=shown, error=type(error).__name__)
        return _typed(_UNAVAILABLE, "a store can't be read now")

    return answer


async def unexpected(_request: Request, _error: Exception) -> Response:
    """Anything else: logged by the server, and said without a word of it."""
    return _untyped(500, "an unexpected error; it is in the service's log")


def status_of(error: Exception) -> int:
    """The status with which an error is answered."""
    if kind := PROBLEMS.get(type(error)):
        return kind.status
    return _UNAVAILABLE.status if isinstance(error, SQLAlchemyError | OSError) else 500


def error_handlers() -> dict[type[Exception], _Handler]:
    """What answers each kind of error."""
    database_error = _database_errors()
    return {
        errors.DaybookError: daybook_error,
        HTTPException: http_error,
        ClientDisconnect: client_left,
        SQLAlchemyError: database_error,
        OSError: database_error,  # a database that is away, and TimeoutError
        Exception: unexpected,
    }
