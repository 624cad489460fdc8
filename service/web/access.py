"""Who may ask: the key that a request carries, and the scopes that the key gives."""

from secrets import compare_digest

from starlette.requests import Request

from service.core.errors import Forbidden, Unauthorized
from service.core.scopes import SCOPES
from service.web.state import state_of


def require(request: Request, *needed: str) -> frozenset[str]:
    """The scopes of a request. Raises Unauthorized, and Forbidden if they lack a needed one."""
    scopes = scopes_of(request)
    if missing := [scope for scope in needed if scope not in scopes]:
        raise Forbidden(f"the key lacks what this needs: {', '.join(missing)}")
    return scopes


def scopes_of(request: Request) -> frozenset[str]:
    """The scopes of the key that a request carries; all scopes where no key is set.

    Raises Unauthorized without a known key. Every key is compared, each in constant time, so that the time
    taken reveals nothing about the keys.
    """
    keys = state_of(request).settings.api_keys
    if not keys:
        return frozenset(SCOPES)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    matches = [key.scopes for key in keys if compare_digest(given.encode(), key.key.encode())]
    if not matches:
        raise Unauthorized("a key is needed: Authorization: Bearer …, or X-API-Key: …")
    return frozenset().union(*matches)
