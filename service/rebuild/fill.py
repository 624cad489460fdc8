"""Building: empty books filled from the ledger, history by history, with no write for each event.

    await build(settings, ledger, store, until, processes=None, progress=unseen)

brings every book of `store` from position 0 to `until`. The store may be that of the settings, opened for
builds that are not live (`BookStore.of`), or any other with empty books, such as a new SQLite file. It may
read a ledger on SQLite or PostgreSQL, which it does not write.

Histories are read by key, in the order of their names, and folded in memory by several processes. What
they contribute is written in large pieces; then, stage by stage, the same for the keys that rows feed.
Totals are added up in memory and written once, at the end, in partition 0: only the sum over partitions
means anything. The checkpoints move last, so that until then nobody takes the books for filled.
"""

import asyncio
import multiprocessing
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple
from sqlalchemy import Connection, bindparam, func, select, update

from projections.book import Book, Row, Rules, Stage
from service.books import tables
from service.books.engine import Overtaken, Sums, add_to, child_rows_of, new_sums
from service.books.store import BookStore
from service.bootstrap import kept_books, open_ledger
from service.clock import utc_now
from service.core.errors import Unavailable
from service.core.moments import to_us
from service.core.order import canonical
from service.ledger import tables as ledger_tables
from service.ledger.history import read_histories
from service.ledger.store import Ledger
from service.processes.lifeline import follow_parent
from service.settings import Settings
from service.storage.database import Database
from service.storage.statements import HotStatement, any_of, first

_PAGE = 2_000  # keys found at once
_TASK = 2_000  # events, or rows that are child_rows, in one task of a process
_ROWS = 2_000  # rows in one transaction
_REST = 0.5  # beside SQLite's live books, their worker's turn: this many times what a transaction took
_ALONE = 20_000  # events for which one more process is worth its start

Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
Task = tuple[Any, ...]  # the name of a method of `_BuildWorker`, and its arguments
_Totals = dict[tuple[str, str], Sums]  # by the names of book and table


def unseen(_what: str, _total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    """No progress is shown."""
    return nullcontext(lambda _count: None)


async def build(
    settings: Settings,
    ledger: Ledger,
    store: BookStore,
    until: int,
    *,
    processes: int | None = None,
    progress: Progress = unseen,
) -> None:
    """Fill the empty books of `store` with all events up to `until`; returns once their checkpoints say so.

    `processes` None: as many as there are processors, fewer for few events; 1 stays in this one. With more,
    books are found by name among those that the settings keep. Raises Overtaken if the books are removed
    meanwhile, Unavailable if a process is killed; whatever fails, the checkpoints stay at 0.
    """
    ids = (await store.read(store.positions)).books
    count = processes or min(os.cpu_count() or 1, 1 + until // _ALONE)
    totals: _Totals = {}
    rest = _REST if store.builds is not None and store.partitions == 1 else 0.0
    async with _workers(settings, ledger, store.of(ids), until, count, rest) as run:

        async def spread(what: str, tasks: AsyncIterator[Task], total: int) -> None:
            with progress(what, total) as done:
                async for each in _spread(run, tasks, 2 * count if count > 1 else 1):
                    _merge(totals, each.totals)
                    done(each.read)

        kinds = sorted({stage.reads for _, _, stage in _stages(store) if isinstance(stage.reads, str)})
        async with ledger.reading() as reader:
            entries = await reader.count_subjects()
        await spread("histories", _histories(ledger, kinds, until), entries)
        await store.write(store.analyze)
        for book, number, stage in _stages(store):
            if not isinstance(stage.reads, str):
                async with store.reading() as view:
                    child_rows = await view.run_sync(_count_child_rows, stage, ids[book.name])
                made = ", ".join(row.table for row in stage.rows)
                await spread(
                    f"{book.name}: {made}", _parent_keys(store, book, number, ids[book.name]), child_rows
                )
    await _finish(store, ids, totals, until)


def _stages(store: BookStore) -> Iterator[tuple[Book, int, Stage]]:
    return ((book, number, stage) for book in store.books for number, stage in enumerate(book.stages))


async def _finish(store: BookStore, ids: Mapping[str, int], totals: _Totals, until: int) -> None:
    """Write the totals; then say how far the books are."""
    for (book, table), sums in totals.items():
        rows = sorted((ids[book], 0, *group, *values) for group, values in sums.items() if any(values))
        for start in range(0, len(rows), _ROWS):
            add = partial(tables.ADD[table].add, rows=rows[start : start + _ROWS])
            await store.write(add)
    reached = {"position": until, "changed": until, "advanced_at_us": to_us(utc_now())}
    query = update(tables.checkpoints).where(tables.checkpoints.c.book.in_(ids.values())).values(reached)
    await store.write(lambda connection: connection.execute(query))


def _merge(totals: _Totals, added: _Totals) -> None:
    for name, sums in added.items():
        into = totals.setdefault(name, sums)
        if into is not sums:
            for group, values in sums.items():
                into[group] = [a + b for a, b in zip(into[group], values, strict=True)]


# What there is to do, in tasks


async def _histories(ledger: Ledger, kinds: Iterable[str], until: int) -> AsyncIterator[Task]:
    """The histories of these kinds of subjects, in order of their names."""
    for kind in kinds:

        def names(connection: Connection, after: str, kind: str = kind) -> list[tuple[str, int]]:
            return _NAMES.run(connection, max(after, f"{kind}|"), f"{kind}}}", until, _PAGE)

        async for keys in _pages(ledger.read, names):
            yield "histories", keys


async def _parent_keys(store: BookStore, book: Book, number: int, book_id: int) -> AsyncIterator[Task]:
    """The keys that rows feed to a later stage, in order."""

    def keys_after(connection: Connection, after: str) -> list[tuple[str, int]]:
        counted: Counter[str] = Counter()
        for row_type in book.stages[number].reads:
            found = tables.STATEMENTS[row_type].parent_keys.run(connection, book_id, after, _PAGE)  # type: ignore[index]
            counted.update(dict(found))
        return sorted(counted.items())[:_PAGE]

    async for keys in _pages(store.read, keys_after):
        yield "parent_key", book.name, number, keys


async def _pages(
    read: Callable[[Callable[[Connection], Any]], Awaitable[Any]],
    after: Callable[..., list[tuple[str, int]]],
) -> AsyncIterator[list[str]]:
    """All keys, as many at a time as make a task: each is found with how much there is to read under it."""
    last = ""
    while page := await read(partial(after, after=last)):
        last = page[-1][0]
        keys, size = [], 0
        for key, count in page:
            keys.append(key)
            size += count
            if size >= _TASK:
                yield keys
                keys, size = [], 0
        if keys:
            yield keys


_subjects = ledger_tables.Subject.__table__  # type: ignore[attr-defined]
_NAMES = HotStatement(
    lambda _: first(
        select(_subjects.c.subject, func.count())
        .where(_subjects.c.subject > bindparam("after"), _subjects.c.subject < bindparam("end"))
        .where(_subjects.c.position <= bindparam("until"))
        .group_by(_subjects.c.subject)
        .order_by(_subjects.c.subject)
    )
)


def _count_child_rows(connection: Connection, stage: Stage, book_id: int) -> int:
    statements = [tables.STATEMENTS[row] for row in stage.reads if not isinstance(row, str)]
    return sum(each.count_with_parent.run(connection, book_id, "")[0][0] for each in statements)


# Those who do it


class _Done(Struct):
    """How much one task has read, and what the rows that it wrote add to totals."""

    read: int
    totals: _Totals


class _BuildWorker:
    """Does tasks, with a ledger and a store of its own process. `gate` lets one of all hands write."""

    def __init__(
        self,
        ledger: Ledger,
        store: BookStore,
        until: int,
        rest: float,
        gate: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._until = until
        self._rest = rest
        self._gate = gate or nullcontext()

    async def do(self, task: Task) -> _Done:
        name, *args = task
        methods: dict[str, Callable[..., Awaitable[_Done]]] = {
            "histories": self._histories,
            "parent_key": self._parent_keys,
        }
        return await methods[name](*args)

    async def _histories(self, names: list[str]) -> _Done:
        """Contribute what these histories say to every book."""
        read = partial(read_histories, names=names, up_to=self._until, vault=self._ledger.vault)
        told = {name: canonical(events) for name, events in (await self._ledger.read(read)).items()}
        done, rows = _Done(read=sum(map(len, told.values())), totals={}), _Rows(list)
        for book, _, stage in _stages(self._store):
            if isinstance(stage.reads, str):
                own = {name: events for name, events in told.items() if name.startswith(f"{stage.reads}|")}
                _contribute(self._store, book, stage, own, rows, done.totals)
        await self._write(rows)
        return done

    async def _parent_keys(self, name: str, number: int, keys: list[str]) -> _Done:
        """Contribute what the rows say that feed these keys of a later stage."""
        book = next(book for book in self._store.books if book.name == name)
        stage, book_id = book.stages[number], (self._store.builds or {})[name]
        child_rows = await self._store.read(partial(child_rows_of, stage=stage, book_id=book_id, keys=keys))
        done, rows = _Done(read=sum(map(len, child_rows.values())), totals={}), _Rows(list)
        _contribute(self._store, book, stage, child_rows, rows, done.totals)
        await self._write(rows)
        return done

    async def _write(self, rows: "_Rows") -> None:
        builds = list((self._store.builds or {}).values())
        for piece in _pieces(rows):
            with self._gate:
                started = time.perf_counter()
                await self._store.write(partial(_insert, piece=piece, builds=builds))
                await asyncio.sleep(self._rest * (time.perf_counter() - started))


_Rows = defaultdict[type[Row], list[tuple[Any, ...]]]  # the values to insert
_Piece = list[tuple[type[Row], list[tuple[Any, ...]]]]


def _contribute(
    store: BookStore,
    book: Book,
    stage: Stage,
    under: Mapping[str, Sequence[Any]],
    rows: _Rows,
    totals: _Totals,
) -> None:
    """Add to `rows` and `totals` what a stage says of what there is under each key."""
    rules, book_id = store.rules.with_policy(book.policy), (store.builds or {})[book.name]
    sums = {
        total: totals.setdefault((book.name, total.table), new_sums(total))
        for total in book.totals
        if total.row_type in stage.rows
    }
    for key, read in under.items():
        contributed = dict.fromkeys(stage.contribute(read, rules))
        for row in contributed:
            rows[type(row)].append((book_id, key, *astuple(row)))
        for total, into in sums.items():
            add_to(into, total, contributed)


def _pieces(rows: _Rows) -> Iterator[_Piece]:
    """Rows as one transaction writes them."""
    piece: _Piece = []
    room = _ROWS
    for row_type, values in rows.items():
        start = 0
        while part := values[start : start + room]:
            piece.append((row_type, part))
            start, room = start + len(part), room - len(part)
            if not room:
                yield piece
                piece, room = [], _ROWS
    if piece:
        yield piece


def _insert(connection: Connection, piece: _Piece, builds: list[int]) -> None:
    """Write rows. Raises Overtaken if a build was removed: its rows would be nobody's."""
    if len(_STANDING.run(connection, builds)) < len(builds):
        raise Overtaken("what is being built was removed")
    for row_type, rows in piece:
        tables.STATEMENTS[row_type].insert.add(connection, rows)


_STANDING = HotStatement(lambda _: select(tables.books.c.id).where(any_of(tables.books.c.id, "builds")))


# How they are spread over processes

Run = Callable[[Task], Awaitable[_Done]]


async def _spread(run: Run, tasks: AsyncIterator[Task], width: int) -> AsyncIterator[_Done]:
    """Have tasks done, so many at a time; what each gives, as they end."""
    under_way: set[asyncio.Future[_Done]] = set()
    try:
        async for task in tasks:
            under_way.add(asyncio.ensure_future(run(task)))
            if len(under_way) >= width:
                ended, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for each in ended:
                    yield each.result()
        for each in asyncio.as_completed(under_way):
            yield await each
    finally:
        for each in under_way:
            each.cancel()


@asynccontextmanager
async def _workers(
    settings: Settings, ledger: Ledger, store: BookStore, until: int, count: int, rest: float
) -> AsyncIterator[Run]:
    """What does a task: in this process, or in one of `count` that end with it."""
    if count == 1:
        yield _BuildWorker(ledger, store, until, rest).do
        return
    context = multiprocessing.get_context("spawn")  # a fork would share connections, and threads' locks
    gate = context.Lock() if store.partitions == 1 else None  # SQLite has one writer: a queue is fair
    spec = _StoreSpec(store.again, store.rules, store.builds or {}, store.partitions)
    pool = ProcessPoolExecutor(count, context, partial(_begin, settings, spec, until, rest, gate))
    loop = asyncio.get_running_loop()
    try:
        yield lambda task: loop.run_in_executor(pool, _do, task)
    except BrokenProcessPool:
        raise Unavailable("a process that was building was killed; is there memory enough for all?") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _StoreSpec(Struct):
    """Builds, as another process opens them."""

    database: Callable[[], Database]
    rules: Rules
    builds: Mapping[str, int]
    partitions: int

    def store(self, books: Sequence[Book]) -> BookStore:
        return BookStore(self.database(), self.rules, books, self.partitions).of(self.builds)


_worker: _BuildWorker
_runner: asyncio.Runner


def _begin(settings: Settings, spec: _StoreSpec, until: int, rest: float, gate: Any) -> None:
    """Make this process ready for tasks, and let it end with the one that started it, however that ends."""
    global _worker, _runner  # noqa: PLW0603 - a pool's tasks share nothing else
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started it
    follow_parent()
    _worker = _BuildWorker(open_ledger(settings), spec.store(kept_books(settings)), until, rest, gate)
    _runner = asyncio.Runner()


def _do(task: Task) -> _Done:
    return _runner.run(_worker.do(task))
