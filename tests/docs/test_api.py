"""docs/api.md is true: every example is what the demo's data really answers."""

import json
import re
from pathlib import Path

import pytest

from service.reads.catalog import READS
from service.reads.customers.catalog import CUSTOMER_READS
from service.reads.metrics import MetricsOfPeriod
from service.web.openapi import description
from service.web.problems import PROBLEMS
from service.web.reads import COMMON
from tests.docs.examples import shows
from tests.support.paths import ROOT
from tests.support.running import running

TEXT = (ROOT / "docs" / "api.md").read_text("utf-8")
EXAMPLES = re.findall(r"`GET (/[^`]+)`\n\n```json\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize(("url", "example"), EXAMPLES, ids=[url for url, _ in EXAMPLES])
async def test_an_example_is_what_the_demo_answers(demo: Path, url: str, example: str) -> None:
    async with running(demo) as daybook:
        answer = await daybook.http.get(url)

    assert answer.status_code == 200
    assert shows(json.loads(example), answer.json())


def test_every_read_and_ledger_path_has_an_example() -> None:
    shown = {url.partition("?")[0] for url, _ in EXAMPLES}

    assert {read.path for read in READS if read not in CUSTOMER_READS} <= shown  # docs/customers.md has those
    ledger = {path.partition("{")[0] for path in description()["paths"] if path.startswith("/api/v1/ledger/")}
    assert all(any(url.startswith(path) for url in shown) or path in TEXT for path in ledger)


def test_every_common_parameter_is_in_the_table() -> None:
    (table,) = re.findall(r"## What every read takes\n(.*?)\n\nA parameter", TEXT, re.DOTALL)
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [parameter.name for parameter in COMMON]


async def test_the_problem_is_what_a_wrong_month_gives(demo: Path) -> None:
    (example,) = re.findall(r"```json problem\n(.*?)```", TEXT, re.DOTALL)
    async with running(demo) as daybook:
        answer = await daybook.ask("/api/v1/revenue/month-detail", month=13)

    assert json.loads(example) == answer.json()


def test_the_table_of_problems_is_that_of_the_service() -> None:
    (table,) = re.findall(r"^\| `urn:daybook:problem:` .*?\n\n", TEXT, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`[^|]+`) \| (\d+) \|$", table, re.MULTILINE)

    listed = [(name, int(status)) for names, status in rows for name in re.findall("`([^`]+)`", names)]
    assert len({problem.title for problem in PROBLEMS.values()}) == len(PROBLEMS)
    assert sorted(listed) == sorted((problem.name, problem.status) for problem in PROBLEMS.values())


def test_the_table_of_metrics_names_fields_of_a_period() -> None:
    (table,) = re.findall(r"^\| field \| formula \|\n(.*?)\n\n", TEXT, re.MULTILINE | re.DOTALL)

    assert set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE)) <= set(MetricsOfPeriod.__struct_fields__)
