"""What the parts of one reconciliation share: the stores, the client, and what was counted so far."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

from msgspec import Struct, field
from sqlalchemy import Connection

from service.books.store import BookStore
from service.core.delivery import ModeOf, Processor
from service.core.events import Event
from service.core.moments import day_of
from service.core.progress import Advance, no_advance
from service.ledger.append import read_head
from service.ledger.history import read_histories
from service.ledger.store import Ledger
from service.sync.client import ApiClient
from service.sync.reconcile.books import wait_for_head
from service.sync.reconcile.report import Differences


class Session(Struct, kw_only=True):
    """One reconciliation with a processor; a dry run writes nothing at all.

    `advance` is called with the number of objects of each page. `mended` are the differences that were
    found and settled.
    """

    processor: Processor
    client: ApiClient
    ledger: Ledger
    store: BookStore
    clock: Callable[[], datetime]
    mode_of: ModeOf
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    dry_run: bool = False
    advance: Advance = no_advance
    listed: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    mended: Differences = field(default_factory=dict)

    @property
    def today(self) -> str:
        """The day of the reporting zone."""
        return day_of(self.clock(), self.store.rules.zone).isoformat()

    async def wait_for_books(self) -> None:
        """Wait until the books have reached the ledger's present head. Raises Unavailable."""
        await wait_for_head(self.ledger, self.store, self.pause)

    async def read_histories(self, subjects: Iterable[str], *, whole: bool = True) -> dict[str, list[Event]]:
        """The histories of these names, as the ledger has them now; not `whole`: as the books read them."""
        names = list(subjects)

        def read(connection: Connection) -> dict[str, list[Event]]:
            position = read_head(connection).position
            return read_histories(connection, names, position, self.ledger.vault, whole=whole)

        return await self.ledger.read(read)
