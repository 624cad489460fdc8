"""Verification: the ledger's chain, the books against a replay or a sample, the totals against their rows."""

import asyncio
from functools import partial

from msgspec import Struct

from service.books.store import BookStore
from service.bootstrap import open_books, open_ledger
from service.core.errors import SettingsError, Unavailable
from service.core.progress import Progress, no_progress
from service.ledger.anchors import Anchors
from service.ledger.append import read_head
from service.ledger.set_aside import last_change
from service.ledger.store import Ledger
from service.rebuild.fill import fill_books
from service.settings import Settings
from service.storage.database import books_path, ledger_path
from service.verify.fault import Fault, Location
from service.verify.files import named_if_unreadable, verify_file
from service.verify.ledger import verify_chain
from service.verify.replay import Fill, digests, read_positions, replay, verify_replay
from service.verify.sample import Sample, verify_sample
from service.verify.totals import verify_totals

__all__ = [
    "Fault",
    "Sample",
    "Verified",
    "digests",
    "replay",
    "verify_all",
    "verify_chain",
    "verify_lag",
    "verify_replay",
    "verify_sample",
    "verify_totals",
]


class Verified(Struct, frozen=True, kw_only=True):
    """The checks that passed. `books` are the digests of the books and their replay; empty with a sample.

    `compared` is the number of the sample's keys that were folded again; `anchors` that of heads checked.
    """

    events: int
    lag_events: int
    books: dict[str, str]
    compared: int | None = None
    seed: int | None = None
    anchors: int | None = None

    def lines(self) -> list[str]:
        """A line for each check."""
        return [
            *(
                []
                if self.anchors is None
                else [f"anchors: {self.anchors} checked, all in the ledger; its end added"]
            ),
            f"chain: {self.events} events, unbroken",
            *(f"{name}: equal to a replay, {value}" for name, value in self.books.items()),
            *([] if self.compared is None else [f"sample: {self.compared} keys, equal (seed {self.seed})"]),
            "totals: equal to their rows",
            f"lag: {self.lag_events} events",
        ]


async def verify_all(
    settings: Settings,
    *,
    sample: Sample | None = None,
    anchors: Anchors | None = None,
    progress: Progress = no_progress,
) -> Verified:
    """Do all checks, in order; compare the books with a whole replay unless a sample is given.

    If all pass, the head is added to the anchors. Raises Fault at the first check that fails, SettingsError
    if there is no ledger.
    """
    if not settings.database_url:
        if not ledger_path(settings.data_dir).exists():
            raise SettingsError(f"there is no ledger in {settings.data_dir} (DAYBOOK_DATA_DIR)")
        with progress("files", None):
            for path in (ledger_path(settings.data_dir), books_path(settings.data_dir)):
                if path.exists():
                    await asyncio.to_thread(verify_file, path)
    ledger, store = open_ledger(settings), open_books(settings)
    try:
        processes = 1 if store.partitions > 1 else None  # SQLite's one writer would be shared by several
        fill = partial(fill_books, settings, ledger, processes=processes, progress=progress)
        with named_if_unreadable(settings):
            return await _verify(ledger, store, fill, sample, anchors, progress)
    finally:
        await store.close()
        await ledger.close()


async def _verify(
    ledger: Ledger,
    store: BookStore,
    fill: Fill,
    sample: Sample | None,
    anchors: Anchors | None,
    progress: Progress,
) -> Verified:
    anchored = await anchors.check(ledger) if anchors else None
    with progress("chain", (await ledger.read(read_head)).position) as advance:
        events = await verify_chain(ledger, advance, sample.add_names if sample else lambda _names: None)
    lag = await verify_lag(ledger, store)
    reached = (await store.read(store.positions)).position
    books: dict[str, str] = {}
    compared = None
    try:
        if sample:
            with progress("sample", None) as advance:
                compared = await verify_sample(ledger, store, sample, advance)
        else:
            _, books = await verify_replay(ledger, store, fill)
    except Fault:
        # Books that have not reached the event by which a history is set aside may hold more of it.
        if await ledger.read(last_change) > reached:
            raise Unavailable("a history is being set aside or lifted: verify again in a moment") from None
        raise
    with progress("totals", None) as advance:
        await verify_totals(store, advance)
    if anchors:
        await anchors.extend(ledger, events)
    return Verified(
        events=events,
        lag_events=lag,
        books=books,
        compared=compared,
        seed=sample.seed if sample else None,
        anchors=anchored,
    )


async def verify_lag(ledger: Ledger, store: BookStore) -> int:
    """How many events the books are behind. Raises Fault if they hold events that the ledger lacks."""
    async with store.reading() as connection:
        positions = await connection.run_sync(lambda view: read_positions(view, store))
    end = (await ledger.read(read_head)).position
    for (name, partition), position in sorted(positions.items()):
        if position > end:
            where = Location(table="checkpoints", key=f"{name}, partition {partition}", columns=("position",))
            raise Fault(f"book {name} holds position {position}, and the ledger ends at {end}", where)
    return end - min(positions.values())
