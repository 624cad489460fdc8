"""Backup and restore of a data directory with SQLite's files, also while a Daybook writes to them."""

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
from service.storage.database import books_path, ledger_path, open_to_look
from service.storage.files import locked, sync_directory, sync_file
from service.verify.files import verify_file

MANIFEST = "backup.json"
_FILES = (
    master_key.FILE_NAME,
    "ledger.db",
    "books.db",
)  # in this order: a ledger can't be read without its key
_PAGES = 1_000  # in one step of a copy
_HEAD_QUERY = "SELECT position, hex(digest) FROM events ORDER BY position DESC LIMIT 1"
_BOOKS_POSITION_QUERY = "SELECT max(position) FROM checkpoints"
_LAYOUT_QUERY = "SELECT 1 FROM sqlite_master WHERE name = 'checkpoints'"
_SCHEMA_QUERY = "SELECT version_num FROM alembic_version"


class Refused(DaybookError):
    """Refused, since something that exists or is in use would be replaced."""


class BackupFile(Struct, frozen=True, kw_only=True):
    """One file of a backup."""

    bytes: int
    sha256: str


class Backup(Struct, frozen=True, kw_only=True):
    """The manifest of a backup: the ledger's last position and digest, and the books' position."""

    made_at: str
    position: int
    digest: str
    schema: str
    books_position: int | None
    files: dict[str, BackupFile]


def back_up(
    settings: Settings, directory: Path, now: datetime, progress: Progress = no_progress
) -> tuple[Path, Backup]:
    """Write a backup into a new directory inside `directory`, named after `now`. Returns path and manifest.

    The directory gets its name only once the backup is complete, on disk, and checked. Raises SettingsError
    if there is nothing to back up, Refused if another backup is under way there, Integrity if the copy is
    damaged.
    """
    _require_files(settings)
    if not ledger_path(settings.data_dir).exists():
        raise SettingsError(f"there is no ledger in {settings.data_dir} (DAYBOOK_DATA_DIR)")
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / now.strftime("%Y%m%dT%H%M%SZ")
    with _one_at_a_time(directory):
        if target.exists():
            raise Refused(f"{target} is there already")
        for abandoned in directory.glob(".partial-*"):  # by a backup that was killed
            shutil.rmtree(abandoned)
        partial = Path(mkdtemp(prefix=".partial-", dir=directory))
        try:
            backup = _write_backup(settings.data_dir, partial, now, progress)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_directory(directory)
    return target, backup


def _require_files(settings: Settings) -> None:
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


def _write_backup(data_dir: Path, partial: Path, now: datetime, progress: Progress) -> Backup:
    """Copy all files, check them, and write the manifest.

    The books are copied first, so that the ledger's copy, made later, holds all of their events.
    """
    books, ledger = books_path(data_dir), ledger_path(data_dir)
    books_position = (
        _copy(books, partial / books.name, _BOOKS_POSITION_QUERY, progress)[0]
        if _is_laid_out(books)
        else None
    )
    position, digest = _copy(ledger, partial / ledger.name, _HEAD_QUERY, progress) or (0, "")
    if books_position is not None and books_position > position:
        raise Integrity(f"the books hold position {books_position}, and the ledger ends at {position}")
    if (key := data_dir / master_key.FILE_NAME).exists():
        shutil.copyfile(key, partial / master_key.FILE_NAME)
    with closing(sqlite3.connect(partial / ledger.name)) as connection:
        schema = connection.execute(_SCHEMA_QUERY).fetchone()[0]
    backup = Backup(
        made_at=rfc3339(now),
        position=position,
        digest=digest.lower(),
        schema=schema,
        books_position=books_position,
        files={path.name: _describe_file(path) for path in sorted(partial.iterdir())},
    )
    (partial / MANIFEST).write_bytes(json.format(json.encode(backup)) + b"\n")
    _settle(partial)
    return backup


def _is_laid_out(books: Path) -> bool:
    """Whether the file holds books: opening it alone creates an empty file."""
    if not books.exists():
        return False
    with closing(open_to_look(books)) as connection:
        return bool(connection.execute(_LAYOUT_QUERY).fetchone())


def _copy(source: Path, target: Path, query: str, progress: Progress) -> Any:
    """Copy a database file as of one moment, check the copy, and return the result of `query` in it.

    The copy is made in steps, while others write. The open transaction holds the snapshot: without it, SQLite
    starts the copy again after every write, and under load would never finish.
    """
    with closing(open_to_look(source)) as reading:
        reading.execute("BEGIN")
        result = reading.execute(query).fetchone()
        pages = reading.execute("PRAGMA page_count").fetchone()[0]
        with progress(f"copy {source.name}", pages) as advance, closing(sqlite3.connect(target)) as copy:
            reading.backup(copy, pages=_PAGES, progress=lambda _code, _left, _all: advance(_PAGES))
            copy.execute("PRAGMA journal_mode = DELETE")
    with progress(f"check {source.name}", None), closing(sqlite3.connect(target)) as copy:
        verify_file(target)
        if copy.execute(query).fetchone() != result:
            raise Integrity(f"the copy of {source.name} is not what was copied")
    return result


def _describe_file(path: Path) -> BackupFile:
    path.chmod(0o600)
    with open(path, "rb") as file:
        return BackupFile(bytes=path.stat().st_size, sha256=file_digest(file, "sha256").hexdigest())


def _settle(directory: Path) -> None:
    """Make every file in a directory, and their names, durable."""
    for path in directory.iterdir():
        sync_file(path)
    sync_directory(directory)


def restore(
    settings: Settings, source: Path, now: datetime, *, force: bool = False
) -> tuple[Path, Backup, Path | None]:
    """Restore a backup. Returns its path, its manifest, and the directory to which replaced files were moved.

    `source` is a backup, or a directory of backups, of which the last is used. Raises Refused if a Daybook
    runs on the data directory, or if there is a ledger and `force` is not given; Integrity if the backup is
    damaged. Nothing is changed then.
    """
    _require_files(settings)
    chosen, backup = _read_manifest(source)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with _alone(settings.data_dir):
        if ledger_path(settings.data_dir).exists() and not force:
            raise Refused(f"{settings.data_dir} holds a ledger; --force moves it aside")
        copied_dir = Path(mkdtemp(prefix=".restore-", dir=settings.data_dir))
        try:
            for name, expected in backup.files.items():
                shutil.copyfile(chosen / name, copied_dir / name)
                if _describe_file(copied_dir / name) != expected:
                    raise Integrity(f"{chosen / name} is damaged: it is not what was backed up")
            _settle(copied_dir)
            aside = _move_aside(settings.data_dir, backup, now)
            for name in (name for name in _FILES if name in backup.files):
                (copied_dir / name).rename(settings.data_dir / name)
            sync_directory(settings.data_dir)
        finally:
            shutil.rmtree(copied_dir)
    return chosen, backup, aside


def _read_manifest(source: Path) -> tuple[Path, Backup]:
    """The path and manifest of the backup in a directory, or of the last backup inside it."""
    manifests = [source / MANIFEST, *sorted(source.glob(f"[0-9]*/{MANIFEST}"), reverse=True)]
    manifest = next((path for path in manifests if path.exists()), None)
    if manifest is None:
        raise SettingsError(f"there is no backup in {source}")
    try:
        backup = json.decode(manifest.read_bytes(), type=Backup)
    except DecodeError as error:
        raise Integrity(f"{manifest} is damaged: {error}") from None
    if unknown := sorted(set(backup.files) - set(_FILES)):
        raise Integrity(f"{manifest} is damaged: a backup holds no {unknown[0]}")
    return manifest.parent, backup


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


def _move_aside(data_dir: Path, backup: Backup, now: datetime) -> Path | None:
    """Move the files that a backup replaces into a new directory, which is returned."""
    replaced = [data_dir / f"{name}{end}" for name in _FILES for end in ("", "-wal", "-shm", "-journal")]
    replaced = [
        path
        for path in replaced
        if path.exists() and (path.name != master_key.FILE_NAME or path.name in backup.files)
    ]
    if not replaced:
        return None
    aside = Path(mkdtemp(prefix=now.strftime("replaced-%Y%m%dT%H%M%SZ-"), dir=data_dir))
    for path in replaced:
        path.rename(aside / path.name)
    sync_directory(aside)
    sync_directory(data_dir)
    return aside
