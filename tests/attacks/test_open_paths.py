"""Paths that anybody may ask, as often as they like: many at once cost as much as one."""

import asyncio
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.web import turns
from tests.attacks.clients import HONEST, HOSTILE, Address, HonestSender, connected, flooding
from tests.support.running import Daybook
from tests.support.waiting import PATIENCE_SECONDS
from tests.web.http_server import serve

KEY = "a-key-of-the-reads-1"
OPEN_PATHS = ("/api/v1/mrr", "/healthz", "/readyz", "/metrics", "/nothing", "/openapi.json", "/docs")


def get(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode()


def read_answer(connection: socket.socket) -> bytes:
    """The status of the next answer."""
    status = b""
    while len(status) < 12:
        status += connection.recv(12 - len(status))
    return status[-3:]


def answered(connections: list[socket.socket]) -> int:
    """How many of the connections have an answer to read."""
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    return len(poll.poll(0))


class Gate:
    """Holds up the event loop of a service, from the next request until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = threading.Event()
        self._open.set()
        self._closed_in = threading.Event()
        client_of = turns.client_of

        def held(request: Any) -> str:
            if not self._open.is_set():
                self._closed_in.set()
                self._open.wait(PATIENCE_SECONDS)
            return client_of(request)

        monkeypatch.setattr(turns, "client_of", held)

    @contextmanager
    def closed(self, address: Address) -> Iterator[None]:
        self._open.clear()
        with connected(address) as first:
            first.sendall(get("/healthz"))
            assert self._closed_in.wait(PATIENCE_SECONDS)
            yield
            self._open.set()


@pytest.mark.parametrize("path", OPEN_PATHS)
def test_who_asks_once_is_answered_before_most_of_what_another_asks_at_the_same_time(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    gate = Gate(monkeypatch)
    with serve(data_dir, api_keys=KEY) as address, ExitStack() as stack:
        flood = [stack.enter_context(connected(address)) for _ in range(400)]
        honest = stack.enter_context(connected(address, HONEST))
        for connection in (*flood, honest):  # all are accepted, and wait for more
            connection.sendall(get("/healthz"))
            assert read_answer(connection) == b"200"
            connection.recv(65_536)
        with gate.closed(address):
            for connection in flood:
                connection.sendall(get(path, f"Authorization: Bearer {KEY[:-1]}\r\n"))
            honest.sendall(get("/healthz"))

        assert read_answer(honest) == b"200"
        assert answered(flood) < 100


def test_clients_of_a_trusted_proxy_take_turns_too(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with serve(data_dir, api_keys=KEY, trusted_proxies=HOSTILE) as address, ExitStack() as stack:
        flood = [stack.enter_context(connected(address)) for _ in range(400)]
        honest = stack.enter_context(connected(address))
        with gate.closed(address):
            for connection in flood:
                connection.sendall(get("/api/v1/mrr", "X-Forwarded-For: 203.0.113.1\r\n"))
            honest.sendall(get("/api/v1/mrr", "X-Forwarded-For: 203.0.113.2\r\n"))

        assert read_answer(honest) == b"401"
        assert answered(flood) < 100


def test_nobody_is_refused_while_another_address_asks_all_that_needs_no_key(data_dir: Path) -> None:
    with (
        serve(data_dir, api_keys=KEY) as address,
        flooding(address, [get(path) for path in OPEN_PATHS], 1_500),
    ):
        assert HonestSender(address).refused() <= 1


def test_open_paths_have_little_room_and_one_address_leaves_some_of_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with serve(data_dir, api_keys=KEY) as address, ExitStack() as stack:
        flood = [stack.enter_context(connected(address)) for _ in range(100)]
        with gate.closed(address):
            for connection in flood:
                connection.sendall(get("/docs/assets/swagger-ui-bundle.js"))
        with connected(address, HONEST) as honest:
            honest.sendall(get("/healthz"))
            assert read_answer(honest) == b"200"
        statuses = [read_answer(connection) for connection in flood]

    assert set(statuses) == {b"200", b"503"}


@pytest.fixture
def one_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_PER_PASS", 1)


@pytest.mark.usefixtures("one_a_pass")
def test_a_flood_of_one_address_takes_turns_with_the_few_of_another() -> None:
    async def order() -> list[str]:
        begun, waiting = list[str](), turns.Turns()
        for client in (HOSTILE, HOSTILE, HOSTILE, HOSTILE, HONEST, HONEST):
            waiting.call(client, lambda client=client: begun.append(client))  # type: ignore[misc]
        assert begun == [HOSTILE]
        for passes in range(2, 7):
            await asyncio.sleep(0)
            assert len(begun) == passes
        return begun

    assert asyncio.run(order()) == [HOSTILE, HOSTILE, HONEST, HOSTILE, HONEST, HOSTILE]


@pytest.mark.usefixtures("one_a_pass")
def test_turns_are_postponed_only_so_often() -> None:
    async def passes() -> int:
        begun, waiting = list[int](), turns.Turns()
        for number in range(2):
            waiting.call(HOSTILE, lambda number=number: begun.append(number))  # type: ignore[misc]
        for count in range(100):
            waiting.postpone()
            await asyncio.sleep(0)
            if len(begun) == 2:
                return count
        raise AssertionError("its turn never comes")

    assert asyncio.run(passes()) == turns._MAX_POSTPONED


async def test_many_who_ask_whether_it_is_ready_share_one_look(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, looks = daybook.state.write_probe.check, 0

    async def counted() -> None:
        nonlocal looks
        looks += 1
        await check()

    monkeypatch.setattr(daybook.state.write_probe, "check", counted)

    answers = await asyncio.gather(*(daybook.http.get("/readyz") for _ in range(50)))

    assert {answer.status_code for answer in answers} == {200}
    assert looks == 1
    assert (await daybook.http.get("/readyz")).status_code == 200
    assert looks == 2
