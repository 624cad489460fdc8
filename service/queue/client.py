"""The client of Redis (or Valkey): a pool of connections that put a prefix before every key and channel.

arq's key names are constants, so the prefix is added where a command is encoded, which also covers pipelines
and transactions.
"""

from typing import Any

from arq.connections import ArqRedis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import DataError
from redis.typing import EncodableT

from service.settings.redis_url import RedisUrl, parse

TIMEOUT_SECONDS = 2.0  # to connect, and for an answer: Redis may hang, and callers can do without it

_NONE, _FIRST, _ALL = slice(1, 1), slice(1, 2), slice(1, None)
KEYS = {  # the arguments that are keys or channels, by command; all commands that arq and Daybook use
    command: key_slice
    for key_slice, commands in (
        (_NONE, "AUTH DBSIZE DISCARD EXEC INFO MULTI PING SELECT UNWATCH"),
        (
            _FIRST,
            "EXPIRE GET INCRBY PEXPIRE PSETEX PUBLISH SET ZADD ZCARD ZINCRBY ZRANGEBYSCORE ZREM ZSCORE",
        ),
        (_ALL, "DEL EXISTS SUBSCRIBE WATCH"),
    )
    for command in commands.split()
}


class _PrefixedConnection(AbstractConnection):
    """Adds the prefix to keys. A command that is not in the table raises: its keys can't be prefixed."""

    def __init__(self, *, prefix: str, **options: Any) -> None:
        super().__init__(**options)
        self._prefix = f"{prefix}:".encode()

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        key_slice = KEYS.get(str(args[0]))
        if key_slice is None:
            raise DataError(f"which arguments of {args[0]!r} are keys is not known")
        keys = [self._prefix + self.encoder.encode(key) for key in args[key_slice]]  # type: ignore[no-untyped-call]
        return super().pack_command(args[0], *keys, *args[1 + len(keys) :])


class _TcpConnection(_PrefixedConnection, Connection):
    pass


class _TlsConnection(_PrefixedConnection, SSLConnection):
    pass


class _UnixConnection(_PrefixedConnection, UnixDomainSocketConnection):
    pass


class _MasterConnection(_PrefixedConnection, SentinelManagedConnection):
    pass


class _MasterTlsConnection(_PrefixedConnection, SentinelManagedSSLConnection):
    pass


_CONNECTIONS = {
    "redis": _TcpConnection,
    "rediss": _TlsConnection,
    "unix": _UnixConnection,
    "redis+sentinel": _MasterConnection,
    "rediss+sentinel": _MasterTlsConnection,
}


class _Sentinels(Sentinel):
    """Closes connections to sentinels, which are asked only before a new connection to the master."""

    async def discover_master(self, service_name: str) -> Any:
        try:
            return await super().discover_master(service_name)
        finally:
            for sentinel in self.sentinels:
                await sentinel.aclose()


class Client(ArqRedis):
    """Arq's client, whose pipelines leave no connection open."""

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """See redis-py."""
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _Pipeline(Pipeline):
    """Gives its connection back however it ends.

    Redis-py keeps it where Redis says nothing to the UNWATCH at the end, and where that wait is cancelled.
    """

    async def reset(self) -> None:
        try:
            await super().reset()  # type: ignore[no-untyped-call]
        finally:
            if kept := self.connection:
                self.connection = None
                await kept.disconnect(nowait=True)  # what it still says is no answer to the next command
                await self.connection_pool.release(kept)


def connection_pool(url: str, prefix: str) -> ConnectionPool:
    """The pool; it connects when used, and again after a loss. Raises ValueError for an invalid URL.

    A certificate must be valid for the host's name, unless `ssl_check_hostname=false`.
    """
    redis_url = parse(url)
    tls = {"ssl_check_hostname": True, **redis_url.tls} if redis_url.scheme.startswith("rediss") else {}
    options: dict[str, Any] = {
        "connection_class": _CONNECTIONS[redis_url.scheme],
        "prefix": prefix,
        "username": redis_url.username,
        "password": redis_url.password,
        "db": redis_url.db,
        "socket_timeout": TIMEOUT_SECONDS,
        "lib_name": None,  # with the next one: no CLIENT SETINFO, which an ACL may refuse
        "lib_version": None,
        **tls,
    }
    if redis_url.master:
        return SentinelConnectionPool(redis_url.master, _build_sentinel(redis_url, tls), **options)  # type: ignore[no-untyped-call]
    if redis_url.socket:
        return ConnectionPool(path=redis_url.socket, **options)
    ((host, port),) = redis_url.addresses
    return ConnectionPool(host=host, port=port, **options)


def _build_sentinel(redis_url: RedisUrl, tls: dict[str, Any]) -> Sentinel:
    return _Sentinels(  # type: ignore[no-untyped-call]
        redis_url.addresses,
        sentinel_kwargs={
            "username": redis_url.sentinel_username,
            "password": redis_url.sentinel_password,
            "socket_timeout": TIMEOUT_SECONDS,
            "ssl": bool(tls),
            **tls,
        },
    )
