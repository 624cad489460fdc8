"""`daybook explain`: the same for people and scripts, straight from the stores."""

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service import logs
from service.cli import app
from service.demo import posts
from service.storage.database import books_path, ledger_path
from tests.support.posted_books import DEMO
from tests.support.running import running

NOVEMBER = ("--year", "2025", "--month", "11", "--on", "2025-11-30", "--account", posts.STRIPE_ACCOUNT)
TOTAL = "month-detail/summary/total_cents"
LARGEST = ("mrr", "--customer", "cus_RyhRaXKQzqau0t", "--on", "2025-11-13")


@pytest.fixture
def directory(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's data directory, a copy, with its secrets in the environment."""
    copy = Path(shutil.copytree(demo, tmp_path / "demo"))
    monkeypatch.setenv("DAYBOOK_DATA_DIR", str(copy))
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # it would hold on to the runner's standard error
    for name, value in DEMO.items():
        monkeypatch.setenv(f"DAYBOOK_{name.upper()}", value)
    return copy


def explain(*words: str) -> Result:
    return CliRunner().invoke(app, ["explain", *words], env={"COLUMNS": "40"})


def document(*words: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(explain(*words, "--json").stdout)
    return shown


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


@pytest.mark.usefixtures("directory")
def test_a_figure_is_shown_as_a_tree_down_to_its_bytes() -> None:
    shown = explain(*LARGEST)

    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == "mrr/mrr_cents = 2,000,000 (usd, minor units), as of position 83"
    assert lines[1] == "1 row, together 2,000,000"
    assert lines[2] == "└── +2,000,000  mrr_steps  2025-11-12  cus_RyhRaXKQzqau0t  sub_demo0041"
    assert lines[3] == "    └── stripe:evt_demo0041  subscription.recorded, position 41"
    assert lines[4].startswith("        └── ✓  933 bytes, stripe-signature, signed 2")


@pytest.mark.usefixtures("directory")
def test_scripts_get_what_the_api_answers(demo: Path) -> None:
    query = {"year": 2025, "month": 11, "today": "2025-11-30", "account": posts.STRIPE_ACCOUNT}

    async def ask() -> dict[str, Any]:
        async with running(demo, **DEMO) as daybook:
            return await daybook.get("/api/v1/explain", figure=TOTAL, **query)

    answer, shown = asyncio.run(ask()), document(TOTAL, *NOVEMBER)

    position = answer.pop("meta")["position"]
    assert answer.pop("next_cursor") is None
    assert shown == answer | {"position": position}
    assert shown["value"] == 7587900


@pytest.mark.usefixtures("directory")
def test_a_figure_made_of_other_figures_shows_its_formula() -> None:
    lines = explain("mrr/arr_cents", *LARGEST[1:]).stdout.splitlines()

    assert lines[0].startswith("mrr/arr_cents = 24,000,000 (usd, minor units)")
    assert lines[1:3] == ["12 × mrr_cents", "mrr_cents = 2,000,000, 1 row, together 2,000,000"]


@pytest.mark.usefixtures("directory")
def test_a_parameter_without_an_option_of_its_own_is_passed_on() -> None:
    figure = "quarterly-forecast/quarters/quarter=2025-Q4/months/month=2025-11/total_cents"
    total = document(figure, *NOVEMBER[4:], "--param", "quarters=1")
    month = document(TOTAL, *NOVEMBER)

    assert total["value"] == total["sum"] == month["value"] == 7587900


@pytest.mark.usefixtures("directory")
def test_a_figure_is_shown_as_it_was_known() -> None:
    now = document(*LARGEST)
    then = document(*LARGEST, "--position", "41")
    before = explain(*LARGEST, "--position", "40")

    assert (then["value"], then["rows"]) == (now["value"], now["rows"])
    assert (then["position"], now["position"]) == (41, 83)
    assert (before.exit_code, before.stderr) == (
        2,
        "daybook: no order, contract or name of this customer is known\n",
    )


@pytest.mark.usefixtures("directory")
def test_only_so_many_rows_are_listed() -> None:
    lines = explain(TOTAL, *NOVEMBER, "--limit", "2").stdout.splitlines()

    assert lines[1] == "55 rows, together 7,587,900"
    assert sum("bills  2025" in line for line in lines) == 2
    assert lines[-1] == "└── … and 53 rows more (--limit)"


def test_bytes_that_were_tampered_with_are_a_fault(directory: Path) -> None:
    change(
        ledger_path(directory), "UPDATE deliveries SET body = CAST(body || 'x' AS BLOB) WHERE position = 41"
    )

    shown = explain(*LARGEST)
    other = explain("month-detail/days/0/total_cents", *NOVEMBER)

    assert shown.exit_code == 1
    assert "✗  no bytes, no method  what is kept is not what was recorded" in shown.stdout
    assert other.exit_code == 0


def test_a_figure_that_its_rows_do_not_make_is_a_fault(directory: Path) -> None:
    day = "WHERE date = '2025-11-13' AND account LIKE 'acct%'"
    change(
        books_path(directory),
        f"UPDATE bill_days SET billed_cents = billed_cents + 1, bills = bills + 1 {day}",
    )

    shown = explain("month-detail/days/0/total_cents", *NOVEMBER)

    assert shown.exit_code == 1
    assert shown.stdout.splitlines()[1] == "2 rows, together 199,100: THE FIGURE IS NOT THEIR SUM"


@pytest.mark.usefixtures("directory")
def test_a_secret_that_was_rolled_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYBOOK_STRIPE_WEBHOOK_SECRETS", "whsec_another_of_the_tests")

    shown = explain(*LARGEST)

    assert shown.exit_code == 0
    assert "–  933 bytes, stripe-signature" in shown.stdout
    assert "whsec" not in shown.stdout


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("mrr/nothing",), "daybook: figure: of mrr there are mrr_cents"),
        (("mrr", "--customer", "nobody"), "daybook: no order, contract or name of this customer is known"),
        (("mrr", "--on", "yesterday"), "daybook: --on: "),
        (("mrr", "--year", "2025"), "daybook: year: no such parameter of mrr"),
        (("mrr", "--param", "year"), "daybook: --param: NAME=VALUE, not year"),
        (("mrr", "--position", "84"), "daybook: --position: at most 83"),
        (("metrics", "--known-at", "2025-11-13"), "daybook: --known-at: not for this read"),
    ],
)
def test_an_unknown_figure_is_one_line_and_exit_code_2(words: tuple[str, ...], said: str) -> None:
    refused = explain(*words)

    assert refused.exit_code == 2
    assert refused.stderr.startswith(said)
    assert len(refused.stderr.splitlines()) == 1


def test_without_a_ledger_or_books_there_is_nothing_to_explain(directory: Path, tmp_path: Path) -> None:
    books_path(directory).unlink()
    no_books = explain("mrr")
    no_ledger = CliRunner().invoke(app, ["explain", "mrr"], env={"DAYBOOK_DATA_DIR": str(tmp_path / "none")})

    assert (no_books.exit_code, no_ledger.exit_code) == (3, 2)
    assert not (tmp_path / "none").exists()
