"""Rebuilding: books built anew beside the live ones, compared with them, and made live in one step.

The old ones are read, and kept up to date, throughout. If a rebuild ends early, for whatever reason, they are
unchanged.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial

from msgspec import Struct
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from projections.book import Book
from service.books.digest import RowDifference, differences, digest
from service.books.engine import Engine, Overtaken
from service.books.store import BookStore
from service.books.tables import count_rows
from service.core.errors import Unavailable
from service.core.progress import Progress, no_progress
from service.ledger.append import read_head
from service.ledger.store import Ledger
from service.rebuild import builds
from service.rebuild.fill import fill_books
from service.settings import Settings

_HOLD_SECONDS = 5.0
_ATTEMPTS = 20
_NEAR_EVENTS = 200  # so many events the new books may be behind when the live ones are held for them
_FAR_EVENTS = 10_000  # live books that are further behind are not waited for if differences are accepted
_RETRY_SECONDS = 0.02
_NEVER_LEVEL = "the live books never were at the new ones' position; try again when less arrives"


class RebuiltBook(Struct, frozen=True, kw_only=True):
    """A book's new build compared with the live one, which is None if there was none.

    `differences`: those of the first keys that differ, live on the left, new on the right.
    """

    name: str
    version: int
    build: int
    live: int | None
    digest: str
    live_digest: str | None
    differences: list[RowDifference]


class RebuildResult(Struct, frozen=True, kw_only=True):
    """The result of a rebuild: the position at which the books were compared; whether the new are live."""

    position: int
    live: bool
    books: list[RebuiltBook]


async def rebuild(
    settings: Settings,
    ledger: Ledger,
    store: BookStore,
    clock: Callable[[], datetime],
    *,
    processes: int | None = None,
    accept: bool = False,
    progress: Progress = no_progress,
) -> RebuildResult:
    """Build all books of `store` anew, and make them live if they equal the live ones.

    A book that is not live in this version under these rules is compared with nothing. `accept`: make them
    live even if they differ, and without waiting for live ones that are far behind. Raises Unavailable if the
    live books can't be caught up with.
    """
    live_names = frozenset((await store.read(store.positions)).books)
    new_ids = await store.write(partial(builds.start_builds, store=store))
    until = (await ledger.read(read_head)).position
    await fill_books(
        settings, ledger, store.with_builds(new_ids), until, processes=processes, progress=progress
    )
    cutover = _Cutover(ledger, store, new_ids, live_names, clock, progress)
    position, books = await cutover.compare(wait=not accept)
    if _any_differs(books) and (await ledger.read(read_head)).position > position:
        # An erasure removes data from every position at once in new books, but in live books only when they
        # reach the position of the erasure. So differences count only if they remain at a later position.
        position, books = await cutover.compare(wait=not accept)
    switched = accept or not _any_differs(books)
    if switched:
        await cutover.switch()
    return RebuildResult(position=position, live=switched, books=books)


def _any_differs(books: Sequence[RebuiltBook]) -> bool:
    return any(book.live_digest not in (None, book.digest) for book in books)


async def _advance_with_retries(engine: Engine, until: int) -> int:
    """Advance by one transaction; after a failure try again, with a smaller batch."""
    for _ in range(_ATTEMPTS):
        with suppress(SQLAlchemyError, OSError):
            return await engine.advance(until)
        await asyncio.sleep(_RETRY_SECONDS)
    return await engine.advance(until)


class _Cutover:
    """The comparison of new builds with the live books, and the switch to them.

    `new_ids` are those of the new builds, by book; `live_names` are the books that were live before.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: BookStore,
        new_ids: Mapping[str, int],
        live_names: Collection[str],
        clock: Callable[[], datetime],
        progress: Progress,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._new_ids = dict(new_ids)
        self._live_names = live_names
        self._clock = clock
        self._progress = progress
        self._engine = Engine(ledger, store.with_builds(new_ids), clock)

    async def compare(self, *, wait: bool) -> tuple[int, list[RebuiltBook]]:
        """Compare new and live books at one position; the live ones go on as soon as a view of them is open.

        `wait` for live books that are far behind; otherwise the new ones are not compared with them.
        """
        for _ in range(_ATTEMPTS):
            async with self._level_and_hold() as position:
                live = (
                    await self._live_books() if wait or await self._live_lag(position) < _FAR_EVENTS else {}
                )
                await self._advance_live(live, position)
                async with self._store.reading() as view:
                    ids = {*live.values(), *self._new_ids.values()}
                    if await view.run_sync(self._positions, ids) == {position}:
                        await self._release()
                        return position, [
                            await self._compare_book(view, book, live) for book in self._store.books
                        ]
        raise Unavailable(_NEVER_LEVEL)

    async def switch(self) -> None:
        """Make the new builds live."""
        for _ in range(_ATTEMPTS):
            async with self._level_and_hold():
                with suppress(Overtaken):
                    await self._store.write(
                        partial(builds.make_live, store=self._store, builds=self._new_ids)
                    )
                    return
        raise Unavailable(_NEVER_LEVEL)

    @asynccontextmanager
    async def _level_and_hold(self) -> AsyncIterator[int]:
        """Hold the live books for a moment, and bring the new ones to the same position; that position."""
        await self._catch_up()
        hold = partial(builds.hold_live_books, store=self._store, builds=self._new_ids, seconds=_HOLD_SECONDS)
        position = await self._store.write(hold)
        try:
            while await _advance_with_retries(self._engine, position):
                pass
            yield position
        finally:
            await self._release()

    async def _release(self) -> None:
        await self._store.write(partial(builds.release_live_books, store=self._store, builds=self._new_ids))

    async def _catch_up(self) -> None:
        """Advance the new books until they lack few events only."""
        for _ in range(_ATTEMPTS):
            goal = max(
                await self._read_positions(await self._live_books()),
                default=(await self._ledger.read(read_head)).position,
            )
            missing = goal - min(await self._read_positions(self._new_ids))
            if missing <= _NEAR_EVENTS:
                return
            with self._progress("catching up", missing * len(self._new_ids)) as advance:
                while count := await _advance_with_retries(self._engine, goal):
                    advance(count)
        raise Unavailable("events arrive faster than they can be taken in; try again when fewer do")

    async def _advance_live(self, live: dict[str, int], position: int) -> None:
        """Bring the live books to a position, beside their workers if there are any."""
        engine = Engine(self._ledger, self._store.with_builds(live), self._clock)
        with self._progress("the live books catching up", None) as advance:
            while live and min(await self._read_positions(live)) < position:
                try:
                    advance(await _advance_with_retries(engine, position))
                except Overtaken:
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _live_books(self) -> dict[str, int]:
        books = (await self._store.read(self._store.positions)).books
        return {name: book_id for name, book_id in books.items() if name in self._live_names}

    async def _live_lag(self, position: int) -> int:
        return position - min(await self._read_positions(await self._live_books()), default=position)

    async def _read_positions(self, books: Mapping[str, int]) -> set[int]:
        return await self._store.read(partial(self._positions, ids=set(books.values())))

    def _positions(self, connection: Connection, ids: set[int]) -> set[int]:
        """The positions of all partitions of these books."""
        checkpoints = self._store.checkpoints(connection, {str(book_id): book_id for book_id in ids})
        return set(checkpoints.values())

    async def _compare_book(
        self, view: AsyncConnection, book: Book, live_ids: Mapping[str, int]
    ) -> RebuiltBook:
        """Compare a book's new build with the live one, at the position of the view."""
        new_id, live_id = self._new_ids[book.name], live_ids.get(book.name)
        ids = [book_id for book_id in (new_id, live_id) if book_id is not None]
        size = sum([await view.run_sync(count_rows, book, book_id) for book_id in ids])
        with self._progress(f"{book.name}: comparing", size) as advance:
            new_digest = await digest(view, book, new_id, advance)
            live_digest = None if live_id is None else await digest(view, book, live_id, advance)
            row_differences = (
                []
                if live_id is None or live_digest == new_digest
                else await differences(book, (view, live_id), (view, new_id), advance=advance)
            )
        return RebuiltBook(
            name=book.name,
            version=book.version,
            build=new_id,
            live=live_id,
            digest=new_digest,
            live_digest=live_digest,
            differences=row_differences,
        )
