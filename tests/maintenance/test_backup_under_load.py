"""Backups while webhooks come in: each is of one moment, and holds all that was answered before it began."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from msgspec import json

from service.maintenance.backup import back_up, restore
from service.settings import load
from service.verify import verify_all
from tests.support.load import Load, positions
from tests.support.processes import DaybookProcesses
from tests.support.temporary_books import NOW
from tests.support.waiting import eventually

BEFORE = 60  # more events answered before each backup


async def test_each_backup_verifies_and_holds_what_was_answered_before_it(
    processes: DaybookProcesses, tmp_path: Path
) -> None:
    processes.start("web")
    processes.start("worker")
    await asyncio.to_thread(processes.wait_ready)
    posting = Load(processes.url, seed=1)
    sending = asyncio.create_task(posting.run())
    backups = tmp_path / "backups"

    # given backups under load, one of them by the command
    made = []
    for number in range(3):
        enough = len(posting.answered) + BEFORE
        await eventually(lambda: len(posting.answered) >= enough, "posted")  # noqa: B023
        before = dict(posting.answered)
        if number == 0:
            command = [sys.executable, "-m", "service.cli", "backup", str(backups), "--json"]
            said = await asyncio.to_thread(subprocess.check_output, command, env=processes.environment)
            where, position = Path(json.decode(said)["directory"]), json.decode(said)["position"]
        else:
            now = NOW + timedelta(days=number)
            where, held = await asyncio.to_thread(back_up, load(data_dir=tmp_path), backups, now)
            position = held.position
        made.append((where, position, before, len(posting.answered)))
    posting.stop()
    await sending

    # then each of them is a whole Daybook
    for number, (where, position, before, _) in enumerate(made):
        restored = load(data_dir=tmp_path / f"restored_{number}")
        restore(restored, where, NOW)
        found = await positions(restored.data_dir)
        assert before.items() <= found.items()
        verified = await verify_all(restored)
        assert verified.events == position == len(found)
        assert len(verified.books) > 1
    assert len({position for _, position, _, _ in made}) == len(made)
    assert any(after > len(before) for _, _, before, after in made), "nothing was posted meanwhile"
