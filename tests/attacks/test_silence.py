"""Nothing goes wrong in silence, and strangers make no noise that only Daybook should make."""

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.core.errors import Unavailable
from service.ledger.probe import WriteProbe
from service.processes.lifeline import worker_lock
from service.reads.files import cell
from tests.support.cli import Run
from tests.support.paths import ROOT
from tests.support.running import Daybook, running
from tests.support.senders import MX_TOKEN, STANDARD, STRIPE
from tests.support.stores import EACH_STORE

STORES = EACH_STORE
LINES = {"delivery_rejected", "delivery_refused", "delivery_quarantined", "delivery_conflict"}
RULES = yaml.safe_load((ROOT / "docs" / "deploy" / "prometheus-rules.yaml").read_text("utf-8"))


def lines(logged: list[Any]) -> list[tuple[str, str, str]]:
    """What is said of deliveries: event, processor, reason."""
    return [(line["event"], line["processor"], line["reason"]) for line in logged if line["event"] in LINES]


async def outcomes(daybook: Daybook) -> set[str]:
    text = (await daybook.http.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {sample.labels["outcome"] for sample in families["daybook_deliveries"].samples}


async def test_each_delivery_that_is_not_recorded_is_a_line(daybook: Daybook, logged: list[Any]) -> None:
    event = STRIPE.event("1", 100)
    await daybook.post(STRIPE, event)
    await daybook.post(STRIPE, STRIPE.event("1", 999))
    await daybook.post(STRIPE, STRIPE.unreadable)
    await daybook.post(STRIPE, b"no JSON")
    await daybook.post(STRIPE, event, secret="whsec_wrong")
    await daybook.http.post(f"{MX_TOKEN.path}-not-it", json={})
    await daybook.post(STRIPE, b" " * ((1 << 20) + 1))
    await daybook.http.post("/webhooks/standard/nobody", json={})

    said = lines(logged)

    assert [(event, processor) for event, processor, _ in said] == [
        ("delivery_conflict", "stripe"),
        ("delivery_quarantined", "stripe"),
        ("delivery_quarantined", "stripe"),
        ("delivery_rejected", "stripe"),
        ("delivery_rejected", "mxmerchant"),
        ("delivery_rejected", "stripe"),
        ("delivery_rejected", "standard"),
    ]
    assert all(reason for _, _, reason in said)
    assert {line["remote"] for line in logged if line["event"] in LINES} == {"127.0.0.1"}
    everything = json.dumps(logged, default=str)
    for told in ("whsec_wrong", STRIPE.secret, MX_TOKEN.secret, "-not-it", "nobody"):
        assert told not in everything


async def test_many_alike_are_counted(daybook: Daybook, logged: list[Any]) -> None:
    for _ in range(50):
        await daybook.http.post(STRIPE.path, json={})

    assert len(lines(logged)) == 1


async def test_strangers_raise_no_critical_alert(data_dir: Path) -> None:
    async with running(data_dir, mxmerchant_webhook_secrets="") as daybook:
        for path in (
            STRIPE.path,
            STANDARD.path,
            "/webhooks/mxmerchant",
            "/webhooks/standard/nobody",
            "/nothing",
        ):
            await daybook.http.post(path, json={"type": "invoice.paid"})
            await daybook.http.post(path, content=b"\0", headers={"content-type": "text/html"})
        found = await outcomes(daybook)

    (alert,) = (
        rule
        for group in RULES["groups"]
        for rule in group["rules"]
        if rule.get("alert") == "DaybookDeliveriesUnavailable"
    )
    (pattern,) = re.findall(r'outcome=~"([^"]+)"', alert["expr"])
    assert found == {"rejected", "not_configured"}
    assert not any(re.fullmatch(pattern, outcome) for outcome in found)


async def test_a_full_disk_is_one_line_without_a_trace_and_not_ready(
    daybook: Daybook, logged: list[Any], store_kind: str
) -> None:
    if store_kind != "sqlite":
        pytest.skip("the limit is SQLite's")
    with daybook.state.ledger._database._writer.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    big = {**STRIPE.event("1", 100), "note": "x" * 50_000}

    answers = [(await daybook.post(STRIPE, big)).status_code for _ in range(5)]

    failures = [line for line in logged if line["event"] == "ledger_unavailable"]
    assert answers == [503] * 5
    assert [line["reason"] for line in failures] == ["database or disk is full"]
    assert "exc_info" not in failures[0]


async def test_it_is_not_ready_while_nothing_can_be_written(
    daybook: Daybook, store_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store_kind != "sqlite":
        pytest.skip("the file is SQLite's")
    monkeypatch.setattr("service.ledger.probe._INTERVAL_SECONDS", 0.0)

    def only_read(switch: str) -> None:
        with closing(daybook.state.ledger._database._writer.raw_connection()) as connection:
            connection.cursor().execute(f"PRAGMA query_only = {switch}")

    only_read("ON")
    refused = await daybook.ask("/readyz")
    only_read("OFF")

    assert (refused.status_code, "written" in refused.json()["detail"]) == (503, True)
    assert (await daybook.ask("/readyz")).status_code == 200


async def test_whoever_asks_often_writes_seldom(daybook: Daybook) -> None:
    probe, written = WriteProbe(daybook.state.ledger, daybook.clock), 0

    async def count() -> bool:
        nonlocal written
        written += 1
        return False

    probe._write = count  # type: ignore[method-assign]
    for _ in range(20):
        with pytest.raises(Unavailable):
            await probe.check()

    assert written < 20


async def test_status_and_a_metric_say_whether_a_worker_runs(
    daybook: Daybook, data_dir: Path, command: Run
) -> None:
    async def workers() -> float:
        text = (await daybook.http.get("/metrics")).text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        return families["daybook_workers"].samples[0].value

    assert "No worker runs" in (await command("status")).stdout
    assert await workers() == 0
    if daybook.state.settings.database_url:
        return
    with worker_lock(data_dir):
        assert "No worker runs" not in (await command("status")).stdout
        assert await workers() == 1


async def test_whole_numbers_out_of_range_are_answered(daybook: Daybook) -> None:
    for number in (2**31, 2**32, 2**53, 2**62):
        for path in ("/api/v1/quarantine", "/api/v1/ledger/events"):
            assert (await daybook.ask(f"{path}/{number}")).status_code in (404, 400), (path, number)
        assert (await daybook.ask("/api/v1/quarantine", cursor=number)).status_code in (200, 400)
        assert (await daybook.ask("/api/v1/ledger/events", after=number)).status_code == 200
    assert (await daybook.ask("/api/v1/quarantine/4294967296")).status_code == 404


async def test_metrics_say_what_runs_how_reads_end_and_the_mrr(daybook: Daybook) -> None:
    await daybook.post(STRIPE, STRIPE.event("1", 100))
    await daybook.catch_up()
    await daybook.get("/api/v1/mrr")
    await daybook.ask("/api/v1/mrr", today="never")
    text = (await daybook.http.get("/metrics")).text
    samples = [
        (sample.name, tuple(sample.labels.values()), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    names = {name for name, _, _ in samples}

    assert {"daybook_build_info", "process_resident_memory_bytes", "daybook_ledger_lost_positions"} <= names
    assert ("daybook_reads_total", ("/api/v1/mrr", "200"), 1.0) in samples
    assert ("daybook_reads_total", ("/api/v1/mrr", "400"), 1.0) in samples
    assert ("daybook_read_seconds_count", ("/api/v1/mrr",), 2.0) in samples
    assert [(labels, value) for name, labels, value in samples if name == "daybook_mrr_cents"]


@pytest.mark.parametrize("sign", "=+-@\uff1d\uff0b\uff0d\uff20")
def test_no_cell_is_a_formula(sign: str) -> None:
    assert cell(f"{sign}HYPERLINK(1)") == f"'{sign}HYPERLINK(1)"
