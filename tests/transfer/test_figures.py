"""A table of next bills, imported, gives the month's figures."""

import asyncio
from pathlib import Path
from typing import Any

from msgspec import json

from service.demo.posts import HERE
from tests.support.paths import FIXTURES
from tests.support.running import Clock, running
from tests.transfer.installation import NOW, Installation

EXPECTED = json.decode((FIXTURES / "books/november_2025.expected.json").read_bytes())


def test_november_of_a_table_is_november_of_the_webhooks(daybook: Installation) -> None:
    daybook.import_("csv", HERE / "november_2025.csv", "--observed-at", "2025-11-12T09:00:00Z")

    month = asyncio.run(november(daybook.directory))

    summary = month["summary"]
    for name in ("customers", "payments", "total_cents", "later_cents", "mrr_cents"):
        assert summary[name] == EXPECTED[name], name
    assert month["weeks"] == EXPECTED["weeks"]


async def november(directory: Path) -> dict[str, Any]:
    async with running(directory, Clock(NOW)) as daybook:
        await daybook.catch_up()
        return await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11, today="2025-11-12")
