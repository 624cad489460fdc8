"""Backup and restore of a data directory with SQLite's files, which a running Daybook goes on writing."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from hashlib import file_digest
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from msgspec import DecodeError, Struct, json

from service.core.errors import DaybookError, Integrity, SettingsError
from service.core.moments import rfc3339
from service.core.progress import Progress, no_progress
from service.ledger import master_key
from service.processes.lifeline import hold_lifeline
from service.settings import Settings
from service.storage.database import books_path, ledger_path
from service.storage.files import locked, sync_directory, sync_file
from service.verify.files import verify_file

MANIFEST = "backup.json"
_PLACES = (master_key.FILE_NAME, "ledger.db", "books.db")  # in this order: without its key a ledger is none
_PAGES = 1_000  # in one step of a copy
_HEAD = "SELECT position, hex(digest) FROM events ORDER BY position DESC LIMIT 1"
_REACHED = "SELECT max(position) FROM checkpoints"
_LAID_OUT = "SELECT 1 FROM sqlite_master WHERE name = 'checkpoints'"
_SCHEMA = "SELECT version_num FROM alembic_version"


class Refused(DaybookError):
    """Not done: it would take the place of something, or of what is in use."""


class Copied(Struct, frozen=True, kw_only=True):
    """One file of a backup."""

    bytes: int
    sha256: str


class Backup(Struct, frozen=True, kw_only=True):
    """What a backup holds: the ledger up to a position with its digest, and the books up to another."""

    made_at: str
    position: int
    digest: str
    schema: str
    books_position: int | None
    files: dict[str, Copied]


def back_up(
    settings: Settings, directory: Path, now: datetime, progress: Progress = no_progress
) -> tuple[Path, Backup]:
    """Write a backup into a new directory inside `directory`, named after `now`; where, and what it holds.

    It has its name only once it is whole, on disk, and checked. Raises SettingsError where there is nothing
    to back up, Refused if another backup is under way there, Integrity if the copy is not sound.
    """
    _on_files(settings)
    if not ledger_path(settings.data_dir).exists():
        raise SettingsError(f"there is no ledger in {settings.data_dir} (DAYBOOK_DATA_DIR)")
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / now.strftime("%Y%m%dT%H%M%SZ")
    with _one_at_a_time(directory):
        if target.exists():
            raise Refused(f"{target} is there already")
        for left in directory.glob(".partial-*"):  # by a backup that was killed
            shutil.rmtree(left)
        partial = Path(mkdtemp(prefix=".partial-", dir=directory))
        try:
            made = _fill(settings.data_dir, partial, now, progress)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_directory(directory)
    return target, made


def _on_files(settings: Settings) -> None:
    if settings.database_url:
        raise SettingsError(
            "the ledger is in PostgreSQL (DAYBOOK_DATABASE_URL): back up its schema daybook with pg_dump, or "
            "the server with base backups and archived WAL; see Backup in docs/operations.md"
        )


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(directory / ".lock", wait=False))
        except BlockingIOError:
            raise Refused(f"another backup is being written into {directory}") from None
        yield


def _fill(data_dir: Path, partial: Path, now: datetime, progress: Progress) -> Backup:
    """Copy everything, check it, and say what it is.

    The books first: what they hold is then in the ledger, whose copy is of a later moment.
    """
    books, ledger = books_path(data_dir), ledger_path(data_dir)
    reached = _copy(books, partial / books.name, _REACHED, progress)[0] if _is_laid_out(books) else None
    position, digest = _copy(ledger, partial / ledger.name, _HEAD, progress) or (0, "")
    if reached is not None and reached > position:
        raise Integrity(f"the books hold position {reached}, and the ledger ends at {position}")
    if (key := data_dir / master_key.FILE_NAME).exists():
        shutil.copyfile(key, partial / master_key.FILE_NAME)
    with closing(sqlite3.connect(partial / ledger.name)) as connection:
        schema = connection.execute(_SCHEMA).fetchone()[0]
    made = Backup(
        made_at=rfc3339(now),
        position=position,
        digest=digest.lower(),
        schema=schema,
        books_position=reached,
        files={path.name: _copied(path) for path in sorted(partial.iterdir())},
    )
    (partial / MANIFEST).write_bytes(json.format(json.encode(made)) + b"\n")
    _settle(partial)
    return made


def _is_laid_out(books: Path) -> bool:
    """Whether there are books: who only opens the file makes an empty one."""
    if not books.exists():
        return False
    with closing(sqlite3.connect(books)) as connection:
        return bool(connection.execute(_LAID_OUT).fetchone())


def _copy(source: Path, target: Path, query: str, progress: Progress) -> Any:
    """Copy a file as it is at one moment, and what `query` finds there; checked, with no files beside it.

    In steps, while others write. The open transaction keeps the moment: without one, SQLite begins a copy
    again whenever somebody has written, and under load it would never end.
    """
    with closing(sqlite3.connect(source, isolation_level=None)) as reading:
        reading.execute("PRAGMA query_only = ON")
        reading.execute("BEGIN")
        found = reading.execute(query).fetchone()
        pages = reading.execute("PRAGMA page_count").fetchone()[0]
        with progress(f"copy {source.name}", pages) as advance, closing(sqlite3.connect(target)) as copy:
            reading.backup(copy, pages=_PAGES, progress=lambda _code, _left, _all: advance(_PAGES))
            copy.execute("PRAGMA journal_mode = DELETE")
    with progress(f"check {source.name}", None), closing(sqlite3.connect(target)) as copy:
        verify_file(target)
        if copy.execute(query).fetchone() != found:
            raise Integrity(f"the copy of {source.name} is not what was copied")
    return found


def _copied(path: Path) -> Copied:
    path.chmod(0o600)
    with open(path, "rb") as file:
        return Copied(bytes=path.stat().st_size, sha256=file_digest(file, "sha256").hexdigest())


def _settle(directory: Path) -> None:
    """Make every file in a directory, and their names, durable."""
    for path in directory.iterdir():
        sync_file(path)
    sync_directory(directory)


def put_back(
    settings: Settings, source: Path, now: datetime, *, force: bool = False
) -> tuple[Path, Backup, Path | None]:
    """Put a backup in place; which it was, what it holds, and where what stood there was moved to.

    `source` is a backup, or a directory of them, of which the last is taken. Raises Refused if a Daybook
    runs on the data directory, or a ledger is there and `force` is not given; Integrity if the backup is
    damaged; then nothing was changed.
    """
    _on_files(settings)
    chosen, held = _read(source)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with _alone(settings.data_dir):
        if ledger_path(settings.data_dir).exists() and not force:
            raise Refused(f"{settings.data_dir} holds a ledger; --force moves it aside")
        copies = Path(mkdtemp(prefix=".restore-", dir=settings.data_dir))
        try:
            for name, expected in held.files.items():
                shutil.copyfile(chosen / name, copies / name)
                if _copied(copies / name) != expected:
                    raise Integrity(f"{chosen / name} is damaged: it is not what was backed up")
            _settle(copies)
            aside = _move_aside(settings.data_dir, held, now)
            for name in (name for name in _PLACES if name in held.files):
                (copies / name).rename(settings.data_dir / name)
            sync_directory(settings.data_dir)
        finally:
            shutil.rmtree(copies)
    return chosen, held, aside


def _read(source: Path) -> tuple[Path, Backup]:
    """The backup in a directory, or the last of those in it."""
    found = [source / MANIFEST, *sorted(source.glob(f"[0-9]*/{MANIFEST}"), reverse=True)]
    manifest = next((path for path in found if path.exists()), None)
    if manifest is None:
        raise SettingsError(f"there is no backup in {source}")
    try:
        held = json.decode(manifest.read_bytes(), type=Backup)
    except DecodeError as error:
        raise Integrity(f"{manifest} is damaged: {error}") from None
    if unknown := sorted(set(held.files) - set(_PLACES)):
        raise Integrity(f"{manifest} is damaged: a backup holds no {unknown[0]}")
    return manifest.parent, held


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """While no process of a Daybook has this data directory. Raises Refused if one has."""
    try:
        lifeline = hold_lifeline(data_dir, 0)
    except SettingsError as error:
        raise Refused(str(error)) from None
    with lifeline:
        for path in (ledger_path(data_dir), books_path(data_dir)):
            if path.exists() and _is_open(path):
                raise Refused(f"a process still has {path} open; stop it first")
        yield


def _is_open(path: Path) -> bool:
    """Whether anybody has a file open. If not, what was beside it is in it now."""
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = DELETE")  # takes a lock that each reader shares
        except sqlite3.OperationalError:
            return True
        except sqlite3.DatabaseError:  # it is damaged: it can't be in use for much
            return False
    return False


def _move_aside(data_dir: Path, held: Backup, now: datetime) -> Path | None:
    """Move what a backup takes the place of into a directory of its own, which is returned."""
    stand = [data_dir / f"{name}{end}" for name in _PLACES for end in ("", "-wal", "-shm", "-journal")]
    stand = [
        path
        for path in stand
        if path.exists() and (path.name != master_key.FILE_NAME or path.name in held.files)
    ]
    if not stand:
        return None
    aside = Path(mkdtemp(prefix=now.strftime("replaced-%Y%m%dT%H%M%SZ-"), dir=data_dir))
    for path in stand:
        path.rename(aside / path.name)
    sync_directory(aside)
    sync_directory(data_dir)
    return aside
