"""What an operator sees of it: metrics, /readyz, the command, and the nightly run."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import time_machine
from typer.testing import CliRunner

from service.cli import app
from service.sync.reconcile.run import NightlyReconciliation, Reconciliation
from service.web.app import create_app
from service.worker.main import _reconcile_cron
from tests.support.stripe_api import KEY, StripeApi, refusal, subscription
from tests.support.sync_daybook import NOW, SECONDS, SyncDaybook

HOUR = 3_600


@pytest.fixture
async def http(daybook: SyncDaybook) -> AsyncIterator[httpx.AsyncClient]:
    web = create_app(daybook.settings, daybook.clock)
    async with web.router.lifespan_context(web) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await web({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield http


async def test_the_last_reconciliation_is_measured(
    daybook: SyncDaybook, api: StripeApi, http: httpx.AsyncClient
) -> None:
    told = api.shop.happens("customer.subscription.created", subscription(1), SECONDS - 2 * HOUR)
    await daybook.deliver(told)
    api.shop.happens("customer.subscription.created", subscription(2), SECONDS - HOUR)
    api.shop.objects["sub_1"]["customer"] = "cus_other"
    del api.shop.objects["sub_2"]
    before = (await http.get("/metrics")).text

    await daybook.reconcile(api)
    daybook.now += timedelta(seconds=90)
    text = (await http.get("/metrics")).text

    assert 'daybook_seconds_since_reconciled{processor="stripe"}' not in before
    assert 'daybook_seconds_since_reconciled{processor="stripe"} 90.0' in text
    assert 'daybook_reconcile_differences{processor="stripe"} 1.0' in text
    assert 'daybook_reconcile_missed_events{processor="stripe"} 1.0' in text
    assert 'daybook_reconcile_mended_objects{processor="stripe"} 1.0' in text


async def test_silence_is_reported_and_is_no_reason_to_be_unready(
    daybook: SyncDaybook, http: httpx.AsyncClient
) -> None:
    for days in range(10, 0, -1):
        daybook.now = NOW - timedelta(days=days)
        await daybook.deliver(
            {**json.loads(json.dumps(EVENT)), "id": f"evt_{days}", "created": int(daybook.now.timestamp())}
        )
    daybook.now = NOW

    heard = (await http.get("/readyz")).json()["silent"]
    daybook.now = NOW + timedelta(hours=13)
    answer = await http.get("/readyz")
    text = (await http.get("/metrics")).text

    assert heard == []
    assert answer.status_code == 200
    assert answer.json()["silent"] == [
        {
            "processor": "stripe",
            "last_event_at": "2025-10-04T03:17:00Z",
            "usual_gap_seconds": 86_400,
            "silent_seconds": 133_200,
        }
    ]
    assert 'daybook_silence_limit_seconds{processor="stripe"} 129600.0' in text
    assert 'daybook_seconds_since_heard{processor="stripe"} 133200.0' in text


EVENT = {"id": "evt_1", "type": "ping", "created": SECONDS, "data": {"object": {}}}


# The command


@pytest.fixture
def run(daybook: SyncDaybook, api: StripeApi, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr("service.sync.reconcile.objects._SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("service.logs.configure", lambda *_: None)  # it would keep this run's standard error
    monkeypatch.setenv("DAYBOOK_DATA_DIR", str(daybook.settings.data_dir))
    monkeypatch.setenv("DAYBOOK_STRIPE_API_KEY", KEY)
    monkeypatch.setenv("DAYBOOK_STRIPE_API_URL", api.url)

    async def invoke(*arguments: str) -> Any:
        with time_machine.travel(NOW, tick=True):
            return await asyncio.to_thread(CliRunner().invoke, app, ["reconcile", *arguments])

    return invoke


async def test_the_command_says_what_differs_and_ends_with_1(
    daybook: SyncDaybook, api: StripeApi, run: Callable[..., Any]
) -> None:
    told = api.shop.happens("customer.subscription.created", subscription(1), SECONDS - HOUR)
    await daybook.deliver(told)
    same = await run("stripe", "--since", "2d")
    api.shop.objects["sub_1"]["customer"] = "cus_other"

    found = await run("stripe", "--dry-run", "--json")
    for_people = await run("stripe", "--dry-run")
    mended = asyncio.create_task(run("stripe"))
    while not mended.done():  # a worker keeps the books meanwhile
        await daybook.catch_up()
        await asyncio.wait({mended}, timeout=0.05)

    assert (same.exit_code, same.stdout.strip()) == (
        0,
        "stripe: 1 listed; appended: nothing. "
        "Compared: subscriptions 1, invoices 0; mended: nothing; 0 differ.",
    )
    assert found.exit_code == for_people.exit_code == 1
    report = json.loads(found.stdout)
    [difference] = report.pop("differences")
    assert difference == {
        "kind": "subscription",
        "id": "sub_1",
        "account": "",
        "field": "customer",
        "stripe": "cus_other",
        "books": "cus_1",
        "mended": False,
    }
    assert report.pop("finished_at") > report.pop("began_at")
    assert "2025-09-05T03:17" <= report.pop("since") < "2025-09-05T04:17"  # the clock goes on meanwhile
    assert report == {
        "processor": "stripe",
        "dry_run": True,
        "listed": 1,
        "missed": {},
        "mended": {},
        "compared": {"subscription": 1, "invoice": 0},
        "differing": 1,
    }
    assert "cus_other" in for_people.stdout
    assert mended.result().exit_code == 0
    assert "mended: 1 subscription; 0 differ." in mended.result().stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "said"),
    [
        (("stripe",), {"DAYBOOK_STRIPE_API_KEY": ""}, 2, "DAYBOOK_STRIPE_API_KEY is unset"),
        (("stripe", "--since", "soon"), {}, 2, "--since: a number of days or hours, such as 30d or 12h"),
        (("stripe",), {}, 3, "Stripe answered 401 to /v1/events"),
        (("mxmerchant",), {}, 2, "DAYBOOK_MXMERCHANT_"),
        (("mxmerchant", "--since", "2d"), {}, 2, "--since: the API of mxmerchant lists no events"),
        (("standard",), {}, 2, "PROCESSOR: stripe or mxmerchant"),
    ],
)
async def test_a_command_that_can_not_reconcile_says_why_in_one_line(
    api: StripeApi,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    code: int,
    said: str,
) -> None:
    api.faults = [lambda _: refusal(401)]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    ended = await run(*arguments)

    assert ended.exit_code == code
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert KEY not in ended.output


# Every night


async def test_the_nightly_job_reconciles_from_a_day_before_the_last_one(
    daybook: SyncDaybook, api: StripeApi
) -> None:
    settings = daybook.settings.model_copy(update={"stripe_api_key": KEY, "stripe_api_url": api.url})
    nightly = NightlyReconciliation(
        settings, Reconciliation(settings, daybook.ledger, daybook.store, daybook.clock)
    )
    job = _reconcile_cron(nightly)
    nights = []
    for _ in range(2):
        await job.coroutine({})  # type: ignore[call-arg]
        await job.coroutine({})  # type: ignore[call-arg]
        assert nightly._task
        await nightly._task
        nights.append(next(query for path, query in reversed(api.asked) if path == "/v1/events"))
        daybook.now += timedelta(days=1)
    await nightly.close()

    assert (job.hour, job.minute, job.unique) == ({3}, {17}, True)
    assert nightly.has_work
    assert [datetime.fromtimestamp(int(night["created[gte]"]), NOW.tzinfo) for night in nights] == [
        NOW - timedelta(days=30),
        NOW - timedelta(days=1),
    ]
    assert [path for path, _ in api.asked].count("/v1/events") == 2


async def test_without_an_api_there_is_nothing_to_do_at_night(daybook: SyncDaybook) -> None:
    reconciliation = Reconciliation(daybook.settings, daybook.ledger, daybook.store, daybook.clock)

    assert not NightlyReconciliation(daybook.settings, reconciliation).has_work
