"""Erasing beside a running DaybookProcesses: no file, no Valkey key and no log keeps a word."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from msgspec import json

from tests.support.processes import DaybookProcesses, signed
from tests.support.waiting import PATIENCE_SECONDS, wait_until

WORDS = (b"Ada Example", b"ada@example.test")


@pytest.fixture
def daybook(tmp_path: Path) -> Iterator[DaybookProcesses]:
    with DaybookProcesses(tmp_path) as daybook:
        daybook.environment["COLUMNS"] = "120"
        del daybook.environment["DAYBOOK_MASTER_KEY"]  # it makes one of its own
        daybook.start("run")
        daybook.wait_ready()
        yield daybook


def post(daybook: DaybookProcesses, number: int, kind: str, **data: object) -> None:
    body = json.encode({"type": kind, "occurred_at": datetime.now(UTC).isoformat(), "data": data})
    headers = signed(f"evt_{number}", body)
    answer = httpx.post(
        f"{daybook.url}/webhooks/standard/biller", content=body, headers=headers, timeout=PATIENCE_SECONDS
    )
    assert answer.status_code == 200


def files_with_words(directory: Path) -> set[str]:
    """The files that hold one of the words."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.name for path in files if any(word in path.read_bytes() for word in WORDS)}


def erase(daybook: DaybookProcesses, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.cli", "erase", "cus_ada", *options],
        env=daybook.environment,
        cwd=daybook.data_dir,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_a_running_daybook_keeps_no_word_of_an_erased_customer(daybook: DaybookProcesses) -> None:
    # given a customer in the books, and in what was left ready of them
    post(daybook, 1, "customer.recorded", customer_id="cus_ada", name="Ada Example", email="ada@example.test")
    item = {"interval": "month", "unit_amount": "1000"}
    contract = {"subscription_id": "sub_1", "customer_id": "cus_ada", "status": "active", "currency": "usd"}
    post(daybook, 2, "subscription.recorded", **contract, items=[item], next_bill_on="2099-01-01")
    wait_until(
        lambda: daybook.caught_up() and "books.db" in " ".join(files_with_words(daybook.data_dir)),
        "she is known",
    )
    assert files_with_words(daybook.data_dir) <= {"books.db", "books.db-wal"}

    # when somebody would erase her, and then means it
    refused = erase(daybook)
    assert (refused.returncode, files_with_words(daybook.data_dir) != set()) == (4, True)
    done = erase(daybook, "--yes", "--json")

    # then no file holds a word, logs and Valkey's included, and what runs goes on
    assert (done.returncode, done.stderr) == (0, "")
    assert json.decode(done.stdout) == {
        "customer_id": "cus_ada",
        "processor": "standard.biller",
        "account": "",
        "position": 3,
    }
    wait_until(lambda: daybook.caught_up(3), "it is taken in")
    assert files_with_words(daybook.data_dir) == set()
    mrr = httpx.get(f"{daybook.url}/api/v1/mrr", timeout=PATIENCE_SECONDS).json()
    assert (mrr["mrr_cents"], mrr["customers"]) == (1_000, 1)
    daybook.kill("run", 15)  # Valkey writes what it holds
    assert files_with_words(daybook.data_dir) == set()


def test_nobody_is_erased_by_a_wrong_id(daybook: DaybookProcesses) -> None:
    done = erase(daybook, "--yes")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "daybook: the ledger tells of no customer cus_ada\n"
