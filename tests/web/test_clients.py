"""A client that openapi-python-client generates from the description reads well, and reads the demo."""

import importlib
import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType

from service.web.openapi import description
from tests.support.running import running


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The generated package."""
    directory = tmp_path_factory.mktemp("client")
    source = directory / "openapi.json"
    source.write_text(json.dumps(description()))
    config = Config.from_sources(
        config_file=ConfigFile(package_name_override="daybook_client", post_hooks=[]),
        meta_type=MetaType.NONE,
        document_source=source,
        file_encoding="utf-8",
        overwrite=True,
        output_path=directory / "daybook_client",
    )
    assert list(generate(config=config)) == []  # nothing in the description that it can't read
    sys.path.insert(0, str(directory))
    yield importlib.import_module("daybook_client")
    sys.path.remove(str(directory))
    for name in [name for name in sys.modules if name.partition(".")[0] == "daybook_client"]:
        del sys.modules[name]


async def test_a_generated_client_reads_the_demo(client: Any, demo: Path) -> None:
    def operation(name: str) -> Any:
        return importlib.import_module(f"daybook_client.api.{name}")

    async with running(demo) as daybook:
        session = client.Client(base_url="http://localhost").set_async_httpx_client(daybook.http)
        mrr = await operation("reads.get_mrr").asyncio(client=session, today=date(2025, 11, 30))
        month = await operation("reads.get_revenue_month_detail").asyncio(
            client=session, year=2025, month=11, today=date(2025, 11, 13), account="acct_1DaybookDemo"
        )
        event = await operation("ledger.get_ledger_event").asyncio(41, client=session)
        refusal = await operation("reads.get_revenue_month_detail").asyncio(client=session, month=13)

    assert (mrr.mrr_cents, mrr.date, mrr.by_schedule[0].interval) == (7_007_847, date(2025, 11, 30), "week")
    assert month.summary.total_cents == sum(bill.amount_cents for bill in month.payments) == 7_587_900
    assert {bill.trust for bill in month.payments} == {"signed"}
    assert (event.cause, event.verification.secret) == ("stripe:evt_demo0041", 1)
    assert (refusal.status, refusal.type_) == (400, "urn:daybook:problem:parameter")
