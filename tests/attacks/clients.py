"""Clients of the real service, each at an address of loopback that it binds its sockets to."""

import json
import multiprocessing
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import httpx

from tests.support.senders import STRIPE
from tests.support.waiting import PATIENCE_SECONDS

Address = tuple[str, int]
HONEST, HOSTILE = "127.0.0.1", "127.0.0.2"


@contextmanager
def connected(address: Address, source: str = HOSTILE) -> Iterator[socket.socket]:
    """A connection from a source address."""
    with socket.create_connection(address, PATIENCE_SECONDS, source_address=(source, 0)) as connection:
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the service closes the connection, or cuts it off."""
    found = b""
    try:
        while data := connection.recv(65_536):
            found += data
    except ConnectionError:
        pass
    return found


def is_closed(connection: socket.socket) -> bool:
    """Whether the service has closed a connection, of which nothing is left to read."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        connection.settimeout(PATIENCE_SECONDS)


class HonestSender:
    """Posts signed webhooks from an address, each a new event over a connection of its own."""

    def __init__(self, address: Address, source: str = HONEST) -> None:
        self._url = f"http://{address[0]}:{address[1]}{STRIPE.path}"
        self._source = source
        self._count = 0

    def post(self, headers: dict[str, str] | None = None) -> int:
        """The status of the answer to one more webhook."""
        self._count += 1
        body = json.dumps(STRIPE.event(f"{self._source}_{self._count}", 100)).encode()
        signed = STRIPE.sign(body, datetime.now(UTC), "", STRIPE.secret)
        transport = httpx.HTTPTransport(local_address=self._source, verify=False)
        with httpx.Client(transport=transport, timeout=PATIENCE_SECONDS) as client:
            return client.post(self._url, content=body, headers=signed | (headers or {})).status_code

    def refused(self, count: int = 100) -> int:
        """How many of so many webhooks were not taken."""
        return sum(self.post() != 200 for _ in range(count))


@contextmanager
def flooding(address: Address, requests: Sequence[bytes], count: int) -> Iterator[None]:
    """A process that sends so many requests at once, each over a new connection, again and again."""
    process = multiprocessing.get_context("spawn").Process(target=_flood, args=(address, requests, count))
    process.start()
    try:
        yield
        assert process.is_alive()
    finally:
        process.kill()
        process.join()


def _flood(address: Address, requests: Sequence[bytes], count: int) -> None:
    while True:
        with ExitStack() as stack:
            connections = [stack.enter_context(connected(address)) for _ in range(count)]
            for number, connection in enumerate(connections):
                connection.sendall(requests[number % len(requests)])
            for connection in connections:
                connection.recv(65_536)
