"""Bodies over 1 MiB are refused before they are read whole; over a real socket."""

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.support.senders import SENDERS, Sender
from tests.support.waiting import PATIENCE_SECONDS
from tests.web.http_server import serve

MIB = 1 << 20
Address = tuple[str, int]

each = pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.name)


@pytest.fixture
def address(data_dir: Path) -> Iterator[Address]:
    with serve(data_dir) as listening:
        yield listening


def padded(sender: Sender, size: int) -> tuple[bytes, dict[str, str]]:
    body = json.dumps(sender.event("1", 100)).encode().ljust(size)
    return body, sender.sign(body, datetime.now(UTC), "msg_a", sender.secret)


def answered(address: Address, *sent: bytes) -> bytes:
    """All that the server answers to these bytes, to the end of the connection."""
    with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection:
        for part in sent:
            connection.sendall(part)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def is_413(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = json.loads(body)
    return (
        head.startswith(b"HTTP/1.1 413 ")
        and b"application/problem+json" in head
        and problem["status"] == 413
        and problem["type"] == "urn:daybook:problem:too-large"
    )


def kept(address: Address) -> int:
    position: int = httpx.get(
        "http://{}:{}/api/v1/ledger/head".format(*address), timeout=PATIENCE_SECONDS
    ).json()["position"]
    return position


@each
def test_a_body_of_exactly_1_mib_is_read(address: Address, sender: Sender) -> None:
    body, headers = padded(sender, MIB)

    answer = httpx.post(
        "http://{}:{}{}".format(*address, sender.path),
        content=body,
        headers=headers,
        timeout=PATIENCE_SECONDS,
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["duplicate"] is False


@each
def test_one_byte_more_is_refused_at_its_length_without_a_byte_of_it(
    address: Address, sender: Sender
) -> None:
    head = f"POST {sender.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB + 1}\r\n\r\n"

    assert is_413(answered(address, head.encode()))
    assert kept(address) == 0


@each
def test_an_endless_body_is_refused_as_soon_as_it_is_too_long(address: Address, sender: Sender) -> None:
    body, headers = padded(sender, MIB + 1)
    signed = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {sender.path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{signed}\r\n"

    # Nothing follows, not even the end of this chunk: whoever waits for it waits for ever.
    assert is_413(answered(address, head.encode(), f"{MIB << 4:x}\r\n".encode(), body))
    assert kept(address) == 0


def test_a_chunked_body_of_exactly_1_mib_is_read(address: Address) -> None:
    sender = SENDERS[0]
    body, headers = padded(sender, MIB)
    parts = (body[at : at + 50_000] for at in range(0, MIB, 50_000))

    answer = httpx.post(
        "http://{}:{}{}".format(*address, sender.path),
        content=parts,
        headers=headers,
        timeout=PATIENCE_SECONDS,
    )

    assert answer.status_code == 200, answer.text


def test_a_body_that_ends_early_is_not_kept(address: Address) -> None:
    sender = SENDERS[0]
    body, headers = padded(sender, 1000)
    signed = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {sender.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{signed}\r\n"

    with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode() + body[:500])
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65_536)

    assert kept(address) == 0
