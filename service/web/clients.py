"""Who asks: the peer of the connection, or whom a trusted proxy names in `X-Forwarded-For`."""

from functools import lru_cache
from ipaddress import ip_address

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.settings import Network
from service.web.room import client_key

log = structlog.get_logger()


class TrustedProxies:
    """The addresses whose `X-Forwarded-For` names the client."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks
        self._trusts = lru_cache(4_096)(self._is_inside)

    def __contains__(self, host: str) -> bool:
        return bool(self._networks) and self._trusts(host)

    def _is_inside(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class ClientNames:
    """The app, whose requests say in `client` who asks.

    Uvicorn's own middleware for this is off, since it trusts loopback. Each proxy adds the address that it
    was asked from at the end, so the last one that is no trusted proxy is the client. What stands before it,
    anybody may have written.
    """

    def __init__(self, app: ASGIApp, trusted: tuple[Network, ...]) -> None:
        self._app = app
        self._trusted = TrustedProxies(trusted)
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http" and scope["client"]:
            values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
            if values:
                scope = {**scope, "client": (self._client_of(scope["client"][0], b",".join(values)), 0)}
        await self._app(scope, receive, send)

    def _client_of(self, peer: str, forwarded: bytes) -> str:
        if peer not in self._trusted:
            self._warn_once(peer)
            return peer
        hosts = [_without_port(host.strip()) for host in forwarded.decode("latin-1").split(",")]
        return next((host for host in reversed(hosts) if host not in self._trusted), peer)

    def _warn_once(self, peer: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            hint = "all that it forwards is one client, unless DAYBOOK_TRUSTED_PROXIES names it"
            log.warning("forwarded_for_ignored", peer=peer, hint=hint)


def client_of(request: Request) -> str:
    """The client of a request, by whom room is shared."""
    client = request.scope.get("client")
    return client_key(client[0] if client else "")


def _without_port(host: str) -> str:
    """ "10.0.0.1" for "10.0.0.1:443", and "::1" for "[::1]:443"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host
