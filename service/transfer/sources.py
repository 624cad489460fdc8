"""Files to import, read as a stream: lines, and the JSON documents in them."""

import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

from msgspec import DecodeError, Raw, json

from service.core.errors import ParameterError, Unreadable
from service.storage.files import named_when_whole

STANDARD = Path("-")
MOST = 64 << 20  # bytes of a line, or of a document over several: more are no JSON that we read
NO_JSON = (DecodeError, UnicodeDecodeError, RecursionError)

_FIELDS = json.Decoder(dict[str, Raw])
_LISTED = json.Decoder(list[Raw])


class Source:
    """A file under way. `size` is its length in bytes, None of standard input; `read` counts those read."""

    def __init__(self, raw: BinaryIO, size: int | None, *, zipped: bool) -> None:
        self.size = size
        self._raw = raw
        self._plain = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if zipped else raw
        self._read = 0

    @property
    def read(self) -> int:
        """Bytes of the file that were read; where it is compressed, compressed ones."""
        return self._raw.tell() if self._plain is not self._raw else self._read

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its number, from 1. Of one that is too long only the beginning, which is no JSON.

        Raises Unreadable where a compressed file can't be.
        """
        number = 0
        while line := self._piece():
            number += 1
            rest = line
            while len(rest) == MOST and not rest.endswith(b"\n"):
                rest = self._piece()
            yield number, line

    def _piece(self) -> bytes:
        try:
            piece = self._plain.readline(MOST)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise Unreadable("the compressed file is damaged, or was cut") from None
        self._read += len(piece)
        return piece


def check_readable(path: Path) -> None:
    """Raise ParameterError unless it is a file that can be read."""
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise ParameterError(f"{path} is no file that can be read")


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """A file to read, or standard input for "-"; a name that ends in .gz is of a compressed one."""
    if path == STANDARD:
        yield Source(sys.stdin.buffer, None, zipped=False)
        return
    with open(path, "rb") as raw:
        yield Source(raw, path.stat().st_size, zipped=path.suffix == ".gz")


@contextmanager
def created(path: Path) -> Iterator[BinaryIO]:
    """A file to write, or standard output for "-". It has its name once it is whole."""
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with named_when_whole(path) as partial, open(partial, "wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(path.stem, "wb", 6, raw, mtime=0) as zipped:
                yield cast(BinaryIO, zipped)
        else:
            yield raw


def last_changed(path: Path) -> datetime:
    """When a file was last written, to the second."""
    return datetime.fromtimestamp(int(path.stat().st_mtime), UTC)


def documents(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Each JSON document, with the number of its first line.

    A line is one by itself, but for those that begin one which is indented over the next, as `jq` and
    Stripe's command line print it. What is broken comes as it is, and keeps out no other.
    """
    begun: list[bytes] = []
    first = size = 0
    for number, line in lines:
        text = line.rstrip()
        if begun and (not text or line[:1] in b" \t}]"):
            begun.append(line)
            size += len(line)
            if line[:1] not in b"}]" and size < MOST:
                continue
            yield first, b"".join(begun)
            begun = []
            continue
        if begun:
            yield first, b"".join(begun)
            begun = []
        if text[:1] in (b"{", b"[") and text[-1:] not in (b"}", b"]"):
            begun, first, size = [line], number, len(line)
        elif text:
            yield number, text
    if begun:
        yield first, b"".join(begun)


def members(document: bytes, field: str) -> list[bytes]:
    """What a document lists, under `field` or as a list itself; else the document alone.

    Raises one of NO_JSON.
    """
    listed = document.strip()
    if listed[:1] == b"{":
        listed = bytes(_FIELDS.decode(document).get(field, b""))
    elif listed[:1] != b"[":
        json.decode(document)
    return [bytes(part) for part in _LISTED.decode(listed)] if listed[:1] == b"[" else [document]
