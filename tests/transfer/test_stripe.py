"""Stripe's events from a file: what is recorded, what is known, and what is told of the rest."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.senders import stripe_event, stripe_subscription
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.transfer.installation import Installation, lines, posted


def event(key: str, cents: int = 5000, **more: Any) -> dict[str, Any]:
    return stripe_event(
        "customer.subscription.created", stripe_subscription(key, cents), event_id=f"evt_{key}", **more
    )


EVENTS = [event(str(number)) for number in range(600)]  # several batches


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_bytes(lines(EVENTS))
    return path


def test_every_event_of_a_file_is_recorded_and_nothing_proves_it(daybook: Installation, file: Path) -> None:
    taken = daybook.import_("stripe", file)

    assert (taken["deliveries"], taken["recorded"], taken["position"]) == (600, 600, 600)
    rows = daybook.rows()
    assert [row["event_id"] for row in rows] == [payload["id"] for payload in EVENTS]
    assert {row["trust"] for row in rows} == {"unsigned"}


def test_an_import_that_is_repeated_changes_nothing(daybook: Installation, file: Path) -> None:
    daybook.import_("stripe", file)
    before = daybook.contents()

    again = daybook.import_("stripe", file)

    assert (again["recorded"], again["duplicates"], again["conflicts"]) == (0, 600, 0)
    assert daybook.contents() == before


def test_an_event_that_came_by_webhook_is_a_duplicate(daybook: Installation, file: Path) -> None:
    daybook.append(*(posted("stripe", {**payload, "pending_webhooks": 1}) for payload in EVENTS[:300]))

    taken = daybook.import_("stripe", file)

    assert (taken["recorded"], taken["duplicates"], taken["conflicts"]) == (300, 300, 0)


def test_an_event_that_another_api_version_says_is_a_duplicate(daybook: Installation, tmp_path: Path) -> None:
    daybook.append(posted("stripe", event("1", api_version="2024-06-20")))
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines([event("1", request={"id": None})]))

    assert daybook.import_("stripe", file)["duplicates"] == 1
    assert not (daybook.contents())["quarantine"]


def test_other_content_of_the_same_version_is_a_conflict(daybook: Installation, tmp_path: Path) -> None:
    daybook.append(posted("stripe", event("1")))
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines([event("1", 9900)]))

    taken = daybook.import_("stripe", file, code=1)

    assert taken["conflicts"] == 1
    assert taken["notes"] == [
        {"line": 1, "detail": "in quarantine: position 1 has this id and other content"}
    ]
    assert [reason for reason, _ in (daybook.contents())["quarantine"]] == ["conflict"]


def test_an_event_whose_bytes_are_gone_is_a_duplicate(daybook: Installation, tmp_path: Path) -> None:
    """A customer's, say, who was erased: nobody can say any more that it was told otherwise."""
    erased = stripe_event("customer.created", {"id": "cus_1", "object": "customer", "name": "Ada Example"})
    daybook.append(posted("stripe", erased))
    daybook.run("erase", "cus_1", "--yes")
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines([erased]))

    assert daybook.import_("stripe", file)["duplicates"] == 1


def test_lines_that_cannot_be_read_keep_out_no_others(daybook: Installation, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    broken = lines([event("1")])[:-20] + b"\n"
    file.write_bytes(broken + b"\n" + lines([event("2"), {"object": "event"}, event("3")]) + b"\xff\n7\n")

    taken = daybook.import_("stripe", file, code=1)

    assert (taken["recorded"], taken["quarantined"], taken["unreadable_lines"]) == (2, 2, 2)
    assert {note["line"]: note["detail"].partition(":")[0] for note in taken["notes"]} == {
        1: "it is no JSON",
        4: "in quarantine",
        6: "it is no JSON",
        7: "in quarantine",
    }
    assert daybook.import_("stripe", file, code=1)["recorded"] == 0


@pytest.mark.parametrize("indent", [None, 2])
def test_pages_as_the_command_line_prints_them_are_read(
    daybook: Installation, tmp_path: Path, indent: int | None
) -> None:
    pages = [{"object": "list", "data": EVENTS[at : at + 100], "has_more": True} for at in (0, 100)]
    file = tmp_path / "events.json"
    file.write_text("\n".join(json.dumps(page, indent=indent) for page in pages))

    assert daybook.import_("stripe", file)["recorded"] == 200
    file.write_bytes(lines(EVENTS))
    again = daybook.import_("stripe", file)
    assert (again["recorded"], again["duplicates"], again["conflicts"]) == (400, 200, 0)


def test_a_compressed_file_and_standard_input_are_read(daybook: Installation, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl.gz"
    file.write_bytes(gzip.compress(lines(EVENTS[:10])))

    assert daybook.import_("stripe", file)["recorded"] == 10
    assert daybook.import_("stripe", "-", stdin=lines(EVENTS[:20]))["recorded"] == 10


@pytest.mark.parametrize("damage", [lambda zipped: zipped[:-30], lambda zipped: b"x" + zipped])
def test_a_compressed_file_that_is_damaged_is_said_so(
    daybook: Installation, tmp_path: Path, damage: Any
) -> None:
    file = tmp_path / "events.jsonl.gz"
    file.write_bytes(damage(gzip.compress(lines(EVENTS[:300]))))

    assert "damaged" in daybook.run("import", "stripe", file, code=1)


def test_the_account_makes_events_those_that_a_platform_is_told(daybook: Installation, file: Path) -> None:
    daybook.append(*(posted("stripe", {**payload, "account": "acct_1"}) for payload in EVENTS[:10]))

    taken = daybook.import_("stripe", file, "--account", "acct_1")

    assert (taken["recorded"], taken["duplicates"], taken["conflicts"]) == (590, 10, 0)
    assert {row["account"] for row in daybook.rows()} == {"acct_1"}


def test_a_file_that_is_not_there_is_said_so(daybook: Installation) -> None:
    assert "no file that can be read" in daybook.run("import", "stripe", "nowhere", code=2)


def test_an_import_killed_in_the_middle_can_be_run_again(daybook: Installation, file: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "import", "stripe", "-"]
    importing = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **daybook.environment})
    assert importing.stdin is not None
    importing.stdin.write(lines(EVENTS[:400]))
    importing.stdin.flush()
    wait_until(daybook.rows, "a batch is in the ledger")
    importing.send_signal(signal.SIGKILL)
    importing.stdin.close()
    importing.wait(PATIENCE_SECONDS)

    assert len(daybook.rows()) == 256  # one batch; what was read of the next is not there
    taken = daybook.import_("stripe", file)
    assert (taken["recorded"], taken["duplicates"], taken["position"]) == (344, 256, 600)
