"""What DAYBOOK_REDIS_URL may hold. Imports no client: settings read it in every process."""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

_FORMS = (
    "unset, or redis://[user:password@]host[:port][/db], rediss://…, unix:///socket[?db=0], "
    "redis+sentinel://host[:port],…[/db]?master=name or rediss+sentinel://…; more in docs/operations.md"
)
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = {*_FILES, "ssl_check_hostname"}
_SENTINEL = {"master", "sentinel_username", "sentinel_password"}
_ARGUMENTS = {
    "redis": {"db"},
    "rediss": {"db", *_TLS},
    "unix": {"db"},
    "redis+sentinel": {"db", *_SENTINEL},
    "rediss+sentinel": {"db", *_SENTINEL, *_TLS},
}
_SWITCH = {"true": True, "false": False}


class RedisUrl(Struct, frozen=True, kw_only=True):
    """A server by its address or socket, or the sentinels that know which server is `master`."""

    scheme: str
    addresses: tuple[tuple[str, int], ...]
    socket: str
    db: int
    username: str | None
    password: str | None
    master: str
    sentinel_username: str | None
    sentinel_password: str | None
    tls: Mapping[str, Any]  # by the names of redis-py's arguments


def parse(url: str) -> RedisUrl:
    """Raises ValueError with what the URL may hold, and nothing of what it holds: passwords are in it."""
    try:
        found = _parse(url)
    except (ValueError, KeyError):  # these may show what could not be read
        raise ValueError(_FORMS) from None
    if not all(os.access(found.tls[name], os.R_OK) for name in _FILES if name in found.tls):
        raise ValueError(f"a URL whose {', '.join(_FILES)} are files that can be read")
    if ("ssl_certfile" in found.tls) != ("ssl_keyfile" in found.tls):
        raise ValueError("a URL with ssl_certfile and ssl_keyfile, or neither")
    return found


def _parse(url: str) -> RedisUrl:
    parts = urlsplit(url)
    arguments = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.fragment or arguments.keys() - _ARGUMENTS[parts.scheme]:
        raise ValueError(parts.scheme)
    at_socket, by_sentinel = parts.scheme == "unix", parts.scheme.endswith("+sentinel")
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    socket, path = (unquote(parts.path), "") if at_socket else ("", parts.path.strip("/"))
    found = RedisUrl(
        scheme=parts.scheme,
        addresses=tuple(_address(host, 26379 if by_sentinel else 6379) for host in hosts.split(",") if host),
        socket=socket,
        db=int(arguments.get("db") or path or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        master=arguments.get("master", ""),
        sentinel_username=arguments.get("sentinel_username"),
        sentinel_password=arguments.get("sentinel_password"),
        tls={
            name: _SWITCH[value] if name == "ssl_check_hostname" else value
            for name, value in arguments.items()
            if name in _TLS
        },
    )
    places = len(found.addresses)
    if found.db < 0 or not (found.master and places if by_sentinel else bool(socket) + places == 1):
        raise ValueError(parts.scheme)
    return found


def _address(host: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    if not parts.hostname or parts.path:
        raise ValueError(host)
    return parts.hostname, parts.port or port
