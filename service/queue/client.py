"""Redis (or Valkey) by DAYBOOK_REDIS_URL: one pool of connections, every key and channel under a prefix.

arq names its keys by constants, so the prefix goes on where a command becomes bytes: pipelines and
transactions pass there too.
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

TIMEOUT_SECONDS = 2.0  # to connect, and for an answer: Redis may hang, and whoever asks can do without it

_NONE, _FIRST, _ALL = slice(1, 1), slice(1, 2), slice(1, None)
KEYS = {  # which arguments are keys or channels, of the commands that arq and we use
    command: which
    for which, commands in (
        (_NONE, "AUTH DBSIZE DISCARD EXEC INFO MULTI PING SELECT UNWATCH"),
        (_FIRST, "EXPIRE GET INCRBY PEXPIRE PSETEX PUBLISH SET ZADD ZCARD ZINCRBY ZRANGEBYSCORE ZREM ZSCORE"),
        (_ALL, "DEL EXISTS SUBSCRIBE WATCH"),
    )
    for command in commands.split()
}


class _Prefixed(AbstractConnection):
    """Puts the prefix on. A command that is not in the table raises: it might leave without one."""

    def __init__(self, *, prefix: str, **options: Any) -> None:
        super().__init__(**options)
        self._prefix = f"{prefix}:".encode()

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        which = KEYS.get(str(args[0]))
        if which is None:
            raise DataError(f"which arguments of {args[0]!r} are keys is not known")
        keys = [self._prefix + self.encoder.encode(key) for key in args[which]]  # type: ignore[no-untyped-call]
        return super().pack_command(args[0], *keys, *args[1 + len(keys) :])


class _Tcp(_Prefixed, Connection):
    pass


class _Tls(_Prefixed, SSLConnection):
    pass


class _Unix(_Prefixed, UnixDomainSocketConnection):
    pass


class _Master(_Prefixed, SentinelManagedConnection):
    pass


class _MasterTls(_Prefixed, SentinelManagedSSLConnection):
    pass


_CONNECTIONS = {
    "redis": _Tcp,
    "rediss": _Tls,
    "unix": _Unix,
    "redis+sentinel": _Master,
    "rediss+sentinel": _MasterTls,
}


class _Sentinels(Sentinel):
    """Keeps no connection to a sentinel: it is asked only where a new one to the master is made."""

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
    """The pool; it connects when it is used, and again after a loss. Raises ValueError if the URL is none.

    A certificate must be valid for the host's name, unless `ssl_check_hostname=false`.
    """
    where = parse(url)
    tls = {"ssl_check_hostname": True, **where.tls} if where.scheme.startswith("rediss") else {}
    options: dict[str, Any] = {
        "connection_class": _CONNECTIONS[where.scheme],
        "prefix": prefix,
        "username": where.username,
        "password": where.password,
        "db": where.db,
        "socket_timeout": TIMEOUT_SECONDS,
        "lib_name": None,  # with the next one: no CLIENT SETINFO, which an ACL may refuse
        "lib_version": None,
        **tls,
    }
    if where.master:
        return SentinelConnectionPool(where.master, _sentinels(where, tls), **options)  # type: ignore[no-untyped-call]
    if where.socket:
        return ConnectionPool(path=where.socket, **options)
    ((host, port),) = where.addresses
    return ConnectionPool(host=host, port=port, **options)


def _sentinels(where: RedisUrl, tls: dict[str, Any]) -> Sentinel:
    return _Sentinels(  # type: ignore[no-untyped-call]
        where.addresses,
        sentinel_kwargs={
            "username": where.sentinel_username,
            "password": where.sentinel_password,
            "socket_timeout": TIMEOUT_SECONDS,
            "ssl": bool(tls),
            **tls,
        },
    )
