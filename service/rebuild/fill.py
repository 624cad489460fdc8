"""Filling empty books from the ledger: history by history, without a write for each event.

    await fill_books(settings, ledger, store, until, processes=None, progress=no_progress)

brings every book of `store` from position 0 to `until`. The store may be that of the settings, opened for
builds that are not live (`BookStore.with_builds`), or any other with empty books, such as a new SQLite file.
The ledger, on SQLite or PostgreSQL, is only read.

Several processes read histories by key, in the order of their names, and fold them in memory. They write the
contributed rows in large batches; then, stage by stage, they do the same by the rows' parent keys. Totals are
added up in memory and written once, at the end, all in partition 0, since only a total's sum over all
partitions has a meaning. The checkpoints move last, so that nobody takes half-filled books for filled ones.
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
from itertools import chain
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple
from sqlalchemy import Connection, bindparam, func, select, update

from projections.book import Book, Row, Rules, Stage
from projections.fold import (
    Contributed,
    FoldError,
    HistoryRows,
    Sums,
    add_rows_to_sums,
    check_gross,
    contribute,
    new_sums,
    ordered,
    row_types_read,
)
from service.books import tables
from service.books.engine import Engine, Overtaken, fold_again, of_book, set_aside
from service.books.failures import find_first_unread
from service.books.rows import histories_under, read_children
from service.books.store import BookStore
from service.bootstrap import configured_books, open_ledger
from service.clock import utc_now
from service.core.errors import Unavailable
from service.core.moments import to_us
from service.core.progress import Progress, no_advance, no_progress
from service.ledger import tables as ledger_tables
from service.ledger.history import read_histories, read_limits, read_placed_histories
from service.ledger.store import Ledger
from service.processes.garbage import collect_rarely
from service.processes.lifeline import follow_parent
from service.rebuild.builds import remove_rows
from service.settings import Settings
from service.storage.database import Database
from service.storage.statements import HotStatement, any_of, first_rows

_KEYS_PER_PAGE = 2_000  # subjects or parent keys
_READS_PER_TASK = 2_000  # events, or child rows, that one task reads
_ROWS_PER_TRANSACTION = 2_000  # at most
# A pause after each transaction beside SQLite's live books, whose worker writes then; a share of its time.
_PAUSE = 0.5
_EVENTS_PER_PROCESS = 20_000  # for so many events one more process is worth its start

Task = tuple[Any, ...]  # the name of a method of `_BuildWorker`, and its arguments
_Totals = dict[tuple[str, str], Sums]  # by the names of book and table


async def fill_books(
    settings: Settings,
    ledger: Ledger,
    store: BookStore,
    until: int,
    *,
    processes: int | None = None,
    progress: Progress = no_progress,
) -> None:
    """Fill the empty books of `store` with all events up to `until`; at the end move their checkpoints there.

    `processes` None: as many as there are processors, fewer for few events; 1: only this one. Other processes
    find the books by name among those of the settings. Raises Overtaken if the books are removed meanwhile,
    Unavailable if a process is killed, FoldError if a book can't be made; after any failure the checkpoints
    are at 0, or the books at an earlier position.
    """
    ids = (await store.read(store.positions)).books
    try:
        await _fill_by_key(settings, ledger, store, ids, until, processes, progress)
    except FoldError:  # which history is too much for a total is known only event by event
        with progress("event by event", until) as advance:
            for build in ids.values():
                await remove_rows(store, build, no_advance)
            engine = Engine(ledger, store.with_builds(ids), utc_now)
            while count := await engine.advance(until):
                advance(count)


async def _fill_by_key(
    settings: Settings,
    ledger: Ledger,
    store: BookStore,
    ids: Mapping[str, int],
    until: int,
    processes: int | None,
    progress: Progress,
) -> None:
    """Fill the books of these ids. Raises FoldError if a total is too large, or a book can't be made."""
    count = processes or min(os.cpu_count() or 1, 1 + until // _EVENTS_PER_PROCESS)
    totals: _Totals = {}
    changed: set[str] = set()  # histories of which rows were written before they were set aside
    pause = _PAUSE if store.builds is not None and store.partitions == 1 else 0.0
    async with _task_runner(settings, ledger, store.with_builds(ids), until, count, pause) as run:

        async def run_all(label: str, tasks: AsyncIterator[Task], size: int) -> None:
            with progress(label, size) as advance:
                async for result in _run_tasks(run, tasks, 2 * count if count > 1 else 1):
                    _add_totals(totals, result.totals)
                    changed.update(result.set_aside)
                    advance(result.read)

        kinds = sorted({stage.reads for _, _, stage in _stages(store) if isinstance(stage.reads, str)})
        async with ledger.reading() as reader:
            entries = await reader.count_subjects()
        await run_all("histories", _history_tasks(ledger, kinds, until), entries)
        await store.write(store.analyze)
        for book, number, stage in _stages(store):
            if not isinstance(stage.reads, str):
                async with store.reading() as view:
                    child_rows = await view.run_sync(_count_child_rows, stage, ids[book.name])
                table_names = ", ".join(row.table for row in stage.rows)
                tasks = _parent_key_tasks(store, book, number, ids[book.name])
                await run_all(f"{book.name}: {table_names}", tasks, child_rows)
    await _write_totals(store, ids, totals)
    if changed:
        await fold_again(ledger, store.with_builds(ids), sorted(changed), until)
    await move_checkpoints(store, ids, until)


def _stages(store: BookStore) -> Iterator[tuple[Book, int, Stage]]:
    return ((book, number, stage) for book in store.books for number, stage in enumerate(book.stages))


async def _write_totals(store: BookStore, ids: Mapping[str, int], totals: _Totals) -> None:
    for book in store.books:
        for total in book.gross_totals:
            added = totals.get((book.name, total.table), {})
            with of_book(book):
                check_gross(total, new_sums(total), added)
    for (name, table), sums in totals.items():
        rows = sorted((ids[name], 0, *group, *values) for group, values in sums.items() if any(values))
        for start in range(0, len(rows), _ROWS_PER_TRANSACTION):
            add = partial(tables.ADD_TO_TOTALS[table].add, rows=rows[start : start + _ROWS_PER_TRANSACTION])
            await store.write(add)


async def move_checkpoints(store: BookStore, ids: Mapping[str, int], until: int) -> None:
    """Say that these books hold the events up to a position, and no others."""
    checkpoint = {"position": until, "changed": until, "advanced_at_us": to_us(utc_now())}
    query = update(tables.checkpoints).where(tables.checkpoints.c.book.in_(ids.values())).values(checkpoint)
    await store.write(lambda connection: connection.execute(query))


def _add_totals(totals: _Totals, added: _Totals) -> None:
    for name, sums in added.items():
        total_sums = totals.setdefault(name, sums)
        if total_sums is not sums:
            for group, values in sums.items():
                total_sums[group] = [a + b for a, b in zip(total_sums[group], values, strict=True)]


# The work, divided into tasks


async def _history_tasks(ledger: Ledger, kinds: Iterable[str], until: int) -> AsyncIterator[Task]:
    """Tasks for the histories of these kinds of subjects, in the order of their names."""
    for kind in kinds:

        def names(connection: Connection, after: str, kind: str = kind) -> list[tuple[str, int]]:
            return _SUBJECTS_AFTER.run(connection, max(after, f"{kind}|"), f"{kind}}}", until, _KEYS_PER_PAGE)

        async for keys in _task_keys(ledger.read, names):
            yield "histories", keys


async def _parent_key_tasks(store: BookStore, book: Book, number: int, book_id: int) -> AsyncIterator[Task]:
    """Tasks for the parent keys of the rows that a later stage reads, in the order of the keys."""

    def keys_after(connection: Connection, after: str) -> list[tuple[str, int]]:
        counts: Counter[str] = Counter()
        for row_type in row_types_read(book.stages[number]):
            keys = tables.STATEMENTS[row_type].parent_keys.run(connection, book_id, after, _KEYS_PER_PAGE)
            counts.update(dict(keys))
        return sorted(counts.items())[:_KEYS_PER_PAGE]

    async for keys in _task_keys(store.read, keys_after):
        yield "parent_key", book.name, number, keys


async def _task_keys(
    read: Callable[[Callable[[Connection], Any]], Awaitable[Any]],
    keys_after: Callable[..., list[tuple[str, int]]],
) -> AsyncIterator[list[str]]:
    """All keys, as many at a time as make a task. `keys_after` gives keys with the number of their reads."""
    last = ""
    while page := await read(partial(keys_after, after=last)):
        last = page[-1][0]
        keys, size = [], 0
        for key, count in page:
            keys.append(key)
            size += count
            if size >= _READS_PER_TASK:
                yield keys
                keys, size = [], 0
        if keys:
            yield keys


_subjects = ledger_tables.Subject.__table__  # type: ignore[attr-defined]
_SUBJECTS_AFTER = HotStatement(
    lambda _: first_rows(
        select(_subjects.c.subject, func.count())
        .where(_subjects.c.subject > bindparam("after"), _subjects.c.subject < bindparam("end"))
        .where(_subjects.c.position <= bindparam("until"))
        .group_by(_subjects.c.subject)
        .order_by(_subjects.c.subject)
    )
)


def _count_child_rows(connection: Connection, stage: Stage, book_id: int) -> int:
    all_statements = [tables.STATEMENTS[row_type] for row_type in row_types_read(stage)]
    return sum(each.count_with_parent.run(connection, book_id, "")[0][0] for each in all_statements)


# The workers that run the tasks


class _TaskResult(Struct):
    """The number of events or rows that a task has read, and the totals of the rows that it wrote.

    `set_aside` are histories of which rows were written before; those are to be written again.
    """

    read: int
    totals: _Totals
    set_aside: list[str] = []


class _BuildWorker:
    """Runs tasks, with a ledger and a store of its own process. `write_lock` is shared by all workers."""

    def __init__(
        self,
        ledger: Ledger,
        store: BookStore,
        until: int,
        pause: float,
        write_lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._until = until
        self._rest = pause
        self._write_lock = write_lock or nullcontext()

    async def do(self, task: Task) -> _TaskResult:
        name, *args = task
        methods: dict[str, Callable[..., Awaitable[_TaskResult]]] = {
            "histories": self._histories,
            "parent_key": self._parent_keys,
        }
        return await methods[name](*args)

    async def _histories(self, names: list[str]) -> _TaskResult:
        """Write the rows that these histories contribute to every book."""
        read = partial(read_histories, names=names, up_to=self._until, vault=self._ledger.vault)
        while True:
            events_by_name = await self._ledger.read(read)
            result = _TaskResult(read=sum(map(len, events_by_name.values())), totals={})
            rows, book = _RowsToInsert(list), self._store.books[0]
            try:
                history_rows = HistoryRows(ordered(events_by_name))
                for book in self._store.books:
                    folded = history_rows.of(book.stages, self._store.rules.with_policy(book.policy))
                    for stage, contributed in folded.items():
                        self._add(book, stage, contributed, rows, result.totals)
            except FoldError as failed:
                await self._set_aside(book, failed, [failed.key])
                continue
            await self._write(rows)
            return result

    async def _parent_keys(self, name: str, number: int, keys: list[str]) -> _TaskResult:
        """Write the rows that a later stage contributes to these parent keys."""
        book = next(book for book in self._store.books if book.name == name)
        stage, book_id = book.stages[number], (self._store.builds or {})[name]
        children = await self._store.read(partial(read_children, book_id=book_id, stage=stage, keys=keys))
        result, rows = _TaskResult(read=sum(map(len, children.values())), totals={}), _RowsToInsert(list)
        while True:
            try:
                contributed = contribute(stage, children, self._store.rules.with_policy(book.policy))
                break
            except FoldError as failed:  # the rows of this key come once its histories are folded again
                del children[failed.key]
                find = partial(histories_under, book_id=book_id, book=book, stage=stage, key=failed.key)
                names = sorted(await self._store.read(find))
                result.set_aside += await self._set_aside(book, failed, names)
        self._add(book, stage, contributed, rows, result.totals)
        await self._write(rows)
        return result

    async def _set_aside(self, book: Book, failed: FoldError, names: Sequence[str]) -> list[str]:
        """Set aside those of these histories that make a fold fail; those that were by now, if none does."""
        read = partial(read_placed_histories, names=names, up_to=self._until, vault=self._ledger.vault)
        placed = await self._ledger.read(read)
        first_unread = find_first_unread(placed, book, self._store.rules)
        if not first_unread and (known := await self._ledger.read(partial(read_limits, names=names))):
            return sorted(known)
        return await set_aside(self._ledger, book, failed, first_unread, utc_now())

    def _add(
        self, book: Book, stage: Stage, contributed: Contributed, rows: "_RowsToInsert", totals: _Totals
    ) -> None:
        """Add a stage's contributions to `rows` and `totals`."""
        book_id = (self._store.builds or {})[book.name]
        for key, of_key in contributed.items():
            for row in of_key:
                rows[type(row)].append((book_id, key, *astuple(row)))
        for total in (*book.totals, *book.gross_totals):
            if total.row_type in stage.rows:
                sums = totals.setdefault((book.name, total.table), new_sums(total))
                add_rows_to_sums(sums, total, chain.from_iterable(contributed.values()))

    async def _write(self, rows: "_RowsToInsert") -> None:
        builds = list((self._store.builds or {}).values())
        for batch in _split_rows(rows):
            with self._write_lock:
                started = time.perf_counter()
                await self._store.write(partial(_insert_rows, batch=batch, builds=builds))
                await asyncio.sleep(self._rest * (time.perf_counter() - started))


_RowsToInsert = defaultdict[type[Row], list[tuple[Any, ...]]]  # the values to insert, by row type
_RowBatch = list[tuple[type[Row], list[tuple[Any, ...]]]]


def _split_rows(rows: _RowsToInsert) -> Iterator[_RowBatch]:
    """The rows in batches, each for one transaction."""
    batch: _RowBatch = []
    room = _ROWS_PER_TRANSACTION
    for row_type, values in rows.items():
        start = 0
        while part := values[start : start + room]:
            batch.append((row_type, part))
            start, room = start + len(part), room - len(part)
            if not room:
                yield batch
                batch, room = [], _ROWS_PER_TRANSACTION
    if batch:
        yield batch


def _insert_rows(connection: Connection, batch: _RowBatch, builds: list[int]) -> None:
    """Write rows. Raises Overtaken if a build was removed: its rows would belong to no book."""
    if len(_EXISTING_BUILDS.run(connection, builds)) < len(builds):
        raise Overtaken("what is being built was removed")
    for row_type, rows in batch:
        tables.STATEMENTS[row_type].insert.add(connection, rows)


_EXISTING_BUILDS = HotStatement(
    lambda _: select(tables.books.c.id).where(any_of(tables.books.c.id, "builds"))
)


# The distribution of tasks over processes

RunTask = Callable[[Task], Awaitable[_TaskResult]]


async def _run_tasks(run: RunTask, tasks: AsyncIterator[Task], width: int) -> AsyncIterator[_TaskResult]:
    """Run tasks, `width` at a time; give the result of each as it ends."""
    running: set[asyncio.Future[_TaskResult]] = set()
    try:
        async for task in tasks:
            running.add(asyncio.ensure_future(run(task)))
            if len(running) >= width:
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
        for future in asyncio.as_completed(running):
            yield await future
    finally:
        for future in running:
            future.cancel()


@asynccontextmanager
async def _task_runner(
    settings: Settings, ledger: Ledger, store: BookStore, until: int, count: int, pause: float
) -> AsyncIterator[RunTask]:
    """A function that runs a task: in this process, or in one of `count` processes that end with it."""
    if count == 1:
        yield _BuildWorker(ledger, store, until, pause).do
        return
    context = multiprocessing.get_context("spawn")  # a fork would share connections, and threads' locks
    write_lock = context.Lock() if store.partitions == 1 else None  # for SQLite's one writer: a lock is fair
    spec = _StoreSpec(store.reopen, store.rules, store.builds or {}, store.partitions)
    pool = ProcessPoolExecutor(
        count, context, partial(_start_process, settings, spec, until, pause, write_lock)
    )
    loop = asyncio.get_running_loop()
    try:
        yield lambda task: loop.run_in_executor(pool, _run_task, task)
    except BrokenProcessPool:
        raise Unavailable("a process that was building was killed; is there memory enough for all?") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _StoreSpec(Struct):
    """The values with which another process opens the same builds."""

    database: Callable[[], Database]
    rules: Rules
    builds: Mapping[str, int]
    partitions: int

    def store(self, books: Sequence[Book]) -> BookStore:
        return BookStore(self.database(), self.rules, books, self.partitions).with_builds(self.builds)


_worker: _BuildWorker
_runner: asyncio.Runner


def _start_process(settings: Settings, spec: _StoreSpec, until: int, pause: float, write_lock: Any) -> None:
    """Prepare this process for tasks, and make it end with its parent, however that ends."""
    global _worker, _runner  # noqa: PLW0603 - the only state that a pool's tasks share
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles Ctrl-C
    follow_parent()
    collect_rarely()
    _worker = _BuildWorker(
        open_ledger(settings), spec.store(configured_books(settings)), until, pause, write_lock
    )
    _runner = asyncio.Runner()


def _run_task(task: Task) -> _TaskResult:
    return _runner.run(_worker.do(task))
