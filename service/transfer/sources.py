"""Files to import, read as streams of lines and of JSON documents; and files to export."""

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
from service.core.rfc8259 import BYTE_ORDER_MARK, parse_json
from service.storage.files import named_when_whole

STANDARD_STREAM = Path("-")
MAX_DOCUMENT_BYTES = 64 << 20  # a longer line, or document over several lines, is not read as JSON
JSON_ERRORS = (DecodeError, UnicodeDecodeError, RecursionError)

_FIELDS = json.Decoder(dict[str, Raw])
_LIST = json.Decoder(list[Raw])


class ImportSource:
    """A file that is being read. `size` is its length in bytes, None for standard input."""

    def __init__(self, raw: BinaryIO, size: int | None, *, is_gzipped: bool) -> None:
        self.size = size
        self._raw = raw
        self._plain = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if is_gzipped else raw
        self._plain_bytes_read = 0

    @property
    def bytes_read(self) -> int:
        """The number of bytes read so far; of a compressed file, compressed bytes."""
        return self._raw.tell() if self._plain is not self._raw else self._plain_bytes_read

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its number, from 1. A line that is too long is cut, and so is no JSON.

        Raises Unreadable if a compressed file is damaged.
        """
        number = 0
        while line := self._read_piece():
            number += 1
            piece = line
            while len(piece) == MAX_DOCUMENT_BYTES and not piece.endswith(b"\n"):
                piece = self._read_piece()
            yield number, line

    def _read_piece(self) -> bytes:
        try:
            piece = self._plain.readline(MAX_DOCUMENT_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise Unreadable("the compressed file is damaged, or was cut") from None
        self._plain_bytes_read += len(piece)
        return piece


def check_readable(path: Path) -> None:
    """Raise ParameterError unless `path` is a readable file."""
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise ParameterError(f"{path} is no file that can be read")


@contextmanager
def open_source(path: Path) -> Iterator[ImportSource]:
    """A file to read, or standard input for "-"; a file whose name ends in .gz is decompressed."""
    if path == STANDARD_STREAM:
        yield ImportSource(sys.stdin.buffer, None, is_gzipped=False)
        return
    with open(path, "rb") as raw:
        yield ImportSource(raw, path.stat().st_size, is_gzipped=path.suffix == ".gz")


@contextmanager
def open_output(path: Path) -> Iterator[BinaryIO]:
    """A file to write, or standard output for "-". The file gets its name only once it is complete."""
    if path == STANDARD_STREAM:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with named_when_whole(path) as partial, open(partial, "wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(path.stem, "wb", 6, raw, mtime=0) as zipped:
                yield cast(BinaryIO, zipped)
        else:
            yield raw


def last_modified(path: Path) -> datetime:
    """When a file was last written, to the second."""
    return datetime.fromtimestamp(int(path.stat().st_mtime), UTC)


def read_documents(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Each JSON document, with the number of its first line; without a byte order mark before the first.

    A document is one line, or several lines that are indented as `jq` and Stripe's command line print them.
    A broken document is returned as it is, and the documents after it are still found.
    """
    open_lines: list[bytes] = []
    first_number = size = 0
    for number, piece in lines:
        line = piece.removeprefix(BYTE_ORDER_MARK) if number == 1 else piece
        text = line.rstrip()
        if open_lines and (not text or line[:1] in b" \t}]"):
            open_lines.append(line)
            size += len(line)
            if line[:1] not in b"}]" and size < MAX_DOCUMENT_BYTES:
                continue
            yield first_number, b"".join(open_lines)
            open_lines = []
            continue
        if open_lines:
            yield first_number, b"".join(open_lines)
            open_lines = []
        if text[:1] in (b"{", b"[") and text[-1:] not in (b"}", b"]"):
            open_lines, first_number, size = [line], number, len(line)
        elif text:
            yield number, text
    if open_lines:
        yield first_number, b"".join(open_lines)


def list_members(document: bytes, field: str) -> list[bytes]:
    """The members of a document that is a list or has a list in `field`; else the document alone.

    Raises one of NOT_JSON.
    """
    try:
        return _split(document, field)
    except JSON_ERRORS:
        parsed = parse_json(document)  # the members of JSON that msgspec refuses are written anew
        listed = parsed.get(field) if isinstance(parsed, dict) else parsed
        return [json.encode(member) for member in listed] if isinstance(listed, list) else [document]


def _split(document: bytes, field: str) -> list[bytes]:
    listing = document.strip()
    if listing[:1] == b"{":
        listing = bytes(_FIELDS.decode(document).get(field, b""))
    elif listing[:1] != b"[":
        json.decode(document)
    return [bytes(part) for part in _LIST.decode(listing)] if listing[:1] == b"[" else [document]
