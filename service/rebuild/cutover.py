"""Rebuilding: books built anew beside the live ones, compared with them, and put in their place in one step.

The live ones are read, and kept up to date, throughout. Whatever ends a rebuild before that step, they are as
if it had never begun.
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
from service.books.digest import Difference, differences, digest
from service.books.engine import Engine, Overtaken
from service.books.store import BookStore
from service.books.tables import rows_of
from service.core.errors import Unavailable
from service.ledger.append import read_head
from service.ledger.store import Ledger
from service.rebuild import builds
from service.rebuild.fill import Progress, build, unseen
from service.settings import Settings

_HOLD_SECONDS = 5.0
_TRIES = 20
_NEAR = 200  # events behind the live books from which they are held until the new ones are level
_FAR = 10_000  # events behind the new ones from which live books are not waited for if nothing hangs on them
_AGAIN_SECONDS = 0.02
_NEVER_LEVEL = "the live books never were at the new ones' position; try again when less arrives"


class Rebuilt(Struct, frozen=True, kw_only=True):
    """A book's new build beside the live one, which is None where there was none.

    `differences`: the first keys under which they differ, live on the left, new on the right.
    """

    name: str
    version: int
    build: int
    live: int | None
    digest: str
    live_digest: str | None
    differences: list[Difference]


class Rebuild(Struct, frozen=True, kw_only=True):
    """What became of a rebuild: the position at which the books were compared, and whether they are live."""

    position: int
    live: bool
    books: list[Rebuilt]


async def rebuild(
    settings: Settings,
    ledger: Ledger,
    store: BookStore,
    clock: Callable[[], datetime],
    *,
    processes: int | None = None,
    accept: bool = False,
    progress: Progress = unseen,
) -> Rebuild:
    """Build all books of `store` anew, and let them take the live ones' place if they are the same.

    Where no book of this version and these rules is live, there is nothing to compare with. `accept`: even if
    they differ, and without waiting for live ones that are far behind. Raises Unavailable if the live books
    can't be caught up with.
    """
    beside = frozenset((await store.read(store.positions)).books)
    made = await store.write(partial(builds.begin, store=store))
    until = (await ledger.read(read_head)).position
    await build(settings, ledger, store.of(made), until, processes=processes, progress=progress)
    cutover = _Cutover(ledger, store, made, beside, clock, progress)
    position, books = await cutover.compare(wait=not accept)
    if _differ(books) and (await ledger.read(read_head)).position > position:
        # A key destroyed is gone from every position, and the live books miss it from its own on only.
        position, books = await cutover.compare(wait=not accept)
    switched = accept or not _differ(books)
    if switched:
        await cutover.switch()
    return Rebuild(position=position, live=switched, books=books)


def _differ(books: Sequence[Rebuilt]) -> bool:
    return any(book.live_digest not in (None, book.digest) for book in books)


async def _step(engine: Engine, until: int) -> int:
    """One step, tried again where a store is busy or it was too much: the next one is smaller."""
    for _ in range(_TRIES):
        with suppress(SQLAlchemyError, OSError):
            return await engine.advance(until)
        await asyncio.sleep(_AGAIN_SECONDS)
    return await engine.advance(until)


class _Cutover:
    """New builds on their way to the live ones' place; `beside` are the books that were live before."""

    def __init__(
        self,
        ledger: Ledger,
        store: BookStore,
        made: Mapping[str, int],
        beside: Collection[str],
        clock: Callable[[], datetime],
        progress: Progress,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._made = dict(made)
        self._beside = beside
        self._clock = clock
        self._progress = progress
        self._engine = Engine(ledger, store.of(made), clock)

    async def compare(self, *, wait: bool) -> tuple[int, list[Rebuilt]]:
        """Look at both at one position; the live ones go on as soon as the view of them is open.

        `wait`: for live books that are far behind; they are compared with nothing else.
        """
        for _ in range(_TRIES):
            async with self._held() as at:
                live = await self._live() if wait or await self._live_lacks(at) < _FAR else {}
                await self._advance(live, at)
                async with self._store.reading() as view:
                    if await view.run_sync(self._positions, {*live.values(), *self._made.values()}) == {at}:
                        await self._release()
                        return at, [await self._rebuilt(view, book, live) for book in self._store.books]
        raise Unavailable(_NEVER_LEVEL)

    async def switch(self) -> None:
        """Let the new builds be the live ones."""
        for _ in range(_TRIES):
            async with self._held():
                with suppress(Overtaken):
                    await self._store.write(partial(builds.switch, store=self._store, builds=self._made))
                    return
        raise Unavailable(_NEVER_LEVEL)

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[int]:
        """The live books held where they are for a moment, and the new ones brought there; the position."""
        await self._come_near()
        hold = partial(builds.hold, store=self._store, builds=self._made, seconds=_HOLD_SECONDS)
        at = await self._store.write(hold)
        try:
            while await _step(self._engine, at):
                pass
            yield at
        finally:
            await self._release()

    async def _release(self) -> None:
        await self._store.write(partial(builds.release, store=self._store, builds=self._made))

    async def _come_near(self) -> None:
        """Take in what has arrived, until little is missing."""
        for _ in range(_TRIES):
            goal = max(
                await self._reached(await self._live()), default=(await self._ledger.read(read_head)).position
            )
            missing = goal - min(await self._reached(self._made))
            if missing <= _NEAR:
                return
            with self._progress("catching up", missing * len(self._made)) as done:
                while count := await _step(self._engine, goal):
                    done(count)
        raise Unavailable("events arrive faster than they can be taken in; try again when fewer do")

    async def _advance(self, live: dict[str, int], at: int) -> None:
        """Bring the live books to a position, as their workers do if there are any."""
        engine = Engine(self._ledger, self._store.of(live), self._clock)
        with self._progress("the live books catching up", None) as done:
            while live and min(await self._reached(live)) < at:
                try:
                    done(await _step(engine, at))
                except Overtaken:
                    await asyncio.sleep(_AGAIN_SECONDS)

    async def _live(self) -> dict[str, int]:
        found = (await self._store.read(self._store.positions)).books
        return {name: book_id for name, book_id in found.items() if name in self._beside}

    async def _live_lacks(self, at: int) -> int:
        return at - min(await self._reached(await self._live()), default=at)

    async def _reached(self, books: Mapping[str, int]) -> set[int]:
        return await self._store.read(partial(self._positions, ids=set(books.values())))

    def _positions(self, connection: Connection, ids: set[int]) -> set[int]:
        """The positions of all partitions of these books."""
        found = self._store.checkpoints(connection, {str(book_id): book_id for book_id in ids})
        return set(found.values())

    async def _rebuilt(self, view: AsyncConnection, book: Book, live: Mapping[str, int]) -> Rebuilt:
        """What the two books are at the position of the view."""
        new, old = self._made[book.name], live.get(book.name)
        size = sum([await view.run_sync(rows_of, book, each) for each in (new, old) if each is not None])
        with self._progress(f"{book.name}: comparing", size) as done:
            ours = await digest(view, book, new, done)
            theirs = None if old is None else await digest(view, book, old, done)
            unlike = (
                []
                if old is None or theirs == ours
                else await differences(book, (view, old), (view, new), done=done)
            )
        return Rebuilt(
            name=book.name,
            version=book.version,
            build=new,
            live=old,
            digest=ours,
            live_digest=theirs,
            differences=unlike,
        )
