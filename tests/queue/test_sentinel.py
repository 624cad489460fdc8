"""Sentinel: the master's name leads to a server, and to another one after a failover."""

import gc
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
import valkey
from redis.asyncio.sentinel import MasterNotFoundError

from service.queue.nudge import connect
from tests.queue.servers import MASTER, Sentinel, follows, replica, tls_front
from tests.queue.workers import arrives, nudging, ready, working
from tests.support.ports import free_port
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually

# The client drops its connection to a master that died without closing it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
PASSWORD = "s/e@t"


@pytest.fixture(autouse=True)
def _no_garbage_for_later_tests() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def second(server: ValkeyServer) -> Iterator[ValkeyServer]:
    with replica(server) as running:
        yield running


@asynccontextmanager
async def watched(
    server: ValkeyServer, second: ValkeyServer, directory: Path, *settings: str
) -> AsyncIterator[tuple[Sentinel, str]]:
    """A sentinel that sees both servers, and a URL in which it comes after one that is down."""
    await eventually(lambda: follows(second), "the replica follows")
    with Sentinel(directory, server.port, f"requirepass {PASSWORD}", *settings) as sentinel:
        await eventually(lambda: sentinel.knows(replicas=1, password=PASSWORD), "the sentinel sees both")
        sentinels = f"127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}"
        yield (
            sentinel,
            f"redis+sentinel://{sentinels}/0?master={MASTER}&sentinel_password={quote(PASSWORD, safe='')}",
        )


def leads(server: ValkeyServer) -> bool:
    try:
        with server.client() as admin:
            return admin.info("replication")["role"] == "master"
    except valkey.ConnectionError:  # a sentinel ends all connections to a server whose role it changes
        return False


def is_demoted(server: ValkeyServer, leader: ValkeyServer) -> bool:
    """Done what a sentinel does too, some ten seconds later."""
    try:
        with server.client() as admin:
            admin.replicaof("127.0.0.1", leader.port)
            admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    except valkey.ConnectionError:
        return False
    return True


async def test_a_nudge_arrives_after_the_master_died(
    server: ValkeyServer, second: ValkeyServer, tmp_path: Path
) -> None:
    async with (
        watched(server, second, tmp_path, f"sentinel down-after-milliseconds {MASTER} 1000") as (_, url),
        working(url) as one,
        working(url) as two,
        nudging(url) as nudger,
    ):
        await ready(server.client, workers=2)
        await arrives(nudger, 1, one, two)

        server.terminate()

        await ready(second.client, workers=2)
        await arrives(nudger, 2, one, two)
        assert leads(second)


async def test_a_nudge_arrives_after_the_master_became_a_replica(
    server: ValkeyServer, second: ValkeyServer, tmp_path: Path
) -> None:
    async with (
        watched(server, second, tmp_path) as (sentinel, url),
        working(url) as one,
        working(url) as two,
        nudging(url) as nudger,
    ):
        await ready(server.client, workers=2)
        await arrives(nudger, 1, one, two)

        with sentinel.client(PASSWORD) as asked:
            asked.execute_command("SENTINEL", "FAILOVER", MASTER)
        await eventually(lambda: leads(second), "the other one leads")
        await eventually(lambda: is_demoted(server, second), "the first one follows it")

        await arrives(nudger, 2, one, two)
        with second.client() as admin:
            assert admin.exists("daybook:worker")


async def test_sentinels_and_server_are_reached_by_tls(
    server: ValkeyServer, tmp_path: Path, losses: Callable[[], list[str]]
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with tls_front(server.port, context) as server_port:
        with Sentinel(tmp_path, server_port) as sentinel:
            async with tls_front(sentinel.port, context) as sentinel_port:
                await eventually(lambda: sentinel.knows(replicas=0), "the sentinel sees the server")
                url = (
                    f"rediss+sentinel://127.0.0.1:{sentinel_port}"
                    f"?master={MASTER}&ssl_ca_certs={tmp_path / 'ca.pem'}"
                )
                async with working(url) as woken, nudging(url) as nudger:
                    await ready(server.client)
                    await arrives(nudger, 1, woken)
                    assert losses() == []


async def test_a_master_that_no_sentinel_knows_is_a_connection_error(
    server: ValkeyServer, tmp_path: Path
) -> None:
    with Sentinel(tmp_path, server.port) as sentinel:
        await eventually(lambda: sentinel.knows(replicas=0), "the sentinel sees the server")
        async with connect(f"redis+sentinel://127.0.0.1:{sentinel.port}?master=other", "daybook") as redis:
            with pytest.raises(MasterNotFoundError, match="other"):
                await redis.ping()
