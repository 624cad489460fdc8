"""Drives a copy of Daybook with the made-up processor through every door; fails at the first surprise."""

import asyncio
import hmac
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from handlers import meterly
from service.core.progress import no_advance
from service.intake.retranslate import Retranslator
from service.sync.client import ApiClient, open_client
from service.sync.confirm import Confirmer
from service.sync.poll import Poller
from service.sync.reconcile.reconciler import reconcile
from service.sync.reconcile.report import ReconciliationReport
from service.sync.reconcile.session import Session
from tests.handlers.new_processor.server import KEY, MeterlyApi
from tests.support.running import Clock, Daybook, running
from tests.support.senders import Sender, unsigned
from tests.support.stores import new_data_dir
from tests.support.stripe_api import serve

SECRET = "the-seal-of-meterly-long-enough"
NOW = datetime(2025, 11, 13, 12, tzinfo=UTC)


def seal(body: bytes, _at: datetime, _message_id: str, secret: str) -> dict[str, str]:
    return {"X-Meterly-Seal": hmac.new(secret.encode(), body, sha256).hexdigest()}


def bill(key: str, cents: int, **more: Any) -> dict[str, Any]:
    base = {"id": f"m_{key}", "kind": "bill", "at": "2025-11-10T08:00:00+00:00", "bill": key}
    return base | {"customer": "c_1", "cents": cents} | more


METERLY = Sender(
    name="meterly",
    path="/webhooks/meterly",
    processor="meterly",
    secret=SECRET,
    sign=seal,
    event=bill,
    unused={},
    unreadable={},
)


BY_TOKEN = replace(METERLY, path=f"/webhooks/meterly/{SECRET}", sign=unsigned)


async def drive(directory: Path) -> None:
    first, second = new_data_dir(directory / "first"), new_data_dir(directory / "second")
    clock = Clock(NOW)
    with serve(MeterlyApi()) as api:
        asked = {"meterly_api_key": KEY, "meterly_api_url": api.url}
        async with running(first, clock, meterly_secrets=SECRET, **asked) as daybook:
            await webhooks(daybook)
            await figures(daybook)
            await texts(daybook)
            await retranslation(daybook)
            clock.now += timedelta(hours=1)
            client = open_client(daybook.state.settings, meterly.PROCESSOR)
            await polls(daybook, api, client)
            await confirmation(daybook, api, client)
            await reconciliation(daybook, api, client)
            await client.close()
            before = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
        command(first, "reconcile", "meterly", DAYBOOK_METERLY_API_KEY=KEY, DAYBOOK_METERLY_API_URL=api.url)
    moved(first, second, directory / "ledger.ndjson")
    async with running(second, clock, meterly_secrets=SECRET) as daybook:
        await daybook.catch_up()
        after = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
        assert after | {"meta": None} == before | {"meta": None}


async def webhooks(daybook: Daybook) -> None:
    """New, again, in conflict, unreadable, unused, and of somebody else."""
    answers = [
        (await daybook.post(METERLY, body)).json()
        for body in (
            bill("1", 500),
            bill("1", 500, attempt=2),
            bill("1", 700),
            {"id": "m_2", "kind": "bill"},
            {"id": "m_3", "kind": "weather", "at": "2025-11-10T08:00:00+00:00"},
            bill("4", 500, kind="receipt", receipt="r_4", bill="1"),
        )
    ]
    flags = [
        [name for name in ("duplicate", "conflict", "quarantined") if answer.get(name)] for answer in answers
    ]
    assert flags == [[], ["duplicate"], ["conflict"], ["quarantined"], [], []], answers
    assert (await daybook.post(METERLY, bill("5", 1), secret="another")).status_code == 400
    await daybook.catch_up()


async def figures(daybook: Daybook) -> None:
    """Its money is in the books, and explained down to bytes whose signature is checked again."""
    month = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
    assert month["summary"]["collected_cents"] == 500
    explained = await daybook.get(
        "/api/v1/explain", figure="month-detail/summary/collected_cents", year=2025, month=11
    )
    deliveries = [event["delivery"] for event in explained["events"]]
    assert [each["verified"] for each in deliveries] == [True], deliveries


async def texts(daybook: Daybook) -> None:
    """OpenAPI names its header, the metrics count it, and its silence is known."""
    described = (await daybook.http.get("/openapi.json")).json()["paths"]["/webhooks/meterly"]["post"]
    assert [each["name"] for each in described["parameters"]] == ["X-Meterly-Seal"]
    metrics = (await daybook.http.get("/metrics")).text
    assert 'daybook_deliveries_total{outcome="conflict",processor="meterly"} 1.0' in metrics
    assert 'daybook_seconds_since_heard{processor="meterly"}' in metrics
    assert (await daybook.http.get("/readyz")).json()["silent"] == []


async def retranslation(daybook: Daybook) -> None:
    """A corrected translation is found, and applied."""
    read = meterly._DATA["bill"]
    meterly._DATA["bill"] = lambda payload: read(payload | {"cents": 2 * payload["cents"]})
    later = Clock(NOW + timedelta(minutes=1))
    report = await Retranslator(daybook.state.ledger, later, daybook.state.settings, apply=True).run(
        0, no_advance
    )
    assert (report.changed, dict(report.left_out)) == (1, {}), report
    await daybook.catch_up()
    month = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
    assert month["summary"]["total_cents"] == 1000
    meterly._DATA["bill"] = read
    report = await Retranslator(daybook.state.ledger, later, daybook.state.settings, apply=True).run(
        0, no_advance
    )
    assert report.changed == 1
    await daybook.catch_up()


async def polls(daybook: Daybook, api: MeterlyApi, client: ApiClient) -> None:
    """Contracts are polled over all pages; only what changed is recorded, and what is missing has ended."""
    api.lists["contracts"] = [
        {"kind": "contract", "contract": f"k_{number}", "customer": "c_1", "status": "active", "cents": 1_000}
        for number in range(3)
    ]
    contracts = meterly.PROCESSOR.api.contracts
    poller = Poller(meterly.PROCESSOR, contracts, client, daybook.state.ledger, daybook.clock)
    assert [await poller.poll(), await poller.poll()] == [3, 0]
    assert await mrr_cents(daybook) == 3_000
    del api.lists["contracts"][0]
    daybook.clock.now += timedelta(minutes=5)
    assert [await poller.poll(), await poller.poll()] == [1, 0]
    assert await mrr_cents(daybook) == 2_000


async def mrr_cents(daybook: Daybook) -> int:
    await daybook.catch_up()
    return (await daybook.get("/api/v1/mrr"))["mrr_cents"]


async def confirmation(daybook: Daybook, api: MeterlyApi, client: ApiClient) -> None:
    """What came by token counts once its receipt confirms it, with the amount of the receipt."""
    body = bill("7", 700, kind="receipt", receipt="r_7", bill=None)
    assert (await daybook.post(BY_TOKEN, body)).status_code == 200
    confirmations = meterly.PROCESSOR.confirmations
    confirmer = Confirmer(meterly.PROCESSOR, confirmations, client, daybook.state.ledger, daybook.clock)
    api.receipts["r_7"] = {"settled": False, "cents": 750}
    assert (await confirmer.confirm(), await collected_cents(daybook)) == (0, 500)
    api.receipts["r_7"]["settled"] = True
    assert [await confirmer.confirm(), await confirmer.confirm()] == [1, 0]
    assert await collected_cents(daybook) == 1_250


async def collected_cents(daybook: Daybook) -> int:
    await daybook.catch_up()
    month = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
    return month["summary"]["collected_cents"]


async def reconciliation(daybook: Daybook, api: MeterlyApi, client: ApiClient) -> None:
    """What was missed is appended, and what differs is recorded as it is shown; what waits is left alone."""
    missed, waiting = bill("6", 900), {"id": "m_2", "kind": "bill"}
    api.lists["events"] = [
        {"created": int(NOW.timestamp()), "event": each} for each in (missed, waiting, bill("1", 500))
    ]
    api.lists["bills"] = [
        {name: value for name, value in bill(key, cents).items() if name != "id"}
        for key, cents in (("1", 800), ("6", 900), ("8", 300))
    ]
    daybook.clock.now += timedelta(minutes=5)

    async def run() -> ReconciliationReport:
        session = Session(
            processor=meterly.PROCESSOR,
            client=client,
            ledger=daybook.state.ledger,
            store=daybook.state.store,
            clock=daybook.clock,
            mode_of=daybook.state.settings.mode_of,
            pause=lambda _seconds: daybook.catch_up(),
        )
        return await reconcile(session, NOW - timedelta(days=30))

    first = await run()
    assert (first.listed, first.missed, first.compared) == (5, {"bill": 1}, {"bill": 3, "contract": 2}), first
    found = {(each.id, each.field, each.stated, each.books) for each in first.differences}
    assert found >= {("1", "amount_due_cents", 800, 500), ("8", "status", "open", None)}, found
    assert (first.mended, first.differing) == ({"bill": 2}, 0)
    again = await run()
    assert (again.missed, again.mended, again.differing) == ({}, {}, 0)
    text = (await daybook.http.get("/metrics")).text
    assert 'daybook_reconcile_differences{processor="meterly"} 0.0' in text
    report = await Retranslator(daybook.state.ledger, daybook.clock, daybook.state.settings).run(
        0, no_advance
    )
    assert not report.differs, report


def moved(first: Path, second: Path, file: Path) -> None:
    """The ledger of one Daybook comes into another."""
    command(first, "export", "ledger", "-o", str(file))
    command(second, "import", "ledger", str(file))


def command(directory: Path, *words: str, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", *words],
        env={**os.environ, "DAYBOOK_DATA_DIR": str(directory), **variables},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


asyncio.run(drive(Path(sys.argv[1])))
