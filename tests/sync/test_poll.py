"""Polls and confirmations against a stand-in of MX Merchant's API: what changed is appended, once."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvicorn
from msgspec import json
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from handlers import mxmerchant
from service.books.engine import Engine
from service.bootstrap import open_books, prepare
from service.core.errors import Unavailable
from service.core.progress import no_advance
from service.intake.retranslate import Retranslator
from service.ledger import master_key
from service.ledger.draft import Incoming, Outcome
from service.ledger.store import Ledger
from service.maintenance.erasure import make_erasure_event
from service.settings import Settings, load
from service.storage.database import SqliteDatabase, ledger_path
from service.sync.client import ApiClient, open_client
from service.sync.confirm import Confirmer
from service.sync.poll import Poller
from tests.support.paths import FIXTURES
from tests.support.temporary_books import incoming

RECORDS = FIXTURES / "mxmerchant" / "contracts.json"
MERCHANT = "1000000001"
KEY, SECRET = "the-consumer-key", "of-the-consumer"


def approved(number: int, amount: str = "11.11") -> dict:
    """A payment as the API answers it."""
    created = "2025-11-12T18:21:00Z"
    return {"id": number, "merchantId": MERCHANT, "amount": amount, "status": "Approved", "created": created}


class StandIn:
    """What the processor would answer; tests change it."""

    def __init__(self, records: list[dict]) -> None:
        self.records = records
        self.payments: dict[str, dict] = {}
        self.refusals: dict[str, Response] = {}
        self.asked: set[str] = set()
        self.missing, self.page = 0, 5
        self.authorizations: set[str | None] = set()
        self.app = Starlette(
            routes=[
                Route("/checkout/v3/contract", self.contracts),
                Route("/checkout/v3/payment/{id}", self.payment),
            ]
        )

    async def contracts(self, request: Request) -> Response:
        self.authorizations.add(request.headers.get("Authorization"))
        limit, offset = int(request.query_params["limit"]), int(request.query_params["offset"])
        assert request.query_params["merchantId"] == MERCHANT
        page = self.records[offset : offset + min(limit, self.page)]
        return JSONResponse({"recordCount": len(self.records) + self.missing, "records": page})

    async def payment(self, request: Request) -> Response:
        self.authorizations.add(request.headers.get("Authorization"))
        self.asked.add(request.path_params["id"])
        if refusal := self.refusals.get(request.path_params["id"]):
            return refusal
        found = self.payments.get(request.path_params["id"])
        return JSONResponse(found) if found else JSONResponse({}, 404)


class CountingLedger(Ledger):
    """A ledger that remembers how many deliveries each transaction held."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(SqliteDatabase(ledger_path(data_dir)), master_key.open_vault(load()))
        self.batches: list[int] = []

    async def append(self, batch: Sequence[Incoming], now: datetime) -> list[Outcome]:
        self.batches.append(len(batch))
        return await super().append(batch, now)


class Clock:
    now = datetime(2025, 11, 13, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Polled:
    """A ledger, and the stand-in that is asked for it."""

    def __init__(
        self, settings: Settings, stand_in: StandIn, ledger: CountingLedger, client: ApiClient
    ) -> None:
        self.settings, self.stand_in, self.ledger, self._client = settings, stand_in, ledger, client

    async def poll(self, clock: Callable[[], datetime] | None = None) -> int:
        contracts = self._client.api.contracts
        assert contracts
        processor = mxmerchant.PROCESSOR
        return await Poller(processor, contracts, self._client, self.ledger, clock or Clock()).poll()

    async def confirm(self) -> int:
        processor = mxmerchant.PROCESSOR
        assert processor.confirmations
        return await Confirmer(
            processor, processor.confirmations, self._client, self.ledger, Clock()
        ).confirm()

    async def events(self) -> list[dict]:
        async with self.ledger.reading() as reader:
            return await reader.rows(0, 1_000)

    async def notify(self, number: int, amount: str, kind: str = "PaymentSuccess") -> None:
        """An unsigned notification by URL token, as the web process would keep it."""
        body = {"eventType": kind, "merchantId": MERCHANT, "id": number, "totalAmount": amount}
        proof = mxmerchant.verify_token({":token": "t"}, b"", ["t"], Clock.now)
        payload = {**body, "transactionDate": "Nov 12 2025 6:21PM"}
        events = mxmerchant.translate(payload, replace(proof, confirmable=True))
        incoming = Incoming(
            events=events, content_digest=b"", headers=b"{}", body=json.encode(body), proof=proof
        )
        await self.ledger.append([incoming], Clock.now)

    async def collected(self) -> int:
        store = open_books(self.settings)
        await store.register()
        await Engine(self.ledger, store, Clock.now.astimezone).catch_up()
        async with store.reading() as connection:
            rows = await connection.exec_driver_sql("SELECT coalesce(sum(collected_cents), 0) FROM cash_days")
            total = int(rows.scalar_one())
        await store.close()
        return total


@pytest.fixture
async def polled(tmp_path: Path) -> AsyncIterator[Polled]:
    stand_in = StandIn(json.decode(RECORDS.read_bytes())["records"])
    listening = socket.create_server(("127.0.0.1", 0))  # from here on connections wait to be answered
    server = uvicorn.Server(uvicorn.Config(stand_in.app, log_level="error"))
    serving = asyncio.create_task(server.serve([listening]))
    settings = load(
        data_dir=tmp_path,
        mxmerchant_api_url=f"http://127.0.0.1:{listening.getsockname()[1]}",
        mxmerchant_consumer_key=KEY,
        mxmerchant_consumer_secret=SECRET,
        mxmerchant_merchant_id=MERCHANT,
    )
    prepare(settings)
    ledger = CountingLedger(tmp_path)
    client = open_client(settings, mxmerchant.PROCESSOR)
    yield Polled(settings, stand_in, ledger, client)
    await client.close()
    await ledger.close()
    server.should_exit = True
    await serving


async def test_a_first_poll_appends_every_contract_and_a_second_nothing(polled: Polled) -> None:
    assert await polled.poll() == 14
    first = await polled.events()

    assert await polled.poll() == 0
    assert await polled.events() == first
    assert {row["trust"] for row in first} == {"fetched"}


async def test_only_what_changed_is_appended(polled: Polled, monkeypatch) -> None:
    await polled.poll()
    before = len(await polled.events())
    monkeypatch.setattr(Clock, "now", Clock.now + timedelta(minutes=5))

    polled.stand_in.records[0] |= {"amount": "600", "grandTotalAmount": "1.00"}
    polled.stand_in.records[1] |= {"grandTotalAmount": "1.00"}

    assert await polled.poll() == 1
    (change,) = (await polled.events())[before:]
    assert (change["type"], json.decode(change["data"])["items"][0]["unit_amount"]) == (
        "subscription.recorded",
        "60000",
    )


async def test_a_poll_appends_nothing_of_an_erased_customer(polled: Polled) -> None:
    await polled.poll()
    row = next(row for row in await polled.events() if row["type"] == "customer.recorded")
    customer = json.decode(row["data"])["customer_id"]
    erased = await make_erasure_event(polled.ledger, customer, None, None, Clock.now)
    await polled.ledger.append([incoming(erased)], Clock.now)

    assert await polled.poll() == 0


async def test_a_contract_that_the_whole_list_no_longer_holds_has_ended(polled: Polled, monkeypatch) -> None:
    # given a list in which one is missing, and later is there again
    await polled.poll()
    before = len(await polled.events())
    missing = polled.stand_in.records.pop(0)
    for minutes in (5, 10):
        monkeypatch.setattr(Clock, "now", Clock.now + timedelta(minutes=minutes))
        await polled.poll()
    polled.stand_in.records.append(missing)
    monkeypatch.setattr(Clock, "now", Clock.now + timedelta(minutes=5))
    await polled.poll()

    # then it ended once, when that was seen, and came back
    ended, back = (await polled.events())[before:]
    states = [json.decode(row["data"]) for row in (ended, back)]
    assert [(state["subscription_id"], state["status"]) for state in states] == [
        (str(missing["id"]), "deleted"),
        (str(missing["id"]), "active"),
    ]
    assert back["occurred_at_us"] - ended["occurred_at_us"] == 15 * 60_000_000
    run = Retranslator(polled.ledger, Clock(), polled.settings)
    assert (await run.run(0, no_advance)).changes == []


async def test_an_empty_list_ends_no_contract(polled: Polled, monkeypatch) -> None:
    await polled.poll()
    polled.stand_in.records.clear()
    monkeypatch.setattr(Clock, "now", Clock.now + timedelta(minutes=5))

    assert await polled.poll() == 0


async def test_a_contract_that_is_heard_of_while_the_list_is_read_has_not_ended(
    polled: Polled,
) -> None:
    """It may be younger than the list."""
    await polled.poll()
    polled.stand_in.records.pop(0)
    heard = Clock.now

    def clock() -> datetime:
        return heard

    assert await polled.poll(clock) == 0
    heard += timedelta(seconds=1)
    assert await polled.poll(clock) == 1


@pytest.mark.parametrize(
    ("missing", "said"), [(1, "after 14 of 15 records"), (-1, "listed 14 of 13 contracts")]
)
async def test_a_list_that_cannot_be_had_whole_appends_nothing(
    polled: Polled, missing: int, said: str
) -> None:
    polled.stand_in.missing = missing

    with pytest.raises(Unavailable, match=said):
        await polled.poll()

    assert await polled.events() == []


async def test_a_record_that_cannot_be_read_does_not_keep_out_the_others(polled: Polled) -> None:
    polled.stand_in.records[0] |= {"every": "Sometimes"}

    await polled.poll()

    async with polled.ledger.reading() as reader:
        assert await reader.count_quarantined() == {("mxmerchant", "unreadable"): 1}
    assert sum(row["type"] == "subscription.recorded" for row in await polled.events()) == 13


async def test_an_unsigned_notification_counts_once_a_fetch_confirms_it(polled: Polled) -> None:
    await polled.notify(1, "11.11")
    await polled.notify(2, "22.22")
    assert await polled.collected() == 0

    polled.stand_in.payments["1"] = approved(1)

    assert await polled.confirm() == 1
    assert await polled.collected() == 1_111
    assert await polled.confirm() == 0


async def test_a_payment_that_has_not_settled_is_asked_for_again(polled: Polled) -> None:
    await polled.notify(1, "11.11")
    payment = {"id": 1, "merchantId": MERCHANT, "amount": "11.11", "status": "Pending"}
    polled.stand_in.payments["1"] = payment
    assert await polled.confirm() == 0

    payment["status"] = "Settled"

    assert await polled.confirm() == 1
    assert await polled.collected() == 1_111


REFUSALS = {
    "forbidden": Response(status_code=403),
    "bad request": Response(status_code=400),
    "no JSON": Response("<html>"),
    "another shape": JSONResponse([]),
    "another's": JSONResponse(approved(5)),
    "of no meaning": JSONResponse({"id": 2}),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_a_payment_that_is_refused_does_not_keep_out_the_others(
    polled: Polled, refusal: Response
) -> None:
    for number in (1, 2, 3):
        await polled.notify(number, "11.11")
        polled.stand_in.payments[str(number)] = approved(number)
    polled.stand_in.refusals["2"] = refusal

    assert await polled.confirm() == 2
    assert await polled.collected() == 2_222


@pytest.mark.parametrize("status", [429, 501, 503])
async def test_an_api_that_is_away_ends_the_round(polled: Polled, status: int) -> None:
    busy = Response(status_code=status, headers={"Retry-After": "0"})
    for number in (1, 2, 3):
        await polled.notify(number, "11.11")
        polled.stand_in.refusals[str(number)] = busy

    with pytest.raises(Unavailable, match=str(status)):
        await polled.confirm()

    assert len(polled.stand_in.asked) == 1


async def test_a_refund_is_asked_for_by_its_own_id(polled: Polled) -> None:
    await polled.notify(7, "-11.11", "RefundCreated")
    polled.stand_in.payments["7"] = approved(7, "-11.11")

    assert await polled.confirm() == 1
    assert polled.stand_in.asked == {"7"}


async def test_many_changes_are_appended_in_several_transactions(polled: Polled) -> None:
    # given more contracts than one transaction takes
    first = polled.stand_in.records[0]
    polled.stand_in.records = [first | {"id": number} for number in range(1, 601)]
    polled.stand_in.page = 100

    # when they are polled
    assert await polled.poll() == 600

    # then webhooks have their turn between two transactions, and nothing is lost
    assert polled.ledger.batches == [256, 256, 88]
    assert sum(row["type"] == "subscription.recorded" for row in await polled.events()) == 600
    assert await polled.poll() == 0


async def test_the_credentials_are_sent_and_never_kept(polled: Polled) -> None:
    await polled.notify(1, "11.11")
    polled.stand_in.payments["1"] = approved(1)

    await polled.poll()
    await polled.confirm()

    credentials = base64.b64encode(f"{KEY}:{SECRET}".encode())
    assert polled.stand_in.authorizations == {f"Basic {credentials.decode()}"}
    for position in {row["delivery"] for row in await polled.events()}:
        async with polled.ledger.reading() as reader:
            raw = await reader.delivery(position)
        kept = raw["headers"] + raw["body"] + raw["proof"]
        assert not any(part in kept for part in (KEY.encode(), SECRET.encode(), credentials))
