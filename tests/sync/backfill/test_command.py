"""What an operator sees of a backfill: the command, and the line that names it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from structlog.testing import capture_logs
from typer.testing import CliRunner

from service import bootstrap
from service.cli import app
from service.commands import web
from tests.support.stripe_api import KEY, Shop, StripeApi
from tests.support.stripe_world import StripeWorld, at
from tests.support.sync_daybook import NOW, SyncDaybook

Run = Callable[..., Any]


@pytest.fixture
def run(daybook: SyncDaybook, api: StripeApi, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("service.logs.configure", lambda *_: None)  # it would keep this run's standard error
    monkeypatch.setenv("DAYBOOK_DATA_DIR", str(daybook.settings.data_dir))
    monkeypatch.setenv("DAYBOOK_STRIPE_API_KEY", KEY)
    monkeypatch.setenv("DAYBOOK_STRIPE_API_URL", api.url)
    if daybook.settings.database_url:
        monkeypatch.setenv("DAYBOOK_DATABASE_URL", daybook.settings.database_url)

    async def invoke(*arguments: str) -> Any:
        with time_machine.travel(NOW, tick=True):
            return await asyncio.to_thread(CliRunner().invoke, app, ["backfill", *arguments])

    return invoke


async def test_without_a_name_each_processor_is_read_whose_api_is_set_up(
    daybook: SyncDaybook, api: StripeApi, run: Run
) -> None:
    StripeWorld(api.shop).customer(at(0))

    result = await run("--json")

    [report] = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (report["processor"], report["account"], report["dry_run"]) == ("stripe", "", False)
    assert report["lists"][0] == {
        "name": "customers",
        "figures": "names of customers, and discounts off all their contracts",
        "listed": 1,
        "recorded": 1,
        "quarantined": 0,
        "refused": None,
    }
    assert len(await daybook.event_ids()) == 1


async def test_what_may_not_be_read_is_named_with_its_figures_and_ends_with_1(
    daybook: SyncDaybook, api: StripeApi, run: Run
) -> None:
    api.refused = {"disputes": 403}

    result = await run("stripe", "--dry-run")

    assert result.exit_code == 1
    assert "would be recorded" in result.stdout
    assert (
        "stripe: the API refused disputes (403). Without them: disputed money and net revenue."
        in result.stdout
    )
    assert (await daybook.head())[0] == 0


async def test_connected_accounts_are_read_in_place_of_the_keys_own(
    daybook: SyncDaybook, api: StripeApi, run: Run
) -> None:
    for account in ("acct_1", "acct_2"):
        api.shops[account] = Shop()
        StripeWorld(api.shops[account]).customer(at(0))

    result = await run("stripe", "--account", "acct_1", "--account", "acct_2")

    assert result.exit_code == 0
    assert {row["account"] for row in await daybook.rows()} == {"acct_1", "acct_2"}


async def test_a_day_begins_in_the_reporting_zone(
    api: StripeApi, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYBOOK_REPORTING_TZ", "Asia/Tokyo")

    await run("stripe", "--since", "2025-01-01", "--dry-run")

    assert {query["created[gte]"] for _, query in api.asked} == {"1735657200"}  # 2024-12-31T15:00:00Z


@pytest.mark.parametrize(
    ("arguments", "key", "code", "said"),
    [
        (["meterly"], KEY, 2, "PROCESSOR: stripe or mxmerchant"),
        (["stripe", "--since", "30d"], KEY, 2, "--since: a day such as 2024-01-01"),
        (["mxmerchant", "--since", "2024-01-01"], KEY, 2, "--since: the API of mxmerchant"),
        (["mxmerchant", "--account", "acct_1"], KEY, 2, "--account: the API of mxmerchant"),
        (["mxmerchant"], KEY, 2, "DAYBOOK_MXMERCHANT_API_URL"),
        ([], "", 2, "no processor's API is set up: DAYBOOK_STRIPE_API_KEY"),
        (["stripe"], "sk_live_other", 3, "Stripe refuses every list"),
    ],
)
async def test_what_cannot_be_done_is_said_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], key: str, code: int, said: str
) -> None:
    monkeypatch.setenv("DAYBOOK_STRIPE_API_KEY", key)

    result = await run(*arguments)

    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.usefixtures("run")
async def test_the_web_process_names_the_command_while_the_ledger_is_empty(
    daybook: SyncDaybook, api: StripeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.server, "serve", lambda _settings: None)

    def lines() -> list[dict[str, Any]]:
        with capture_logs() as logs:
            CliRunner().invoke(app, ["web"])
        return [line for line in logs if line["event"] == "history_missing"]

    [line] = await asyncio.to_thread(lines)
    assert (line["processors"], line["command"]) == (["stripe"], "daybook backfill")
    assert bootstrap.is_ledger_empty(daybook.settings)

    StripeWorld(api.shop).customer(at(0))
    await daybook.backfill(api)
    assert await asyncio.to_thread(lines) == []
