"""Makes one file of a lookback, in a process of its own with a low priority."""

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from msgspec import json

import projections
from projections.book import Book
from projections.revenue import REVENUE
from projections.work import TooMuchWork
from service import core, logs
from service.books import tables
from service.books.engine import Engine
from service.books.store import BookStore, book_versions, lay_out_file
from service.bootstrap import configured_books, open_books, open_ledger, rules_of
from service.clock import utc_now
from service.ledger.store import Ledger
from service.lookback.files import LookbackFiles, LookbackSpec
from service.lookback.positions import digest_at
from service.lookback.restated import find_restatements
from service.lookback.take_back import copy_books, take_back
from service.processes.lifeline import follow_parent
from service.reads.restatements import save_restatements
from service.rebuild.fill import fill_books
from service.settings import Settings
from service.storage.database import SqliteDatabase, books_path

T = TypeVar("T")

_NICENESS = 10
FEW_EVENTS = 1_000  # so many take one step of the engine, and less time than a process takes to start
EXIT_TOO_MUCH_WORK = 4
_MAX_CHANGED = 4  # from a quarter of all events on, filling new books is quicker than changing others

# Changed code may make other rows, even if a book's version was not raised.
_SOURCES = sorted(path for package in (projections, core) for path in Path(package.__path__[0]).rglob("*.py"))
_CODE = crc32(b"".join(path.read_bytes() for path in _SOURCES))


def lookback_books(settings: Settings) -> tuple[Book, ...]:
    """The books of a lookback: all from which reads with `position` are answered."""
    return tuple(book for book in configured_books(settings) if book.name != REVENUE.name)


def open_lookback_files(settings: Settings) -> LookbackFiles:
    """The files of these books, under these rules, by this code."""
    versions = [_CODE, tables.layout(), sorted(book_versions(lookback_books(settings), rules_of(settings)))]
    return LookbackFiles(settings.data_dir, sha256(json.encode(versions)).hexdigest()[:12])


def open_file(settings: Settings, path: Path) -> BookStore:
    """The books in one file. Close it, or the process hangs at its end."""
    return BookStore(
        SqliteDatabase(path, "NORMAL", time_limited=True), rules_of(settings), lookback_books(settings)
    )


def run_process(settings: Settings, spec: LookbackSpec) -> None:
    """The main function of the process that makes a file; the process ends with its parent."""
    os.nice(_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles Ctrl-C
    follow_parent()
    logs.configure(settings.log_level)
    try:
        asyncio.run(make_file(settings, spec))
    except TooMuchWork:
        sys.exit(EXIT_TOO_MUCH_WORK)


async def make_file(settings: Settings, spec: LookbackSpec) -> None:
    """Make the file, unless another process has done so meanwhile. Raises TooMuchWork."""
    files = open_lookback_files(settings)
    with files.lock():
        if files.find(spec):
            return
        ledger = open_ledger(settings)
        try:
            base = await _find_base(ledger, files, spec)
            with files.workdir() as workdir:
                make = _make_books if spec.since is None else _make_restatements
                path = await make(settings, ledger, spec, base, workdir)
                files.put(path, spec)
        finally:
            await ledger.close()


async def _find_base(
    ledger: Ledger, files: LookbackFiles, spec: LookbackSpec
) -> tuple[LookbackSpec, Path] | None:
    """The nearest file of fewer events of the same ledger, with its spec."""
    for base, path in files.find_bases(spec):
        if await ledger.read(partial(digest_at, position=base.position)) == base.digest:
            return base, path
    return None


async def _make_books(
    settings: Settings,
    ledger: Ledger,
    spec: LookbackSpec,
    base: tuple[LookbackSpec, Path] | None,
    workdir: Path,
) -> Path:
    path = books_path(workdir)
    few_events = spec.position // _MAX_CHANGED
    if base and spec.position - base[0].position <= few_events:
        shutil.copyfile(base[1], path)
        await _with_books(settings, path, partial(_catch_up, ledger, spec.position))
    elif not await _take_back_live_books(settings, ledger, spec.position, few_events, path):
        _lay_out_anew(workdir)
        if spec.position > FEW_EVENTS:
            await _with_books(settings, path, partial(fill_books, settings, ledger, until=spec.position))
            return _single_file(path)  # processes that filled it may still be ending
        await _with_books(settings, path, partial(_catch_up, ledger, spec.position))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # nobody else has it open, so it is one file
    return path


def _lay_out_anew(workdir: Path) -> None:
    books_path(workdir).unlink(missing_ok=True)
    lay_out_file(workdir)


async def _catch_up(ledger: Ledger, position: int, store: BookStore) -> None:
    await Engine(ledger, store, utc_now).catch_up(position)


async def _take_back_live_books(
    settings: Settings, ledger: Ledger, position: int, most: int, path: Path
) -> bool:
    """Make the file from the live books, if they are a file that is not too far ahead."""
    if settings.database_url or not copy_books(settings.data_dir, path):
        return False
    return await _with_books(settings, path, partial(take_back, ledger, position=position, most=most))


async def _with_books(settings: Settings, path: Path, work: Callable[..., Awaitable[T]]) -> T:
    """The result of work with the books in a file, which is given as `store`."""
    store = open_file(settings, path)
    try:
        await store.register()
        return await work(store=store)
    finally:
        await store.close()


async def _make_restatements(
    settings: Settings,
    ledger: Ledger,
    spec: LookbackSpec,
    base: tuple[LookbackSpec, Path] | None,
    workdir: Path,
) -> Path:
    assert spec.since is not None  # noqa: S101 - a spec without `since` is for books
    path = workdir / "restated.db"
    if base:
        shutil.copyfile(base[1], path)
    since = base[0].position if base else spec.since
    database, store = SqliteDatabase(path, "NORMAL"), open_books(settings)
    try:
        rows = await find_restatements(ledger, store, since, spec.position)
        await database.write(partial(save_restatements, rows=rows))
    finally:
        await store.close()
        await database.close()
    return _single_file(path)


def _single_file(path: Path) -> Path:
    """A copy of a database as one file, without a log beside it; connections to the original may be open."""
    single = path.with_name("single.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", (str(single),))
    return single
