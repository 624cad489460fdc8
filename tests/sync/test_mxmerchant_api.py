"""The client of MX Merchant's API: pages, tries, and answers that are no lists."""

import asyncio
import base64
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.core.errors import Unavailable, Unreadable
from service.sync.mxmerchant_api import fetch_contracts, fetch_payment, make_client
from tests.support.paths import FIXTURES

MERCHANT = "1000000001"
CONTRACTS = json.loads((FIXTURES / "mxmerchant/contracts.json").read_text())["records"]
PAYMENT = json.loads((FIXTURES / "mxmerchant/payment.json").read_text())

Answer = Callable[[Request], Response]


class StandIn:
    """MX Merchant as far as Daybook asks it: basic auth, pages, and troubles that are told beforehand."""

    def __init__(self, *troubles: Response, page: int = 5, count: int = len(CONTRACTS)) -> None:
        self.troubles = list(troubles)
        self.page, self.count = page, count
        self.requests: list[Request] = []
        self.app = Starlette(
            routes=[
                Route("/checkout/v3/contract", self._guarded(self._contracts)),
                Route("/checkout/v3/payment/{id}", self._guarded(self._payment)),
            ]
        )

    def _guarded(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            self.requests.append(request)
            if self.troubles:
                return self.troubles.pop(0)
            expected = base64.b64encode(b"the-key:the-secret").decode()
            if request.headers.get("Authorization") != f"Basic {expected}":
                return Response(status_code=401)
            return answer(request)

        return guarded

    def _contracts(self, request: Request) -> Response:
        query = request.query_params
        assert query["merchantId"] == MERCHANT
        start = int(query["offset"])
        records = CONTRACTS[start : start + min(self.page, int(query["limit"]))]
        return JSONResponse({"recordCount": self.count, "records": records})

    def _payment(self, request: Request) -> Response:
        found = request.path_params["id"] == str(PAYMENT["id"])
        return JSONResponse(PAYMENT) if found else Response(status_code=404)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://mx.test", auth=("the-key", "the-secret")
        )


class Pauses(list[float]):
    """The waits that were asked for, none of them waited."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


async def test_contracts_are_paged_to_the_end() -> None:
    api = StandIn()

    async with api.client() as client:
        assert await fetch_contracts(client, MERCHANT) == CONTRACTS

    assert [request.query_params["offset"] for request in api.requests] == ["0", "5", "10"]


async def test_a_merchant_without_contracts_has_none() -> None:
    async with StandIn(page=0, count=0).client() as client:
        assert await fetch_contracts(client, MERCHANT) == []


@pytest.mark.parametrize("count", [len(CONTRACTS) + 1, len(CONTRACTS) - 1])
async def test_an_incomplete_list_is_refused(count: int) -> None:
    async with StandIn(count=count, page=7).client() as client:
        with pytest.raises(Unavailable, match=rf"14 of {count} contracts"):
            await fetch_contracts(client, MERCHANT)


async def test_a_busy_api_is_asked_again_after_the_time_it_states() -> None:
    api = StandIn(
        Response(status_code=429, headers={"Retry-After": "0"}),
        Response(status_code=500),
        Response(status_code=503, headers={"Retry-After": "86400"}),
    )
    pauses = Pauses()

    async with api.client() as client:
        assert len(await fetch_contracts(client, MERCHANT, pause=pauses)) == len(CONTRACTS)

    assert pauses == [0, 0.4, 10]


async def test_an_api_that_stays_away_is_unavailable() -> None:
    api, pauses = StandIn(*[Response(status_code=502)] * 9), Pauses()

    async with api.client() as client:
        with pytest.raises(Unavailable, match="502, 4 times"):
            await fetch_payment(client, "1", pause=pauses)

    assert (len(api.requests), len(pauses)) == (4, 3)


@pytest.mark.parametrize(
    "trouble",
    [
        Response(status_code=401),
        Response(status_code=302, headers={"Location": "/elsewhere"}),
        Response("<html>", media_type="text/html"),
        Response(b"\xff"),
    ],
)
async def test_a_malformed_answer_is_unavailable(trouble: Response) -> None:
    async with StandIn(trouble).client() as client:
        with pytest.raises(Unavailable):
            await fetch_contracts(client, MERCHANT)


async def test_a_page_of_another_shape_is_unreadable() -> None:
    async with StandIn(JSONResponse({"records": []})).client() as client:
        with pytest.raises(Unreadable, match="recordCount"):
            await fetch_contracts(client, MERCHANT)


async def test_a_payment_is_fetched_by_its_id() -> None:
    async with StandIn().client() as client:
        assert await fetch_payment(client, "22343388") == PAYMENT
        assert await fetch_payment(client, "5") is None


@pytest.mark.parametrize("trouble", [Response(status_code=403), Response("<html>"), JSONResponse([])])
async def test_a_payment_that_is_refused_is_unreadable_and_not_the_api_unavailable(trouble: Response) -> None:
    async with StandIn(trouble).client() as client:
        with pytest.raises(Unreadable):
            await fetch_payment(client, "5")


@pytest.mark.parametrize("payment_id", ["", "..", "../contract", "5?echo=true", "5/void", "a b"])
async def test_an_id_names_no_other_path(payment_id: str) -> None:
    api = StandIn()

    async with api.client() as client:
        assert await fetch_payment(client, payment_id) is None

    assert api.requests == []


@asynccontextmanager
async def unsteady_server(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server on a socket that gives each connection its answer; an empty one is a reset."""
    left, requests = list(answers), []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        answer = left.pop(0)
        if answer:
            writer.write(answer)
            await writer.drain()
        else:
            lingering: socket.socket = writer.get_extra_info("socket")
            lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests


def http(status: str, body: Any = None, *headers: str) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


async def test_a_reset_connection_is_tried_again_over_a_real_socket() -> None:
    # given a server that resets, is busy and fails before it answers
    whole = {"recordCount": len(CONTRACTS), "records": CONTRACTS}
    answers = [
        b"",
        http("429 Too Many Requests", None, "Retry-After: 0"),
        http("500 Oops"),
        http("200 OK", whole),
    ]

    # when it is polled
    async with unsteady_server(*answers) as (url, requests), make_client(url, "k", "s") as client:
        records = await fetch_contracts(client, MERCHANT, pause=Pauses())

    # then all contracts are had, and each request was authorised
    assert records == CONTRACTS
    assert len(requests) == len(answers)
    assert all(b"Authorization: Basic azpz\r\n" in request for request in requests)


async def test_nobody_listening_is_unavailable_and_tells_no_secret() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with make_client(url, "the-key", "the-secret") as client:
            with pytest.raises(Unavailable, match="ConnectError, 4 times") as caught:
                await fetch_payment(client, "1", pause=Pauses())

    assert "the-secret" not in repr(caught.value)
