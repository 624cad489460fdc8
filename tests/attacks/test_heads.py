"""Heads without end: in size, in lines, in time. They are refused or cut off, and others are served."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.web import protocol
from tests.attacks.clients import Address, HonestSender, connected, is_closed, read_to_end
from tests.support.senders import STRIPE
from tests.support.waiting import wait_until
from tests.web.http_server import serve

KIB = 1 << 10
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /webhooks/stripe HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"

ENDLESS = {
    "a header": (GET + b"X: ", b"a"),
    "a header's name": (GET, b"a"),
    "a path": (b"GET /", b"a"),
    "many headers": (GET, b"a: b\r\n"),
    "blank lines": (b"", b"\r\n"),
    "a trailer": (CHUNKED + b"0\r\nX: ", b"a"),
    "many trailers": (CHUNKED + b"0\r\n", b"a: b\r\n"),
    "a chunk's extension": (CHUNKED + b"5;", b"a"),
}


@pytest.fixture
def address(data_dir: Path) -> Iterator[Address]:
    with serve(data_dir) as address:
        yield address


@pytest.fixture
def hurried(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """A service that waits for heads for an instant."""
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", 0.1)
    with serve(data_dir) as address:
        yield address


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("piece", [700, 60_000])
def test_what_never_ends_is_refused_after_64_kib(
    address: Address, begin: bytes, more: bytes, piece: int
) -> None:
    part = more * (piece // len(more))
    with connected(address) as connection:
        connection.sendall(begin)
        try:
            for _ in range(64 * KIB // len(part) + 1):
                connection.sendall(part)
        except ConnectionError:  # it was refused, and closed, before all was sent
            pass
        answer = read_to_end(connection)

    assert answer == b"" or answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert HonestSender(address).post() == 200


@pytest.mark.parametrize("piece", [1_000, 16 * KIB, 32 * KIB, 100 * KIB])
def test_a_head_of_32_kib_is_read(address: Address, piece: int) -> None:
    head = GET + b"X: " + b"a" * (32 * KIB - len(GET) - 7) + b"\r\n\r\n"
    sent = (b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + b"b" * 20_000) + head
    with connected(address) as connection:
        for start in range(0, len(sent), piece):
            connection.sendall(sent[start : start + piece])
        wait_until(lambda: connection.recv(65_536, 2).count(b"HTTP/1.1 ") == 2, "both are answered")
        assert b"HTTP/1.1 200 " in connection.recv(65_536)


def test_a_head_over_the_limit_is_a_problem(address: Address) -> None:
    with connected(address) as connection:
        connection.sendall(GET + b"a: b\r\n" * 200)
        head, _, body = read_to_end(connection).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["status"] == 431


def test_so_is_the_next_head_of_a_connection(address: Address) -> None:
    with connected(address) as connection:
        connection.sendall(GET + b"\r\n")
        wait_until(lambda: connection.recv(65_536, 2).endswith(b"}"), "the first is answered")
        connection.sendall(GET + b"X: " + b"a" * 70 * KIB)
        answer = read_to_end(connection)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 431 " in answer


@pytest.mark.parametrize("begin", [b"", b"\r\n", b"G", GET, GET + b"X: a"])
def test_a_head_that_does_not_end_in_time_is_cut_off(hurried: Address, begin: bytes) -> None:
    with connected(hurried) as first, connected(hurried) as second:
        first.sendall(begin)
        second.sendall(GET + b"\r\n" + begin)

        assert read_to_end(first) == b""
        assert read_to_end(second).count(b"HTTP/1.1 ") == 1


def test_what_follows_a_body_is_no_part_of_the_head(address: Address) -> None:
    body = json.dumps(STRIPE.event("1", 100)).encode()
    signed = STRIPE.sign(body, datetime.now(UTC), "", STRIPE.secret)
    trailers = "".join(f"{name}: {value}\r\n" for name, value in signed.items()).encode()
    with connected(address) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        connection.sendall(b"%x\r\n%b\r\n0\r\n" % (len(body), body) + trailers + b"\r\n")
        answer = read_to_end(connection)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Stripe-Signature is missing" in answer


def test_heads_that_trickle_are_cut_off_and_hold_nobody_up(hurried: Address) -> None:
    with ExitStack() as stack:
        trickling = [stack.enter_context(connected(hurried)) for _ in range(300)]
        for connection in trickling:
            connection.sendall(GET + b"X")

        assert HonestSender(hurried).refused() <= 1
        wait_until(lambda: all(map(is_closed, trickling)), "none is left")


def is_cut_off_by_sending(connection: socket.socket, data: bytes) -> bool:
    try:
        connection.sendall(data)
    except ConnectionError:
        return True
    return False


def test_a_body_that_goes_on_after_the_answer_is_cut_off(hurried: Address) -> None:
    with connected(hurried) as connection:
        connection.sendall(POST.replace(b"stripe", b"nobody") + b"Transfer-Encoding: chunked\r\n\r\n")
        wait_until(lambda: is_cut_off_by_sending(connection, b"1\r\na\r\n"), "it is cut off")
