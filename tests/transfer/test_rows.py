"""The books' rows as files: every table, the same in both forms, safe to open, whole or not there."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import json
from pyarrow import parquet

from projections import BOOKS
from service.books.tables import ROWS
from tests.support.senders import recorded, subscription
from tests.transfer import test_ledger
from tests.transfer.installation import Installation, posted


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def filled(target: Installation) -> Installation:
    target.append(*test_ledger.everything())
    target.catch_up()
    return target


def test_every_table_of_the_books_is_written(filled: Installation, tmp_path: Path) -> None:
    written = json.decode(filled.run("export", "rows", "-o", tmp_path / "out", "--json"))

    assert written["position"] == len(filled.rows())
    tables = {each["table"]: each for each in written["tables"]}
    assert tables.keys() == {
        each.table for each in (*ROWS, *(total for book in BOOKS for total in book.totals))
    }
    assert {Path(each["file"]).name for each in written["tables"]} == {
        path.name for path in (tmp_path / "out").iterdir()
    }
    for each in written["tables"]:
        assert each["rows"] == len(rows_of(Path(each["file"])))
    assert tables["contracts"]["rows"] > 10
    assert tables["bill_days"]["rows"] > 10


def test_two_builds_of_one_ledger_write_equal_files(
    filled: Installation, second: Installation, tmp_path: Path
) -> None:
    """One is brought up to date after each delivery, so that its rows and totals came and went."""
    for delivery in test_ledger.everything():
        second.append(delivery)
        second.catch_up()

    for daybook, name in ((filled, "at-once"), (second, "by-and-by")):
        daybook.run("export", "rows", "-o", tmp_path / name)

    names = sorted(path.name for path in (tmp_path / "at-once").iterdir())
    assert len(names) > 30
    for name in names:
        at_once, by_and_by = ((tmp_path / way / name).read_bytes() for way in ("at-once", "by-and-by"))
        assert at_once == by_and_by, name


def test_a_total_of_nothing_is_left_out(daybook: Installation, tmp_path: Path) -> None:
    moved = subscription("1", 500, next_bill_at="2025-12-01T00:00:00Z")
    for number, day in enumerate(("2025-12-01", "2025-12-24")):
        moved = {**moved, "next_bill_at": f"{day}T00:00:00Z"}
        body = recorded("subscription.recorded", moved)
        daybook.append(posted("standard.acme", body, message_id=f"msg_{number}"))
        daybook.catch_up()

    daybook.run("export", "rows", "bills", "--table", "bill_days", "-o", file := tmp_path / "days.csv")

    assert [row["date"] for row in rows_of(file)] == ["2025-12-24"]


def test_parquet_says_the_same_with_types(filled: Installation, tmp_path: Path) -> None:
    for form in ("csv", "parquet"):
        filled.run("export", "rows", "bills", "--format", form, "-o", tmp_path / form)

    for path in sorted((tmp_path / "csv").iterdir()):
        typed = parquet.read_table(tmp_path / "parquet" / f"{path.stem}.parquet")
        assert [
            {name: as_text(value) for name, value in row.items()} for row in typed.to_pylist()
        ] == rows_of(path)
    bills = parquet.read_schema(tmp_path / "parquet" / "bills.bills.parquet")
    assert str(bills.field("amount_cents").type) == "int64"
    contracts = parquet.read_schema(tmp_path / "parquet" / "bills.contracts.parquet")
    assert {str(contracts.field(name).type) for name in ("declined", "customer_id")} == {"bool", "string"}


def test_without_pyarrow_parquet_names_the_extra_and_csv_is_written(
    filled: Installation, tmp_path: Path
) -> None:
    code = "import sys; sys.modules['pyarrow'] = None; from service.cli import app; app()"
    export = [sys.executable, "-c", code, "export", "rows", "bills", "-o", str(tmp_path / "out")]
    environment = os.environ | filled.environment

    ran = subprocess.run(
        [*export, "--format", "parquet"], check=False, env=environment, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == 'daybook: --format parquet needs pyarrow: pip install "daybook[parquet]"\n'
    assert not (tmp_path / "out").exists()

    subprocess.run([*export, "--format", "csv"], env=environment, check=True)
    assert rows_of(tmp_path / "out" / "bills.contracts.csv")


def as_text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def test_text_that_a_spreadsheet_would_run_gets_a_quote_before_it(
    daybook: Installation, tmp_path: Path
) -> None:
    formula = subscription("1", 500, customer_id="=1+1")
    daybook.append(posted("standard.acme", recorded("subscription.recorded", formula), message_id="msg_1"))
    daybook.catch_up()

    daybook.run("export", "rows", "bills", "--table", "contracts", "-o", file := tmp_path / "c.csv")

    assert [row["customer_id"] for row in rows_of(file)] == ["'=1+1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "nothing is no book; there are mrr, bills"),
        (
            ["mrr", "--table", "bills"],
            "bills is no table; there are contract_states, contract_starts, billed_items",
        ),
        (["--table", "mrr_steps"], "mrr_steps is in several books"),
    ],
)
def test_an_unknown_book_or_table_is_reported(
    daybook: Installation, tmp_path: Path, words: list[str], said: str
) -> None:
    assert said in daybook.run("export", "rows", *words, "-o", tmp_path / "out", code=2)


def test_a_file_is_not_taken_for_a_directory(daybook: Installation, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert "no directory" in daybook.run("export", "rows", "-o", tmp_path / "file", code=2)
    assert "a directory" in daybook.run("export", "rows", "bills", "--table", "bills", "-o", tmp_path, code=2)
