"""Lists as CSV: the same rows as in JSON, safe to open in a spreadsheet."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from service.reads.catalog import READS, Read
from tests.web.running import Daybook, running
from tests.web.senders import subscription

each = pytest.mark.parametrize("read", READS, ids=lambda read: read.name)
ASKED = {"today": "2025-11-13"}


def as_text(value: Any) -> str:
    """A JSON value as its cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, list) else str(value)


def is_nested(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(part, dict) for part in value)


@each
@pytest.mark.parametrize("how", ["format", "accept"])
async def test_every_list_reads_back_as_its_json_rows(demo: Path, read: Read, how: str) -> None:
    async with running(demo) as daybook:
        rows = (await daybook.get(read.path, **ASKED))[read.rows]
        query, headers = ({"format": "csv"}, {}) if how == "format" else ({}, {"Accept": "text/csv"})
        answer = await daybook.http.get(read.path, params=ASKED | query, headers=headers)

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert rows
    assert list(csv.DictReader(io.StringIO(answer.text, newline=""))) == [
        {name: as_text(value) for name, value in row.items() if not is_nested(value)} for row in rows
    ]


@each
async def test_an_empty_list_is_its_header(daybook: Daybook, read: Read) -> None:
    answer = await daybook.ask(read.path, format="csv", account="nobody", **ASKED)

    assert len(answer.text.split("\r\n")[0].split(",")) > 3


async def test_what_a_spreadsheet_would_run_gets_a_quote_before_it(daybook: Daybook) -> None:
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", 'a "b", c', "line\nbreak", "plain"]
    at = "2025-11-13T10:00:00Z"
    for number, name in enumerate(names):
        await daybook.record("subscription.recorded", at, **subscription(str(number), 100))
        await daybook.record("customer.recorded", at, customer_id=f"cust-{number}", name=name)
    await daybook.catch_up()

    answer = await daybook.ask("/api/v1/contracts", format="csv")

    cells = [row["customer_name"] for row in csv.DictReader(io.StringIO(answer.text, newline=""))]
    assert cells == [f"'{name}" if name[0] in "=+-@\t\r" else name for name in names]


async def test_negative_figures_stay_numbers(daybook: Daybook) -> None:
    for day, status in (("12", "active"), ("13", "unpaid")):
        thing = {**subscription("1", 100), "status": status}
        await daybook.record("subscription.recorded", f"2025-11-{day}T10:00:00Z", **thing)
    await daybook.catch_up()

    answer = await daybook.ask(
        "/api/v1/mrr/movements", format="csv", by="day", from_="2025-11-13", to="2025-11-13"
    )

    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["churn_cents"] == "-100"


async def test_csv_has_an_etag_of_its_own(demo: Path) -> None:
    async with running(demo) as daybook:
        as_json = await daybook.ask("/api/v1/contracts")
        as_csv = await daybook.ask("/api/v1/contracts", format="csv")
        again = await daybook.http.get(
            "/api/v1/contracts", headers={"Accept": "text/csv", "If-None-Match": as_csv.headers["etag"]}
        )

    assert as_csv.headers["etag"] != as_json.headers["etag"]
    assert again.status_code == 304


async def test_json_is_answered_to_who_says_so_whatever_it_accepts(daybook: Daybook) -> None:
    answer = await daybook.http.get("/api/v1/contracts?format=json", headers={"Accept": "text/csv"})

    assert answer.headers["content-type"] == "application/json"


async def test_the_log_reads_back_from_csv(demo: Path) -> None:
    async with running(demo) as daybook:
        events = (await daybook.get("/api/v1/ledger/events", limit=5))["events"]
        answer = await daybook.http.get("/api/v1/ledger/events?limit=5", headers={"Accept": "text/csv"})

    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["cause"] for row in rows] == [event["cause"] for event in events]
    assert rows[0]["data"].startswith('{"subscription_id"')
    assert rows[0]["before"] == ""
