"""With which version of its translation all that the ledger holds of a processor was translated.

It is recorded for a processor of which the ledger holds nothing yet, and after a complete retranslation. A
processor without a record, or with that of an older version, is due for retranslation. The record says
nothing of what an older Daybook that still runs, or an import of another ledger, adds afterwards.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from handlers import PROCESSORS
from service.ledger.cursors import read_cursors, save_cursor
from service.ledger.reader import recorded_processors, waiting_processors
from service.ledger.store import Ledger
from service.ledger.vault import Vault

VERSIONS = {processor.name: processor.version for processor in PROCESSORS}
COMMAND = "daybook retranslate --apply"


def find_due(connection: Connection, vault: Vault) -> list[str]:
    """The processors whose deliveries are to be translated again; one look-up."""
    recorded = _read_versions(connection, vault)
    return [name for name, version in VERSIONS.items() if recorded.get(name, 0) < version]


def record_at_start(connection: Connection, vault: Vault, now: datetime) -> None:
    """Record today's version of each processor of which the ledger holds nothing.

    A newer Daybook's version is lowered: what comes in from now on is translated with an older one.
    """
    recorded = _read_versions(connection, vault)
    held_names = recorded_processors(connection) + waiting_processors(connection)
    held = {name.partition(".")[0] for name in held_names}
    for name, version in VERSIONS.items():
        if name not in held or recorded.get(name, 0) > version:
            save_cursor(connection, vault, _cursor(name), _body(name), now)


async def record_retranslated(ledger: Ledger, processors: Iterable[str], now: datetime) -> None:
    """Record that all of these processors was retranslated with today's versions."""
    for name in processors:
        await ledger.save_cursor(_cursor(name), _body(name), now)


class DueMonitor:
    """Which processors are due. Once none is, that stays so as long as the process runs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._is_settled = False

    async def read_due(self) -> list[str]:
        """The processors that are due, by one look-up at most."""
        if self._is_settled:
            return []
        due = await self._ledger.read(partial(find_due, vault=self._ledger.vault))
        self._is_settled = not due
        return due


def _body(processor: str) -> bytes:
    return str(VERSIONS[processor]).encode()


def _cursor(processor: str) -> str:
    return f"translated|{processor}"


def _read_versions(connection: Connection, vault: Vault) -> dict[str, int]:
    """The recorded versions by processor."""
    bodies = read_cursors(connection, vault, map(_cursor, VERSIONS))
    return {name.partition("|")[2]: int(body) for name, body in bodies.items()}
