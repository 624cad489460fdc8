"""Requests that are odd: many at once on one connection, or such that two readers would read otherwise."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.web import protocol
from tests.attacks.clients import Address, connected, read_to_end
from tests.support.waiting import wait_until
from tests.web.http_server import serve

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
WAITING = b"GET /api/v1/mrr?at_least=9&timeout_ms=200 HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def address(data_dir: Path) -> Iterator[Address]:
    with serve(data_dir) as address:
        yield address


def answers(address: Address, sent: bytes) -> tuple[list[int], bytes]:
    """The statuses of all that is answered until the connection is closed, and the last answer's body."""
    with connected(address) as connection:
        connection.sendall(sent)
        found = read_to_end(connection)
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", found)]
    last = found.rpartition(b"\r\n\r\n")
    assert b"connection: close" in last[0].rpartition(b"HTTP/1.1 ")[2].lower()
    return statuses, last[2]


def test_requests_that_wait_on_one_connection_are_answered_and_one_too_many_ends_it(address: Address) -> None:
    statuses, problem = answers(address, WAITING + GET * 100)

    assert statuses == [504] + [200] * protocol._MAX_PIPELINED + [503]
    assert json.loads(problem)["detail"] == "more than 16 requests wait for their answers"


def test_those_that_need_not_wait_are_all_answered(address: Address) -> None:
    many = protocol._MAX_PIPELINED
    with connected(address) as connection:
        for _ in range(10):
            connection.sendall(GET * many)
            wait_until(lambda: connection.recv(65_536, 2).count(b'"ok"}') == many, "all are answered")
            connection.recv(65_536)


REFUSED = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "no host": (GET.replace(b"Host: localhost\r\n", b""), 400),
    "a head too long": (GET[:-2] + b"a: b\r\n" * 200, 431),
    "a body that is no chunk": (CHUNKED + b"zz\r\n", 400),
}


@pytest.mark.parametrize(("refused", "status"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_what_is_refused_is_so_after_what_came_before_it(
    address: Address, refused: bytes, status: int, before: int
) -> None:
    first = [WAITING, GET][:before]

    statuses, problem = answers(address, b"".join(first) + refused + GET)

    assert statuses == [*[504, 200][:before], status]
    assert json.loads(problem)["status"] == status


HOSTS = {
    "none": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two": GET.replace(b"\r\n\r\n", b"\r\nHost: localhost\r\n\r\n"),
    "two, in another case": GET.replace(b"\r\n\r\n", b"\r\nhOST: elsewhere\r\n\r\n"),
    "two, of HTTP/1.0": GET.replace(b"1.1", b"1.0").replace(b"\r\n\r\n", b"\r\nHost: localhost\r\n\r\n"),
    "another in the target": GET.replace(b"/healthz", b"http://elsewhere/healthz"),
    "another port in the target": GET.replace(b"/healthz", b"http://localhost:81/healthz"),
    "a user in the target": GET.replace(b"/healthz", b"http://a@localhost/healthz"),
    "another scheme in the target": GET.replace(b"/healthz", b"ftp://localhost/healthz"),
    "a target without a path": GET.replace(b"/healthz", b"http://localhost"),
    "a target that is no path": GET.replace(b"/healthz", b"healthz"),
    "a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n",
}


@pytest.mark.parametrize("request_", HOSTS.values(), ids=HOSTS)
def test_a_request_that_names_no_host_or_two_is_a_problem(address: Address, request_: bytes) -> None:
    statuses, problem = answers(address, request_)

    assert statuses == [400]
    assert json.loads(problem)["title"] == "Bad Request"


def test_a_webhook_whose_host_is_not_plain_is_not_read(address: Address) -> None:
    head = b"POST /webhooks/stripe HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 5\r\n\r\nhello"

    statuses, problem = answers(address, head)

    assert (statuses, json.loads(problem)["detail"]) == ([400], "a request has one Host")


@pytest.mark.parametrize(
    "request_",
    [
        GET.replace(b"/healthz", b"http://LOCALHOST/healthz"),
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["named twice alike", "HTTP/1.0", "no path"],
)
def test_a_request_whose_host_is_plain_is_routed(address: Address, request_: bytes) -> None:
    with connected(address) as connection:
        connection.sendall(request_)
        assert connection.recv(65_536).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 404 "))
