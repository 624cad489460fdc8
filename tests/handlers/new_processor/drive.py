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

from handlers import meterly
from service.core.progress import no_advance
from service.intake.retranslate import Retranslator
from tests.support.modes import live
from tests.support.running import Clock, Daybook, running
from tests.support.senders import Sender
from tests.support.stores import new_data_dir

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


async def drive(directory: Path) -> None:
    first, second = new_data_dir(directory / "first"), new_data_dir(directory / "second")
    clock = Clock(NOW)
    async with running(first, clock, meterly_secrets=SECRET) as daybook:
        await webhooks(daybook)
        await figures(daybook)
        await texts(daybook)
        await retranslation(daybook)
        before = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
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
    read = meterly._bill
    meterly._bill = lambda payload: read(payload | {"cents": 2 * payload["cents"]})
    later = Clock(NOW + timedelta(minutes=1))
    report = await Retranslator(daybook.state.ledger, later, live, apply=True).run(0, no_advance)
    assert (report.changed, dict(report.left_out)) == (1, {}), report
    await daybook.catch_up()
    month = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
    assert month["summary"]["total_cents"] == 1000
    meterly._bill = read
    report = await Retranslator(daybook.state.ledger, later, live, apply=True).run(0, no_advance)
    assert report.changed == 1
    await daybook.catch_up()


def moved(first: Path, second: Path, file: Path) -> None:
    """The ledger of one Daybook comes into another."""
    for directory, *words in ((first, "export", "ledger", "-o"), (second, "import", "ledger")):
        command = [sys.executable, "-m", "service.cli", *words, str(file)]
        done = subprocess.run(
            command,
            env={**os.environ, "DAYBOOK_DATA_DIR": str(directory)},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


asyncio.run(drive(Path(sys.argv[1])))
