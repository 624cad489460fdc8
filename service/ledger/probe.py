"""Whether anything can be written to the ledger now: a full disk can be read, and a standby, too."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from service.core.errors import Unavailable
from service.ledger.store import Ledger

_CURSOR = "write probe"
_INTERVAL_SECONDS = 1.0  # anybody may ask, and each probe waits for the disk


class WriteProbe:
    """Writes a few bytes to the ledger, at most once a second; in between it repeats what became of that."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lock = asyncio.Lock()
        self._next_at = 0.0
        self._is_writable = True

    async def check(self) -> None:
        """Raise Unavailable if nothing can be written."""
        async with self._lock:
            if time.monotonic() >= self._next_at:
                self._is_writable = await self._write()
                self._next_at = time.monotonic() + _INTERVAL_SECONDS
            if not self._is_writable:
                raise Unavailable("nothing can be written to the ledger now")

    async def _write(self) -> bool:
        try:
            await self._ledger.save_cursor(_CURSOR, b"", self._clock())
        except (SQLAlchemyError, OSError):
            return False
        return True
