"""Which processors are due for retranslation, who says so, and until when."""

import asyncio
from functools import partial
from typing import Any

import pytest

from service.bootstrap import prepare
from service.intake import versions
from service.web import server
from tests.support.cli import Run, document
from tests.support.running import Daybook
from tests.support.senders import MX, STRIPE
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

ALL = ["stripe", "mxmerchant", "standard"]


@pytest.fixture
def upgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Daybook whose translations are all newer ones."""
    newer = {name: version + 1 for name, version in versions.VERSIONS.items()}
    monkeypatch.setattr(versions, "VERSIONS", newer)


@pytest.fixture
async def held(daybook: Daybook) -> Daybook:
    """A Daybook with an event of Stripe's, one in quarantine of MX Merchant's, and none of a biller's."""
    await daybook.post(STRIPE, STRIPE.event("1", 100))
    await daybook.post(MX, MX.unreadable)
    return daybook


async def due(daybook: Daybook) -> list[str]:
    ledger = daybook.state.ledger
    return await ledger.read(partial(versions.find_due, vault=ledger.vault))


async def start(daybook: Daybook) -> list[str]:
    """What a start prepares, and finds due."""
    return await asyncio.to_thread(prepare, daybook.state.settings)


async def test_a_new_ledger_and_the_first_events_of_a_processor_are_not_due(held: Daybook) -> None:
    assert await due(held) == []
    assert await start(held) == []


@pytest.mark.usefixtures("upgraded")
async def test_after_an_upgrade_what_is_held_is_due_until_all_of_it_is_retranslated(
    held: Daybook, command: Run
) -> None:
    assert await start(held) == ["stripe", "mxmerchant"]

    for options in (
        ["--processor", "stripe"],
        ["--apply", "--after", "1"],
        ["--apply", "--processor", "standard"],
    ):
        await command("retranslate", *options)
        assert await due(held) == ["stripe", "mxmerchant"]
    await command("retranslate", "--apply", "--processor", "stripe")
    assert await due(held) == ["mxmerchant"]
    await command("retranslate", "--apply")
    assert await due(held) == await start(held) == []


async def test_what_an_older_version_adds_after_a_newer_one_is_due_again(
    held: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "VERSIONS", dict.fromkeys(ALL, 1))
    assert await start(held) == []
    with monkeypatch.context() as newer:
        newer.setattr(versions, "VERSIONS", dict.fromkeys(ALL, 2))
        await versions.record_retranslated(held.state.ledger, ALL, held.clock.now)
        assert await start(held) == []

    assert await start(held) == []  # the older one starts again

    monkeypatch.setattr(versions, "VERSIONS", dict.fromkeys(ALL, 2))
    assert await start(held) == ["stripe", "mxmerchant"]


@pytest.mark.usefixtures("upgraded")
async def test_status_readiness_metrics_and_the_log_say_what_is_due(
    held: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    monkeypatch.setattr(server, "serve", lambda _settings: None)
    await command("web")

    assert [line for line in logged if line["event"] == "retranslation_due"] == [
        {
            "event": "retranslation_due",
            "log_level": "warning",
            "processors": ["stripe", "mxmerchant"],
            "command": "daybook retranslate --apply",
        }
    ]
    ready = await held.http.get("/readyz")
    assert (ready.status_code, ready.json()["retranslation_due"]) == (200, ["stripe", "mxmerchant"])
    metrics = (await held.http.get("/metrics")).text
    for processor, value in (("stripe", 1), ("mxmerchant", 1), ("standard", 0)):
        assert f'daybook_retranslation_due{{processor="{processor}"}} {value}.0' in metrics
    assert document(await command("status", "--json"))["retranslation_due"] == ["stripe", "mxmerchant"]
    assert "daybook retranslate --apply" in (await command("status")).output


async def test_readiness_looks_no_more_once_nothing_is_due(
    held: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await held.get("/readyz"))["retranslation_due"] == []

    monkeypatch.setattr(versions, "find_due", None)

    assert (await held.get("/readyz"))["retranslation_due"] == []
