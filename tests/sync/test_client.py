"""The client of every processor's API over a real socket: attempts, rate, pages, answers that are none."""

import asyncio
import itertools
import json
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from handlers import standard, stripe
from service.core.errors import NotConfigured, Refused, SettingsError, Unavailable, Unreadable
from service.core.processor_api import Api, Page, Repetition, Request
from service.settings import load
from service.sync.client import ApiClient, open_client

KEY = "the-key-of-meterly"
LIST = Request(path="/bills", query={"limit": 2})


def read_page(body: bytes, _request: Request) -> Page:
    """A page whose answer says where the next one begins."""
    try:
        page = json.loads(body)
        objects = tuple(json.dumps(each).encode() for each in page["bills"])
    except (ValueError, KeyError, TypeError):
        raise Unreadable("it has no shape that is known") from None
    return Page(objects=objects, next_query=page["next"])


API = Api(
    title="Meterly",
    settings=("meterly_api_key",),
    url_setting="meterly_api_url",
    headers=lambda values: {"Authorization": f"Bearer {values['meterly_api_key']}"},
    own_account=lambda _values: "acct_1",
    read_page=read_page,
    id_of=lambda body: str(json.loads(body)),
    repetition=Repetition(attempts=4, first_wait_seconds=0.5, max_wait_seconds=60.0, advice="May-Repeat"),
    requests_per_second=2,
    timeout_seconds=10.0,
)


def answer(status: str, body: Any = None, **headers: str) -> bytes:
    """A whole answer; underscores in header names stand for hyphens."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


BUSY, RESET = "429 Too Many Requests", b""
CUT_OFF = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n[1"


class Meterly:
    """A server on a socket that gives each connection its answer, and the waits between them."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.requests: list[bytes] = []
        self.waits: list[float] = []
        self.url = ""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        answer = self._answers.pop(0)
        if answer == RESET:
            lingering: socket.socket = writer.get_extra_info("socket")
            lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.write(answer)
        writer.close()

    async def note_wait(self, seconds: float) -> None:
        self.waits.append(seconds)

    @property
    def paths(self) -> list[str]:
        return [request.split()[1].decode() for request in self.requests]


@asynccontextmanager
async def asking(
    *answers: bytes, api: Api = API, monotonic: Callable[[], float] | None = None
) -> AsyncIterator[tuple[Meterly, ApiClient]]:
    meterly = Meterly(*answers)
    server = await asyncio.start_server(meterly.connected, "127.0.0.1", 0)
    async with server:
        values = {
            "meterly_api_key": KEY,
            "meterly_api_url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        }
        client = ApiClient(
            api,
            values,
            pause=meterly.note_wait,
            random_fraction=lambda: 1.0,
            monotonic=monotonic or itertools.count().__next__,
        )
        try:
            yield meterly, client
        finally:
            await client.close()


# Attempts


async def test_what_fails_for_a_while_is_asked_again_and_each_request_has_the_credentials() -> None:
    troubles = [RESET, CUT_OFF, answer("503 Away")]
    async with asking(*troubles, answer("200 OK", b'{"a":  1}')) as (meterly, client):
        body = await client.fetch(Request(path="/bills/1", headers={"Meterly-Account": "acct_2"}))

    assert body == b'{"a":  1}'
    assert meterly.waits == [0.5, 1.0, 2.0]
    assert len(meterly.requests) == 4
    assert all(f"Authorization: Bearer {KEY}\r\n".encode() in each for each in meterly.requests)
    assert all(b"Meterly-Account: acct_2\r\n" in each for each in meterly.requests)


async def test_a_wait_is_as_long_as_the_answer_asks_for_and_never_longer_than_the_limit(
    logged: list[Any],
) -> None:
    asked = [answer(BUSY, Retry_After=seconds) for seconds in ("0", "7", "86400")]
    async with asking(*asked, answer("200 OK")) as (meterly, client):
        await client.fetch(LIST)

    assert meterly.waits == [0.5, 7.0, 60.0]
    told = [(entry["event"], entry["api"], entry["answer"], entry["seconds"]) for entry in logged]
    assert told == [("api_awaited", "Meterly", "429", 7.0), ("api_awaited", "Meterly", "429", 60.0)]


async def test_waits_differ_by_chance_so_that_clients_do_not_ask_at_one_moment() -> None:
    async with asking(answer(BUSY), answer("200 OK")) as (meterly, client):
        client._random_fraction = lambda: 0.0
        await client.fetch(LIST)

    assert meterly.waits == [0.25]


async def test_an_api_that_stays_away_is_unavailable_after_the_last_attempt() -> None:
    async with asking(*[answer("502 Bad Gateway")] * 4) as (meterly, client):
        with pytest.raises(Unavailable, match=r"^Meterly answered 502, 4 times$"):
            await client.fetch(LIST)

    assert len(meterly.waits) == 3


@pytest.mark.parametrize(
    ("status", "advice", "attempts"),
    [
        ("500 Oops", "false", 1),
        ("400 Bad Request", "true", 4),
        (BUSY, "false", 4),
        ("409 Conflict", "perhaps", 4),
        ("404 Not Found", "perhaps", 1),
    ],
)
async def test_an_answer_may_advise_for_or_against_another_attempt(
    status: str, advice: str, attempts: int
) -> None:
    async with asking(*[answer(status, May_Repeat=advice)] * 4) as (meterly, client):
        with pytest.raises(Unavailable):
            await client.fetch(LIST)

    assert len(meterly.requests) == attempts


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404])
async def test_a_refusal_is_final_and_names_its_status(status: int) -> None:
    text = f"the key {KEY} may not"
    async with asking(answer(f"{status} No", text, Location="/elsewhere")) as (meterly, client):
        with pytest.raises(Refused) as refused:
            await client.fetch(LIST)

    assert (str(refused.value), refused.value.status) == (f"Meterly answered {status} to /bills", status)
    assert meterly.waits == []


async def test_an_object_that_does_not_exist_is_none_and_one_that_is_refused_an_error() -> None:
    async with asking(answer("404 Not Found"), answer("403 Forbidden")) as (_, client):
        assert await client.fetch_one(LIST) is None
        with pytest.raises(Refused):
            await client.fetch_one(LIST)


async def test_requests_keep_to_the_rate_of_the_api() -> None:
    moments = iter([0.0, 0.1, 0.2, 5.0])
    async with asking(*[answer("200 OK")] * 4, monotonic=moments.__next__) as (meterly, client):
        for _ in range(4):
            await client.fetch(LIST)

    assert meterly.waits == pytest.approx([0.4, 0.8])


async def test_no_error_and_no_log_line_holds_a_credential(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with asking(answer("401 No", KEY), answer("200 OK", KEY)) as (_, client):
        for ask in (client.fetch(LIST), anext(client.pages(LIST))):
            with pytest.raises(Unavailable) as caught:
                await ask
            assert KEY not in repr(caught.value)

    assert KEY not in caplog.text


# Lists


def page(*bills: int, next_query: dict[str, int] | None = None) -> bytes:
    return answer("200 OK", {"bills": bills, "next": next_query})


async def test_a_list_is_read_to_its_last_page_and_can_be_continued_from_any() -> None:
    pages = [page(1, 2, next_query={"after": 2}), page(3, next_query={"after": 3}), page()]
    async with asking(*pages, *pages[1:]) as (meterly, client):
        listed = [each async for each in client.pages(LIST)]
        continued = replace(LIST, query={**LIST.query, **(listed[0].next_query or {})})
        rest = [each async for each in client.pages(continued)]

    assert [each.objects for each in listed] == [(b"1", b"2"), (b"3",), ()]
    assert rest == listed[1:]
    first, *following = ["/bills?limit=2", "/bills?limit=2&after=2", "/bills?limit=2&after=3"]
    assert meterly.paths == [first, *following, *following]


async def test_a_list_refused_for_its_parameters_is_asked_for_once_without_those_that_are_optional() -> None:
    request = replace(LIST, optional={"show[]": ("lines", "payments")})
    refused = answer("400 Bad Request")
    async with asking(refused, page(1, next_query={"after": 1}), page(2)) as (meterly, client):
        listed = [each async for each in client.pages(request)]

    assert [each.objects for each in listed] == [(b"1",), (b"2",)]
    assert meterly.paths == [
        "/bills?limit=2&show%5B%5D=lines&show%5B%5D=payments",
        "/bills?limit=2",
        "/bills?limit=2&after=1",
    ]
    async with asking(refused, refused) as (_, client):
        with pytest.raises(Refused):
            await anext(client.pages(request))


ENDLESS = {
    "goes on, and gives nothing more": [page(next_query={})],
    "has more than 3 pages": [page(1, next_query={"after": number}) for number in range(3)],
    "can't be read: it has no shape that is known": [page(1, next_query={"after": 1}), answer("200 OK", [])],
}


@pytest.mark.parametrize(("said", "answers"), ENDLESS.items())
async def test_a_list_that_does_not_end_as_it_should_is_unavailable(said: str, answers: list[bytes]) -> None:
    async with asking(*answers) as (_, client):
        with pytest.raises(Unavailable, match=re.escape(said)):
            _ = [each async for each in client.pages(LIST, max_pages=3)]


# Settings


async def test_an_api_whose_settings_are_unset_is_named_with_them() -> None:
    with pytest.raises(NotConfigured, match=r"^DAYBOOK_STRIPE_API_KEY is unset$"):
        open_client(load(), stripe.PROCESSOR)
    with pytest.raises(NotConfigured, match="no API of standard"):
        open_client(load(), standard.PROCESSOR)


def test_a_key_that_no_header_can_hold_is_refused_without_being_named() -> None:
    values = {"meterly_api_key": f"{KEY}\n", "meterly_api_url": "http://meterly.test"}
    with pytest.raises(SettingsError, match=r"^a setting for Meterly's API has a character") as refused:
        ApiClient(API, values)
    assert KEY not in str(refused.value)


def test_an_address_that_is_none_is_named_by_its_setting() -> None:
    with pytest.raises(SettingsError, match=r"^DAYBOOK_METERLY_API_URL holds no URL$"):
        ApiClient(API, {"meterly_api_key": KEY, "meterly_api_url": "http://meterly:port"})
