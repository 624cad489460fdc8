"""Parses DAYBOOK_REDIS_URL. Imports no Redis client, since every process reads the settings."""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

_ALLOWED_FORMS = (
    "unset, or redis://[user:password@]host[:port][/db], rediss://…, unix:///socket[?db=0], "
    "redis+sentinel://host[:port],…[/db]?master=name or rediss+sentinel://…; more in docs/operations.md"
)
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = {*_TLS_FILES, "ssl_check_hostname"}
_SENTINEL = {"master", "sentinel_username", "sentinel_password"}
_ARGUMENTS = {
    "redis": {"db"},
    "rediss": {"db", *_TLS},
    "unix": {"db"},
    "redis+sentinel": {"db", *_SENTINEL},
    "rediss+sentinel": {"db", *_SENTINEL, *_TLS},
}
_BOOLEANS = {"true": True, "false": False}


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
    """The parsed URL. Raises ValueError with the allowed forms, but not the URL, which holds passwords."""
    try:
        redis_url = _parse(url)
    except (ValueError, KeyError):  # their messages may contain parts of the URL
        raise ValueError(_ALLOWED_FORMS) from None
    if not all(os.access(redis_url.tls[name], os.R_OK) for name in _TLS_FILES if name in redis_url.tls):
        raise ValueError(f"a URL whose {', '.join(_TLS_FILES)} are files that can be read")
    if ("ssl_certfile" in redis_url.tls) != ("ssl_keyfile" in redis_url.tls):
        raise ValueError("a URL with ssl_certfile and ssl_keyfile, or neither")
    return redis_url


def _parse(url: str) -> RedisUrl:
    parts = urlsplit(url)
    arguments = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.fragment or arguments.keys() - _ARGUMENTS[parts.scheme]:
        raise ValueError(parts.scheme)
    at_socket, by_sentinel = parts.scheme == "unix", parts.scheme.endswith("+sentinel")
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    socket, path = (unquote(parts.path), "") if at_socket else ("", parts.path.strip("/"))
    result = RedisUrl(
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
            name: _BOOLEANS[value] if name == "ssl_check_hostname" else value
            for name, value in arguments.items()
            if name in _TLS
        },
    )
    address_count = len(result.addresses)
    if result.db < 0 or not (
        result.master and address_count if by_sentinel else bool(socket) + address_count == 1
    ):
        raise ValueError(parts.scheme)
    return result


def _address(host: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    if not parts.hostname or parts.path:
        raise ValueError(host)
    return parts.hostname, parts.port or port
