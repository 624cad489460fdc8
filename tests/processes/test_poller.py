"""The poller against a stand-in of MX Merchant's API on loopback: what changed is appended, once."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import uvicorn
from msgspec import json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from handlers import mxmerchant
from projections.book import Rules
from service.books.engine import Engine
from service.books.store import BookStore
from service.core.errors import Unavailable
from service.ledger.store import Ledger
from service.poller import Poller
from service.prepare import prepare
from service.settings import Settings, load
from tests.processes.daybook import free_port

RECORDS = Path(__file__).parents[1] / "fixtures" / "mxmerchant" / "contracts.json"
MERCHANT = "1000000001"


class StandIn:
    """What the processor would answer; tests change it."""

    def __init__(self, records: list[dict]) -> None:
        self.records = records
        self.payments: dict[str, dict] = {}
        self.missing = 0
        self.app = Starlette(
            routes=[
                Route("/checkout/v3/contract", self.contracts),
                Route("/checkout/v3/payment/{id}", self.payment),
            ]
        )

    async def contracts(self, request: Request) -> Response:
        limit, offset = int(request.query_params["limit"]), int(request.query_params["offset"])
        assert request.query_params["merchantId"] == MERCHANT
        page = self.records[offset : offset + min(limit, 5)]
        return JSONResponse({"recordCount": len(self.records) + self.missing, "records": page})

    async def payment(self, request: Request) -> Response:
        found = self.payments.get(request.path_params["id"])
        return JSONResponse(found) if found else JSONResponse({}, 404)


class Clock:
    now = datetime(2025, 11, 13, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Polled:
    """A ledger, its poller, and the stand-in that it asks."""

    def __init__(self, settings: Settings, stand_in: StandIn, ledger: Ledger, poller: Poller) -> None:
        self.settings, self.stand_in, self.ledger, self.poller = settings, stand_in, ledger, poller

    async def events(self) -> list[dict]:
        async with self.ledger.reading() as reader:
            return await reader.rows(0, 1_000)

    async def notify(self, number: int, amount: str, kind: str = "PaymentSuccess") -> None:
        """An unsigned notification by URL token, as the web process would keep it."""
        from service.ledger.draft import Incoming

        body = {"eventType": kind, "merchantId": MERCHANT, "id": number, "totalAmount": amount}
        proof = mxmerchant.verify_token({":token": "t"}, b"", ["t"], Clock.now)
        proof = type(proof)(
            **{**{f: getattr(proof, f) for f in proof.__struct_fields__}, "confirmable": True}
        )
        events = mxmerchant.translate({**body, "transactionDate": "Nov 12 2025 6:21PM"}, proof)
        incoming = Incoming(
            events=events, content_digest=b"", headers=b"{}", body=json.encode(body), proof=proof
        )
        await self.ledger.append([incoming], Clock.now)

    async def collected(self) -> int:
        store = BookStore(self.settings.data_dir, Rules())
        await store.register()
        await Engine(self.ledger, store, Clock.now.astimezone).catch_up()
        async with store.reading() as connection:
            rows = await connection.exec_driver_sql("SELECT coalesce(sum(collected_cents), 0) FROM cash_days")
            total = int(rows.scalar_one())
        await store.close()
        return total


@pytest.fixture
async def polled(tmp_path: Path) -> AsyncIterator[Polled]:
    stand_in, port = StandIn(json.decode(RECORDS.read_bytes())["records"]), free_port()
    server = uvicorn.Server(uvicorn.Config(stand_in.app, port=port, log_level="error"))
    import asyncio

    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    settings = load(
        data_dir=tmp_path,
        mxmerchant_api_url=f"http://127.0.0.1:{port}",
        mxmerchant_consumer_key="key",
        mxmerchant_consumer_secret="secret",
        mxmerchant_merchant_id=MERCHANT,
    )
    prepare(settings)
    ledger = Ledger(tmp_path)
    poller = Poller(settings, ledger, Clock())
    yield Polled(settings, stand_in, ledger, poller)
    await poller.close()
    await ledger.close()
    server.should_exit = True
    await serving


async def test_a_first_poll_appends_every_contract_and_a_second_nothing(polled: Polled) -> None:
    assert await polled.poller.contracts() == 14
    first = await polled.events()

    assert await polled.poller.contracts() == 0
    assert await polled.events() == first
    assert {row["trust"] for row in first} == {"fetched"}


async def test_only_what_changed_is_appended(polled: Polled, monkeypatch) -> None:
    await polled.poller.contracts()
    before = len(await polled.events())
    monkeypatch.setattr(Clock, "now", Clock.now + timedelta(minutes=5))

    polled.stand_in.records[0] |= {"amount": "600", "grandTotalAmount": "1.00"}
    polled.stand_in.records[1] |= {"grandTotalAmount": "1.00"}

    assert await polled.poller.contracts() == 1
    (change,) = (await polled.events())[before:]
    assert (change["type"], json.decode(change["data"])["items"][0]["unit_amount"]) == (
        "subscription.recorded",
        "60000",
    )


async def test_a_list_that_cannot_be_had_whole_appends_nothing(polled: Polled) -> None:
    polled.stand_in.missing = 1

    with pytest.raises(Unavailable):
        await polled.poller.contracts()

    assert await polled.events() == []


async def test_a_record_that_cannot_be_read_does_not_keep_out_the_others(polled: Polled) -> None:
    polled.stand_in.records[0] |= {"every": "Sometimes"}

    await polled.poller.contracts()

    async with polled.ledger.reading() as reader:
        assert await reader.quarantined() == {("mxmerchant", "unreadable"): 1}
    assert sum(row["type"] == "subscription.recorded" for row in await polled.events()) == 13


async def test_an_unsigned_notification_counts_once_a_fetch_confirms_it(polled: Polled) -> None:
    await polled.notify(1, "11.11")
    await polled.notify(2, "22.22")
    assert await polled.collected() == 0

    polled.stand_in.payments["1"] = {
        "id": 1, "merchantId": MERCHANT, "amount": "11.11", "status": "Approved", "created": "2025-11-12T18:21:00Z",
    }  # fmt: skip

    assert await polled.poller.confirmations() == 1
    assert await polled.collected() == 1_111
    assert await polled.poller.confirmations() == 0


async def test_a_payment_that_has_not_settled_is_asked_for_again(polled: Polled) -> None:
    await polled.notify(1, "11.11")
    payment = {"id": 1, "merchantId": MERCHANT, "amount": "11.11", "status": "Pending"}
    polled.stand_in.payments["1"] = payment
    assert await polled.poller.confirmations() == 0

    payment["status"] = "Settled"

    assert await polled.poller.confirmations() == 1
    assert await polled.collected() == 1_111


async def test_the_credentials_are_sent_and_never_kept(polled: Polled) -> None:
    await polled.poller.contracts()

    assert polled.poller._client.auth is not None
    assert isinstance(polled.poller._client, httpx.AsyncClient)
    async with polled.ledger.reading() as reader:
        raw = await reader.delivery(1)
    assert b"secret" not in raw["headers"] + raw["body"] + raw["proof"]
