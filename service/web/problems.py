"""Errors as `application/problem+json` (RFC 9457). The one place where our errors meet HTTP."""

from collections.abc import Mapping
from http import HTTPStatus

import structlog
from msgspec import json
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.core import errors

_STATUS: dict[type[Exception], int] = {
    errors.VerificationError: 400,
    errors.MalformedBody: 400,
    errors.TooLarge: 413,
    errors.TooSlow: 408,
    errors.ParameterError: 400,
    errors.Unauthorized: 401,
    errors.NotFound: 404,
    errors.Erased: 410,
    errors.NotConfigured: 503,
    errors.Unavailable: 503,
    errors.Busy: 503,
    errors.Behind: 504,
}
_HEADERS: dict[type[Exception], dict[str, str]] = {
    errors.Unavailable: {"Retry-After": "5"},
    errors.Busy: {"Retry-After": "1", "Connection": "close"},  # another process may have room
    errors.NotConfigured: {"Retry-After": "60"},
    errors.TooLarge: {"Connection": "close"},  # the rest of the body is not read
    errors.TooSlow: {"Connection": "close"},
    errors.Unauthorized: {"WWW-Authenticate": "Bearer"},
}

log = structlog.get_logger()


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A problem document with the status's own title."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(json.encode(body), status, headers, media_type="application/problem+json")


async def daybook_error(_request: Request, error: Exception) -> Response:
    """Our own errors: their text is fit to be shown."""
    return problem(_STATUS.get(type(error), 500), str(error), _HEADERS.get(type(error)))


async def http_error(_request: Request, error: Exception) -> Response:
    """The framework's: no such path, method not allowed, body too large."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    return problem(error.status_code, error.detail, error.headers)


async def database_error(_request: Request, error: Exception) -> Response:
    """A store that can't be read now, or not in time; never its message, which may hold data."""
    log.warning("store_unavailable", error=type(error).__name__)
    return problem(503, "a store can't be read now", {"Retry-After": "5"})


async def unexpected(_request: Request, _error: Exception) -> Response:
    """Anything else: logged by the server, and said without a word of it."""
    return problem(500, "an unexpected error; it is in the service's log")


HANDLERS = {
    errors.DaybookError: daybook_error,
    HTTPException: http_error,
    SQLAlchemyError: database_error,
    OSError: database_error,  # a database that is away, and TimeoutError
    Exception: unexpected,
}
