"""One address that takes all it can get: others find room, and it has nearly all while nobody else asks."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.web import app, listening, protocol
from tests.attacks.clients import HONEST, HOSTILE, Address, HonestSender, connected, is_closed
from tests.support.running import settings_for
from tests.support.waiting import wait_until
from tests.web.http_server import serve

MIB = 1 << 20
HEAD = "POST /webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{}\r\n"
WAITING = b"GET /api/v1/mrr?at_least=9&timeout_ms=30000 HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def address(data_dir: Path) -> Iterator[Address]:
    with serve(data_dir) as address:
        yield address


def in_flight(address: Address, kind: str) -> float:
    text = httpx.get(f"http://{address[0]}:{address[1]}/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == "daybook_requests_in_flight" and sample.labels["kind"] == kind
    )


def test_slow_bodies_of_one_address_leave_room_for_others(address: Address) -> None:
    with ExitStack() as stack:
        for _ in range(40):  # more than there is room for; those over it are refused, and closed
            connection = stack.enter_context(connected(address))
            connection.settimeout(5)
            connection.sendall(HEAD.format(MIB, "").encode())
            try:
                connection.sendall(b" " * (MIB - 1))
            except (ConnectionError, TimeoutError):
                continue
        wait_until(lambda: in_flight(address, "webhook") >= 27, "bodies take up all that one may have")

        assert HonestSender(address).refused() <= 1


def test_webhooks_without_a_body_leave_room_for_others(address: Address) -> None:
    most = app._MAX_WEBHOOKS * 7 // 8
    with ExitStack() as stack:
        for _ in range(app._MAX_WEBHOOKS + 6):
            stack.enter_context(connected(address)).sendall(HEAD.format(100, "").encode())
        wait_until(lambda: in_flight(address, "webhook") == most, "they have all that one address may have")

        assert HonestSender(address).refused() <= 1


def test_a_flood_of_connections_costs_an_address_its_own_idle_ones(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_MAX_CONNECTIONS", 80)
    with serve(data_dir) as address, ExitStack() as stack:
        flood = [stack.enter_context(connected(address)) for _ in range(500)]

        assert HonestSender(address).refused() <= 1
        wait_until(lambda: sum(map(is_closed, flood)) >= 430, "it has 70 at most")
        assert HonestSender(address, HOSTILE).post() == 200  # by the place of one that is idle


def test_connections_whose_requests_are_under_way_stay(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_MAX_CONNECTIONS", 8)
    with serve(data_dir) as address, ExitStack() as stack:
        busy = [stack.enter_context(connected(address)) for _ in range(7)]
        for connection in busy:
            connection.sendall(WAITING)
        wait_until(lambda: in_flight(address, "waiting_read") == 7, "all of them wait")
        one_more = stack.enter_context(connected(address))

        wait_until(lambda: is_closed(one_more), "there is no room for it")
        assert not any(map(is_closed, busy))


def test_a_burst_of_300_webhooks_from_one_address_is_taken(address: Address) -> None:
    sender = HonestSender(address)
    with ThreadPoolExecutor(300) as threads:
        assert set(threads.map(lambda _: sender.post(), range(300))) == {200}


def test_reads_that_wait_end_when_their_clients_leave_and_take_no_reads_place(address: Address) -> None:
    with ExitStack() as stack:
        for _ in range(300):  # more than reads may run at once
            stack.enter_context(connected(address)).sendall(WAITING)
        wait_until(lambda: in_flight(address, "waiting_read") == 300, "all of them wait")

        reads = {httpx.get(f"http://{address[0]}:{address[1]}/api/v1/ledger/head").status_code}
        assert reads == {200}
    wait_until(lambda: in_flight(address, "waiting_read") == 0, "none waits whose client has left")


def test_who_takes_nothing_of_an_answer_is_cut_off(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_STALLED_MS", 1)
    (listener,) = listening.bind(settings_for(data_dir, port=0))
    with listener:
        listener.listen()
        with connected(listener.getsockname()):
            answering, _ = listener.accept()
            with answering, pytest.raises(TimeoutError):
                answering.sendall(bytes(64 * MIB))


def forwarded_refusals(data_dir: Path, attacker: str, honest: str, **settings: Any) -> int:
    """How many of 20 forwarded webhooks are refused, while a proxy forwards all that an attacker may send."""
    with serve(data_dir, **settings) as address, ExitStack() as stack:
        head = HEAD.format(100, f"X-Forwarded-For: {attacker}\r\n").encode()
        for _ in range(8):
            stack.enter_context(connected(address, HONEST)).sendall(head)
        wait_until(lambda: in_flight(address, "webhook") == 7, "it has all that one client may have")
        sender = HonestSender(address)
        return sum(sender.post({"X-Forwarded-For": honest}) != 200 for _ in range(20))


@pytest.mark.parametrize(
    ("proxies", "attacker", "honest", "refused"),
    [
        ("127.0.0.1", "203.0.113.7", "203.0.113.8", 0),
        ("127.0.0.0/8", "203.0.113.8, 203.0.113.7", "203.0.113.8", 0),  # what it writes itself stands first
        ("127.0.0.1", "2001:db8::1", "2001:db8:0:1::1", 0),
        ("127.0.0.1", "2001:db8::1", "2001:db8::2", 20),  # one network of 64 bits
        ("", "203.0.113.7", "203.0.113.8", 20),  # an unnamed proxy is one client
    ],
)
def test_a_client_is_whom_a_trusted_proxy_names(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, proxies: str, attacker: str, honest: str, refused: int
) -> None:
    monkeypatch.setattr(app, "_MAX_WEBHOOKS", 8)
    assert forwarded_refusals(data_dir, attacker, honest, trusted_proxies=proxies) == refused


def test_the_log_names_an_unnamed_proxy_once(
    data_dir: Path, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_MAX_WEBHOOKS", 8)
    forwarded_refusals(data_dir, "203.0.113.7", "203.0.113.8")

    (line,) = (entry for entry in logged if entry["event"] == "forwarded_for_ignored")
    assert line["peer"] == "127.0.0.1"
    assert "DAYBOOK_TRUSTED_PROXIES" in line["hint"]
