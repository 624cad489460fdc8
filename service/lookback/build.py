"""Makes one file of a look-back, in a process of its own that gives way to all others."""

import asyncio
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from zlib import crc32

from msgspec import json

import projections
from projections.book import Book
from projections.revenue import REVENUE
from service import core, logs
from service.books import tables
from service.books.engine import Engine
from service.books.store import BookStore, book_versions, lay_out_file
from service.bootstrap import kept_books, open_books, open_ledger, rules_of
from service.clock import utc_now
from service.ledger.store import Ledger
from service.lookback.files import Files, Wanted
from service.lookback.known import digest_at
from service.lookback.restated import restate
from service.processes.lifeline import follow_parent
from service.reads.restatements import keep
from service.rebuild.fill import fill_books
from service.settings import Settings
from service.storage.database import SqliteDatabase, books_path

_NICENESS = 10
_FAR = 4  # from a quarter of all events on, building anew is quicker than adding them

# Another version of this code may make other rows, even where nobody has raised a book's version.
_SOURCES = sorted(path for of in (projections, core) for path in Path(of.__path__[0]).rglob("*.py"))
_CODE = crc32(b"".join(path.read_bytes() for path in _SOURCES))


def books_of(settings: Settings) -> tuple[Book, ...]:
    """The books that are looked back at: all that reads with `position` are made from."""
    return tuple(book for book in kept_books(settings) if book.name != REVENUE.name)


def files_of(settings: Settings) -> Files:
    """The files of these books, under these rules, by this code."""
    kept = [_CODE, tables.layout(), sorted(book_versions(books_of(settings), rules_of(settings)))]
    return Files(settings.data_dir, sha256(json.encode(kept)).hexdigest()[:12])


def open_file(settings: Settings, path: Path) -> BookStore:
    """The books in one file. Close it, or the process hangs at its end."""
    return BookStore(
        SqliteDatabase(path, "NORMAL", time_limited=True), rules_of(settings), books_of(settings)
    )


def run(settings: Settings, wanted: Wanted) -> None:
    """Be the process that makes a file; it ends with whoever started it."""
    os.nice(_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    follow_parent()
    logs.configure()
    asyncio.run(build(settings, wanted))


async def build(settings: Settings, wanted: Wanted) -> None:
    """Make the file, unless another process has done so meanwhile."""
    files = files_of(settings)
    with files.turn():
        if files.find(wanted):
            return
        ledger = open_ledger(settings)
        try:
            base = await _base(ledger, files, wanted)
            with files.desk() as desk:
                make = _books if wanted.since is None else _restated
                made = await make(settings, ledger, wanted, base, desk)
                files.put(made, wanted)
        finally:
            await ledger.close()


async def _base(ledger: Ledger, files: Files, wanted: Wanted) -> tuple[Wanted, Path] | None:
    """The nearest file of fewer events of this very ledger."""
    for base, path in files.bases(wanted):
        if await ledger.read(partial(digest_at, position=base.position)) == base.digest:
            return base, path
    return None


async def _books(
    settings: Settings, ledger: Ledger, wanted: Wanted, base: tuple[Wanted, Path] | None, desk: Path
) -> Path:
    path = books_path(desk)
    near = base if base and wanted.position - base[0].position <= wanted.position // _FAR else None
    if near:
        shutil.copyfile(near[1], path)
    else:
        lay_out_file(desk)
    store = open_file(settings, path)
    try:
        await store.register()
        if near:
            await Engine(ledger, store, utc_now).catch_up(wanted.position)
        else:
            await fill_books(settings, ledger, store, wanted.position)
    finally:
        await store.close()
    return _single(path)


async def _restated(
    settings: Settings, ledger: Ledger, wanted: Wanted, base: tuple[Wanted, Path] | None, desk: Path
) -> Path:
    assert wanted.since is not None  # noqa: S101 - what else is wanted are books
    path = desk / "restated.db"
    if base:
        shutil.copyfile(base[1], path)
    since = base[0].position if base else wanted.since
    found, store = SqliteDatabase(path, "NORMAL"), open_books(settings)
    try:
        rows = await restate(ledger, store, since, wanted.position)
        await found.write(partial(keep, rows=rows))
    finally:
        await store.close()
        await found.close()
    return _single(path)


def _single(path: Path) -> Path:
    """A copy of a database that is one file, without a log beside it; whoever still has it open may."""
    single = path.with_name("single.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", (str(single),))
    return single
