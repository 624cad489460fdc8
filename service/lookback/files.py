"""The files from which lookbacks are answered: each is put in place when complete, and kept for a while.

A file never changes once it is in place, so it is read without a lock. All processes together make one file
at a time.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import mkdtemp

from msgspec import Struct

from service.storage.files import locked, sync_file

_DIRECTORY = "lookback"
_BUILDING = "building-"
_MAX_FILES = 16  # the most recently used ones stay
_MAX_BYTES = 4 << 30  # of all files together; the newest one stays whatever its size
_NAME = re.compile(r"(?P<key>\w+)-(?P<since>\d+|books)-(?P<position>\d+)-(?P<digest>\w+)\.db")


class LookbackSpec(Struct, frozen=True, kw_only=True):
    """The content of a file: the books of the first `position` events, or restatements.

    With `since` it holds the restatements by the events after `since` up to `position`. `digest` is the
    beginning of the chain's digest at `position`.
    """

    position: int
    digest: str
    since: int | None = None

    def includes(self, other: "LookbackSpec") -> bool:
        """Whether it is made from all events from which the other one is."""
        if self.since is None or other.since is None:
            return self == other
        return self.since <= other.since and other.position <= self.position


class LookbackFiles:
    """The files of one data directory; `key` is different for other code, versions of books or rules."""

    def __init__(self, data_dir: Path, key: str) -> None:
        self._directory = data_dir / _DIRECTORY
        self._key = key

    def find(self, spec: LookbackSpec) -> Path | None:
        """The path of the file if it exists; the file counts as used now."""
        path = self._path(spec)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def find_bases(self, spec: LookbackSpec) -> Iterator[tuple[LookbackSpec, Path]]:
        """Files from which the wanted one can be made by adding later events; the nearest first."""
        matches = [match for path in self._directory.glob("*.db") if (match := _NAME.fullmatch(path.name))]
        content = "books" if spec.since is None else str(spec.since)
        for match in sorted(matches, key=lambda match: -int(match["position"])):
            position = int(match["position"])
            if (match["key"], match["since"]) == (self._key, content) and position < spec.position:
                base = LookbackSpec(position=position, digest=match["digest"], since=spec.since)
                yield base, self._directory / match.string

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait for the lock to make files, and hold it. Removes directories left by killed processes."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self._directory / "lock"):
            for leftover in self._directory.glob(f"{_BUILDING}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    @contextmanager
    def workdir(self) -> Iterator[Path]:
        """An empty directory in which to make a file; it is removed at the end."""
        directory = Path(mkdtemp(prefix=_BUILDING, dir=self._directory))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def put(self, made: Path, spec: LookbackSpec) -> None:
        """Put a complete file in its place, durably; remove the files that were not used for longest."""
        sync_file(made)
        os.replace(made, self._path(spec))
        by_use = sorted(self._directory.glob("*.db"), key=lambda path: -path.stat().st_mtime_ns)
        size = 0
        for number, path in enumerate(by_use):
            size += path.stat().st_size
            if number and (number >= _MAX_FILES or size > _MAX_BYTES):
                path.unlink(missing_ok=True)

    def _path(self, spec: LookbackSpec) -> Path:
        content = "books" if spec.since is None else spec.since
        return self._directory / f"{self._key}-{content}-{spec.position}-{spec.digest}.db"


def remove_all_files(data_dir: Path) -> None:
    """Remove all files of all lookbacks: they hold names. A file being made now is never put in place."""
    with suppress(FileNotFoundError):
        os.rename(data_dir / _DIRECTORY, data_dir / f"{_DIRECTORY}-forgotten-{token_hex(4)}")
    for leftover in data_dir.glob(f"{_DIRECTORY}-forgotten-*"):
        while leftover.exists():  # a process that makes a file there may still be writing
            shutil.rmtree(leftover, ignore_errors=True)
