"""The files that look-backs are answered from: made beside each other, put in place whole, kept for a while.

Whoever finds one may read it without a lock: it never changes again. One is made at a time, whichever
process makes it.
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
_KEPT = 16  # files
_KEPT_BYTES = 4 << 30  # of all files together; the newest is kept whatever it has
_NAME = re.compile(r"(?P<key>\w+)-(?P<since>\d+|books)-(?P<position>\d+)-(?P<digest>\w+)\.db")


class Wanted(Struct, frozen=True, kw_only=True):
    """The books of the first `position` events; or, with `since`, what those after it restated.

    `digest` is the beginning of the chain's at `position`.
    """

    position: int
    digest: str
    since: int | None = None


class Files:
    """The files of one data directory; `key` tells apart what other code, versions or rules would make."""

    def __init__(self, data_dir: Path, key: str) -> None:
        self._directory = data_dir / _DIRECTORY
        self._key = key

    def find(self, wanted: Wanted) -> Path | None:
        """The file, if it is there; it counts as used now."""
        path = self._path(wanted)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def bases(self, wanted: Wanted) -> Iterator[tuple[Wanted, Path]]:
        """Files that `wanted` may be made from, by adding what came later; the nearest first."""
        found = [match for path in self._directory.glob("*.db") if (match := _NAME.fullmatch(path.name))]
        of = "books" if wanted.since is None else str(wanted.since)
        for match in sorted(found, key=lambda match: -int(match["position"])):
            if (match["key"], match["since"]) == (self._key, of) and int(match["position"]) < wanted.position:
                base = Wanted(position=int(match["position"]), digest=match["digest"], since=wanted.since)
                yield base, self._directory / match.string

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until nobody else makes a file. What a killed process left is removed."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self._directory / "lock"):
            for left in self._directory.glob(f"{_BUILDING}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    @contextmanager
    def desk(self) -> Iterator[Path]:
        """An empty directory to make a file in."""
        directory = Path(mkdtemp(prefix=_BUILDING, dir=self._directory))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def put(self, made: Path, wanted: Wanted) -> None:
        """Put a file in its place, on disk and whole; drop those that were not used for longest."""
        sync_file(made)
        os.replace(made, self._path(wanted))
        kept = sorted(self._directory.glob("*.db"), key=lambda path: -path.stat().st_mtime_ns)
        total = 0
        for number, path in enumerate(kept):
            total += path.stat().st_size
            if number and (number >= _KEPT or total > _KEPT_BYTES):
                path.unlink(missing_ok=True)

    def _path(self, wanted: Wanted) -> Path:
        of = "books" if wanted.since is None else wanted.since
        return self._directory / f"{self._key}-{of}-{wanted.position}-{wanted.digest}.db"


def forget(data_dir: Path) -> None:
    """Remove every file of every look-back: they hold names. One that is being made is never put in place."""
    with suppress(FileNotFoundError):
        os.rename(data_dir / _DIRECTORY, data_dir / f"{_DIRECTORY}-forgotten-{token_hex(4)}")
    for left in data_dir.glob(f"{_DIRECTORY}-forgotten-*"):
        while left.exists():  # whoever builds there may still be adding to it
            shutil.rmtree(left, ignore_errors=True)
