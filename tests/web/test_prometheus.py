"""Metrics: what an operator alerts on."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.web.prometheus import DIRECTORY, Metrics
from tests.support.running import Daybook, running
from tests.support.senders import MX, SENDERS, STANDARD, STRIPE, subscription

Labels = tuple[tuple[str, str], ...]


async def samples(daybook: Daybook) -> dict[tuple[str, Labels], float]:
    """Every sample by its name and labels."""
    answer = await daybook.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=1.0.0")

    def parsed() -> Iterator[tuple[tuple[str, Labels], float]]:
        for family in text_string_to_metric_families(answer.text):
            assert family.documentation
            for sample in family.samples:
                yield (sample.name, tuple(sorted(sample.labels.items()))), sample.value

    return dict(parsed())


def labels(**given: str) -> Labels:
    return tuple(sorted(given.items()))


async def test_deliveries_are_counted_by_processor_and_outcome(data_dir: Path) -> None:
    async with running(data_dir, mxmerchant_webhook_secrets="") as daybook:
        event = STRIPE.event("1", 100)
        for body in (event, event, STRIPE.event("1", 999), STRIPE.unused, STRIPE.unreadable, b"no json"):
            await daybook.post(STRIPE, body)
        await daybook.post(STRIPE, event, secret="whsec_wrong")
        await daybook.post(STRIPE, b" " * ((1 << 20) + 1))
        await daybook.post(MX, MX.event("1", 100))
        await daybook.post(STANDARD, STANDARD.event("1", 100))
        found = await samples(daybook)

    name = "daybook_deliveries_total"
    assert {
        dict(key[1])["processor"] + " " + dict(key[1])["outcome"]: value
        for key, value in found.items()
        if key[0] == name
    } == {
        "stripe recorded": 2,
        "stripe duplicate": 1,
        "stripe conflict": 1,
        "stripe unreadable": 1,
        "stripe malformed": 1,
        "stripe rejected": 2,
        "mxmerchant not_configured": 1,
        "standard recorded": 1,
    }
    for reason in ("conflict", "unreadable", "malformed"):
        assert found["daybook_quarantine", labels(processor="stripe", reason=reason)] == 1


async def test_appends_are_timed(daybook: Daybook) -> None:
    for number in range(5):
        await daybook.post(STRIPE, STRIPE.event(str(number), 100))

    found = await samples(daybook)

    assert found["daybook_append_seconds_count", ()] == 5
    assert found["daybook_append_seconds_bucket", labels(le="+Inf")] == 5
    assert found["daybook_append_seconds_sum", ()] > 0


async def test_lag_is_the_ledgers_head_less_each_books_position(daybook: Daybook) -> None:
    await daybook.post(STRIPE, STRIPE.event("1", 100))
    await daybook.catch_up()
    for number in (2, 3):
        await daybook.post(STRIPE, STRIPE.event(str(number), 100))

    found = await samples(daybook)

    assert found["daybook_ledger_position", ()] == 3
    for book in daybook.state.store.books:
        assert found["daybook_book_lag_events", labels(book=book.name)] == 2


async def test_silence_is_measured_for_each_processor(daybook: Daybook) -> None:
    for sender in SENDERS:
        await daybook.post(sender, sender.event("1", 100))
    daybook.clock.now += timedelta(seconds=90)
    await daybook.post(STRIPE, STRIPE.event("2", 100))
    daybook.clock.now += timedelta(seconds=10)

    found = await samples(daybook)

    heard = {
        dict(key[1])["processor"]: value
        for key, value in found.items()
        if key[0] == "daybook_seconds_since_heard"
    }
    assert heard == {"stripe": 10, "mxmerchant": 100, "standard.acme": 100}


async def test_live_subscriptions_without_a_next_bill_are_counted(daybook: Daybook) -> None:
    await daybook.post(STANDARD, STANDARD.event("1", 100))
    await daybook.post(STRIPE, STRIPE.event("1", 100))

    found = await samples(daybook)

    name = "daybook_live_subscriptions_without_next_bill_total"
    assert found[name, labels(processor="standard")] == 1
    assert (name, labels(processor="stripe")) not in found


async def test_overdue_contracts_are_counted_over_all_currencies(daybook: Daybook) -> None:
    for key, currency, day in (("1", "usd", "10"), ("2", "eur", "10"), ("3", "usd", "11")):
        data = subscription(key, 100, currency=currency, next_bill_at=f"2025-11-{day}T12:00:00Z")
        await daybook.record("subscription.recorded", "2025-11-01T10:00:00Z", **data)
    assert (await samples(daybook))["daybook_overdue_contracts", ()] == 0
    await daybook.catch_up()

    assert (await samples(daybook))["daybook_overdue_contracts", ()] == 2  # on the 13th
    daybook.clock.now += timedelta(days=1)
    assert (await samples(daybook))["daybook_overdue_contracts", ()] == 3


async def test_a_book_ahead_of_the_head_that_was_read_lacks_nothing(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daybook.post(STRIPE, STRIPE.event("1", 100))
    reading = daybook.state.store.reading

    @asynccontextmanager
    async def reading_later() -> AsyncIterator[Any]:
        await daybook.post(STRIPE, STRIPE.event("2", 100))
        await daybook.catch_up()
        async with reading() as connection:
            yield connection

    monkeypatch.setattr(daybook.state.store, "reading", reading_later)
    ready = (await daybook.http.get("/readyz")).json()

    assert ready["position"] == 1
    assert set(ready["lag_events"].values()) == {0}


async def test_health_says_alive_and_readiness_how_far_the_books_are(daybook: Daybook) -> None:
    await daybook.post(STRIPE, STRIPE.event("1", 100))

    alive = await daybook.http.get("/healthz")
    ready = await daybook.http.get("/readyz")

    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "position": 1,
        "lag_events": {book.name: 1 for book in daybook.state.store.books},
        "silent": [],
        "retranslation_due": [],
        "pending_fetches": [],
    }


def test_a_process_that_is_starting_does_not_fail_a_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counter_1.db").touch()  # made, and not written yet
    monkeypatch.setenv(DIRECTORY, str(tmp_path))

    assert Metrics().text([]) == b""
