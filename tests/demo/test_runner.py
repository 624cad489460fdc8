"""The demo posts into a ledger of its own only."""

import asyncio
import subprocess
import sys

from service.bootstrap import open_ledger
from service.settings import Settings
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS


async def test_the_demo_appends_nothing_to_a_ledger_that_is_not_its_own(small_daybook: Settings) -> None:
    async def position() -> int:
        ledger = open_ledger(small_daybook)
        try:
            async with ledger.reading() as reader:
                return (await reader.head()).position
        finally:
            await ledger.close()

    before = await position()
    command = ["demo", "--once", "--data-dir", str(small_daybook.data_dir), "--port", str(free_port())]

    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "service.cli", *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )

    assert ran.returncode == 1
    assert ran.stderr.endswith("holds a ledger that is not the demo's; name another --data-dir\n")
    assert await position() == before > 0
