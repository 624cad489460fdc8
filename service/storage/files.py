"""Files: a lock between processes, and writes that are on disk as a whole or did not happen."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex


@contextmanager
def locked(path: Path, *, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file, made where it is missing, until the block or the process ends.

    Without `wait`, raises BlockingIOError if another process holds it. Several may hold it `shared`.
    """
    file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(file)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in place of the one of this name, if there is one. Only its owner may read it."""
    new = _write_beside(path, content)
    os.replace(new, path)
    sync_directory(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Write a file unless one of this name is there, which then stays. Only its owner may read it."""
    new = _write_beside(path, content)
    with suppress(FileExistsError):
        os.link(new, path)
    new.unlink()
    sync_directory(path.parent)


@contextmanager
def named_when_whole(path: Path) -> Iterator[Path]:
    """Where to write a file: it gets its own name only when the block has ended without an error."""
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    partial.replace(path)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_beside(path: Path, content: bytes) -> Path:
    """A durable file with this content, under a name of its own in the same directory."""
    new = path.with_name(f".{path.name}-{token_hex(4)}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return new
