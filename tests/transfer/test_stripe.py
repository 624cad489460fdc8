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

from tests.transfer.kept import Kept, lines, posted
from tests.waiting import PATIENCE_SECONDS, wait_until
from tests.web.senders import stripe_event, stripe_subscription


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


def test_every_event_of_a_file_is_recorded_and_nothing_proves_it(kept: Kept, file: Path) -> None:
    taken = kept.take("stripe", file)

    assert (taken["deliveries"], taken["recorded"], taken["position"]) == (600, 600, 600)
    rows = kept.rows()
    assert [row["event_id"] for row in rows] == [told["id"] for told in EVENTS]
    assert {row["trust"] for row in rows} == {"unsigned"}


def test_an_import_that_is_repeated_changes_nothing(kept: Kept, file: Path) -> None:
    kept.take("stripe", file)
    before = kept.held()

    again = kept.take("stripe", file)

    assert (again["recorded"], again["duplicates"], again["conflicts"]) == (0, 600, 0)
    assert kept.held() == before


def test_what_a_webhook_told_is_a_duplicate(kept: Kept, file: Path) -> None:
    kept.append(*(posted("stripe", {**told, "pending_webhooks": 1}) for told in EVENTS[:300]))

    taken = kept.take("stripe", file)

    assert (taken["recorded"], taken["duplicates"], taken["conflicts"]) == (300, 300, 0)


def test_an_event_that_another_api_version_says_is_a_duplicate(kept: Kept, tmp_path: Path) -> None:
    kept.append(posted("stripe", event("1", api_version="2024-06-20")))
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines([event("1", request={"id": None})]))

    assert kept.take("stripe", file)["duplicates"] == 1
    assert not (kept.held())["quarantine"]


def test_other_content_of_the_same_version_is_a_conflict(kept: Kept, tmp_path: Path) -> None:
    kept.append(posted("stripe", event("1")))
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines([event("1", 9900)]))

    taken = kept.take("stripe", file, code=1)

    assert taken["conflicts"] == 1
    assert taken["notes"] == [
        {"line": 1, "detail": "in quarantine: position 1 has this id and other content"}
    ]
    assert [reason for reason, _ in (kept.held())["quarantine"]] == ["conflict"]


def test_an_event_whose_bytes_are_gone_is_a_duplicate(kept: Kept, tmp_path: Path) -> None:
    """A customer's, say, who was erased: nobody can say any more that it was told otherwise."""
    erased = stripe_event("customer.created", {"id": "cus_1", "object": "customer", "name": "Ada Example"})
    kept.append(posted("stripe", erased))
    kept.run("erase", "cus_1", "--yes")
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines([erased]))

    assert kept.take("stripe", file)["duplicates"] == 1


def test_lines_that_cannot_be_read_keep_out_no_others(kept: Kept, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    broken = lines([event("1")])[:-20] + b"\n"
    file.write_bytes(broken + b"\n" + lines([event("2"), {"object": "event"}, event("3")]) + b"\xff\n7\n")

    taken = kept.take("stripe", file, code=1)

    assert (taken["recorded"], taken["quarantined"], taken["unreadable_lines"]) == (2, 2, 2)
    assert {note["line"]: note["detail"].partition(":")[0] for note in taken["notes"]} == {
        1: "it is no JSON",
        4: "in quarantine",
        6: "it is no JSON",
        7: "in quarantine",
    }
    assert kept.take("stripe", file, code=1)["recorded"] == 0


@pytest.mark.parametrize("indent", [None, 2])
def test_pages_as_the_command_line_prints_them_are_read(
    kept: Kept, tmp_path: Path, indent: int | None
) -> None:
    pages = [{"object": "list", "data": EVENTS[at : at + 100], "has_more": True} for at in (0, 100)]
    file = tmp_path / "events.json"
    file.write_text("\n".join(json.dumps(page, indent=indent) for page in pages))

    assert kept.take("stripe", file)["recorded"] == 200
    file.write_bytes(lines(EVENTS))
    again = kept.take("stripe", file)
    assert (again["recorded"], again["duplicates"], again["conflicts"]) == (400, 200, 0)


def test_a_compressed_file_and_standard_input_are_read(kept: Kept, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl.gz"
    file.write_bytes(gzip.compress(lines(EVENTS[:10])))

    assert kept.take("stripe", file)["recorded"] == 10
    assert kept.take("stripe", "-", stdin=lines(EVENTS[:20]))["recorded"] == 10


@pytest.mark.parametrize("damage", [lambda zipped: zipped[:-30], lambda zipped: b"x" + zipped])
def test_a_compressed_file_that_is_damaged_is_said_so(kept: Kept, tmp_path: Path, damage: Any) -> None:
    file = tmp_path / "events.jsonl.gz"
    file.write_bytes(damage(gzip.compress(lines(EVENTS[:300]))))

    assert "damaged" in kept.run("import", "stripe", file, code=1)


def test_the_account_makes_events_those_that_a_platform_is_told(kept: Kept, file: Path) -> None:
    kept.append(*(posted("stripe", {**told, "account": "acct_1"}) for told in EVENTS[:10]))

    taken = kept.take("stripe", file, "--account", "acct_1")

    assert (taken["recorded"], taken["duplicates"], taken["conflicts"]) == (590, 10, 0)
    assert {row["account"] for row in kept.rows()} == {"acct_1"}


def test_a_file_that_is_not_there_is_said_so(kept: Kept) -> None:
    assert "no file that can be read" in kept.run("import", "stripe", "nowhere", code=2)


def test_an_import_killed_in_the_middle_can_be_run_again(kept: Kept, file: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "import", "stripe", "-"]
    importing = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **kept.environment})
    assert importing.stdin is not None
    importing.stdin.write(lines(EVENTS[:400]))
    importing.stdin.flush()
    wait_until(kept.rows, "a batch is in the ledger")
    importing.send_signal(signal.SIGKILL)
    importing.stdin.close()
    importing.wait(PATIENCE_SECONDS)

    assert len(kept.rows()) == 256  # one batch; what was read of the next is not there
    taken = kept.take("stripe", file)
    assert (taken["recorded"], taken["duplicates"], taken["position"]) == (344, 256, 600)
