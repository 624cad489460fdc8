"""Anchors show what a chain can't: that all of it was written anew, or that its end was cut off."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import json, to_builtins
from msgspec.structs import replace

from service.bootstrap import open_ledger
from service.core.errors import Integrity
from service.ledger import chain
from service.ledger.anchors import Anchor, Anchors
from service.ledger.draft import Incoming
from service.ledger.tables import Event
from service.settings import Settings
from service.verify import Fault, verify_all
from tests.support.events import changed, subscription
from tests.support.small_ledger import EVENTS
from tests.support.temporary_books import NOW, incoming, now

SEED = bytes(range(32))


def anchors(path: Path, seed: bytes = SEED) -> Anchors:
    return Anchors(path / "anchors.ndjson", seed, now)


def lines(path: Path) -> list[Anchor]:
    return [json.decode(line, type=Anchor) for line in (path / "anchors.ndjson").read_bytes().splitlines()]


async def append_one_more(settings: Settings) -> None:
    ledger = open_ledger(settings)
    await ledger.append([incoming(changed(subscription(), "2026-01-01", event_id="evt_more"))], NOW)
    await ledger.close()


async def test_each_run_adds_the_head_and_checks_those_before(settings: Settings, tmp_path: Path) -> None:
    first = await verify_all(settings, anchors=anchors(tmp_path))
    await append_one_more(settings)
    second = await verify_all(settings, anchors=anchors(tmp_path))

    assert (first.anchors, second.anchors) == (0, 1)
    assert [line.position for line in lines(tmp_path)] == [len(EVENTS), len(EVENTS) + 1]
    assert sorted(name for name in os.listdir(tmp_path) if "anchors" in name) == ["anchors.ndjson"]


def write_anew(path: Path, position: int) -> None:
    """Change an event, and make a chain of it and all after it that is unbroken."""
    names = [column.name for column in Event.__table__.c]
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM events ORDER BY position").fetchall()
        previous = chain.GENESIS
        for row in (dict(zip(names, values, strict=True)) for values in rows):
            if row["position"] == position:
                row["rank"] += 1
            previous = chain.link(previous, row)
            given = (row["rank"], previous, row["position"])
            connection.execute("UPDATE events SET rank = ?, digest = ? WHERE position = ?", given)
        connection.commit()


async def test_a_ledger_that_was_written_anew_is_found(settings: Settings, tmp_path: Path) -> None:
    await verify_all(settings, anchors=anchors(tmp_path))
    await append_one_more(settings)
    await verify_all(settings, anchors=anchors(tmp_path))

    write_anew(settings.data_dir / "ledger.db", len(EVENTS) + 1)

    assert await verify_all(settings, sample=None)
    with pytest.raises(
        Integrity, match=rf"rewritten before position {len(EVENTS) + 1} \(and after {len(EVENTS)}\)"
    ):
        await verify_all(settings, anchors=anchors(tmp_path))
    assert len(lines(tmp_path)) == 2


async def test_a_ledger_whose_end_was_cut_off_is_found(settings: Settings, tmp_path: Path) -> None:
    await verify_all(settings, anchors=anchors(tmp_path))
    with closing(sqlite3.connect(settings.data_dir / "ledger.db")) as connection:
        for table in ("events", "event_ids", "deliveries", "subjects"):
            connection.execute(f"DELETE FROM {table} WHERE position = {len(EVENTS)}")
        connection.commit()

    with pytest.raises(Integrity, match=f"ends before the anchor of line 1: at position {len(EVENTS) - 1}"):
        await verify_all(settings, anchors=anchors(tmp_path))


async def test_an_anchor_by_another_key_is_found(settings: Settings, tmp_path: Path) -> None:
    await verify_all(settings, anchors=anchors(tmp_path, bytes(32)))

    with pytest.raises(Integrity, match="line 1 was signed by another key"):
        await verify_all(settings, anchors=anchors(tmp_path))


def quarantined(text: bytes) -> Incoming:
    """A delivery that can't be read."""
    return replace(incoming(EVENTS[0]), events=[], body=text, content_digest=text, reason="malformed")


async def quarantine(settings: Settings, *texts: bytes) -> None:
    ledger = open_ledger(settings)
    await ledger.append([quarantined(text) for text in texts], NOW)
    await ledger.close()


async def test_a_quarantine_whose_end_was_cut_off_or_written_anew_is_found(
    settings: Settings, tmp_path: Path
) -> None:
    await quarantine(settings, b"one", b"other")
    await verify_all(settings, anchors=anchors(tmp_path))
    path = settings.data_dir / "ledger.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM quarantine WHERE id = 2")
        connection.execute("DELETE FROM quarantine_chain WHERE entry = 2")

    assert await verify_all(settings)
    with pytest.raises(Integrity, match="quarantine ends before the anchor of line 1: at record 1"):
        await verify_all(settings, anchors=anchors(tmp_path))

    await quarantine(settings, b"another")
    with pytest.raises(Integrity, match="quarantine was rewritten before record 2"):
        await verify_all(settings, anchors=anchors(tmp_path))


async def test_an_anchor_that_an_older_version_made_still_holds(settings: Settings, tmp_path: Path) -> None:
    await verify_all(settings, anchors=anchors(tmp_path))
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    older = replace(lines(tmp_path)[0], record=None, record_digest=None)
    fields = {"position", "digest", "at", "public_key"}
    document = {name: value for name, value in to_builtins(older).items() if name in fields}
    signed = {**document, "signature": key.sign(older.signed_bytes()).hex()}
    (tmp_path / "anchors.ndjson").write_bytes(json.encode(signed) + b"\n")

    assert (await verify_all(settings, anchors=anchors(tmp_path))).anchors == 1


@pytest.mark.parametrize(
    "change",
    [
        {"record": 5},
        {"record_digest": "11" * 32},
        {"position": 5},
        {"digest": "00" * 32},
        {"at": "2020-01-01T00:00:00Z"},
        {"signature": "00"},
    ],
)
async def test_a_changed_anchor_is_found(settings: Settings, tmp_path: Path, change: dict) -> None:
    await verify_all(settings, anchors=anchors(tmp_path))
    (line,) = lines(tmp_path)
    (tmp_path / "anchors.ndjson").write_bytes(json.encode(replace(line, **change)) + b"\n")

    with pytest.raises(Integrity, match="signature is wrong"):
        await verify_all(settings, anchors=anchors(tmp_path))


async def test_a_fault_adds_no_anchor(settings: Settings, tmp_path: Path) -> None:
    with closing(sqlite3.connect(settings.data_dir / "ledger.db")) as connection:
        connection.execute("DELETE FROM subjects WHERE position = 3")
        connection.commit()

    with pytest.raises(Fault):
        await verify_all(settings, anchors=anchors(tmp_path))
    assert not (tmp_path / "anchors.ndjson").exists()


async def test_a_file_of_something_else_is_left_as_it_is(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "anchors.ndjson").write_text("a list of mine\n")

    with pytest.raises(Integrity, match="no file of anchors"):
        await verify_all(settings, anchors=anchors(tmp_path))
    assert (tmp_path / "anchors.ndjson").read_text() == "a list of mine\n"
