"""Anchors: signed heads of the ledger, stored outside of its database.

The digest chain reveals a changed row, but not that the whole chain was written anew, or that its end was
cut off. A signed head stored elsewhere reveals both.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import DecodeError, Struct, json
from msgspec.structs import replace

from service.core.errors import Integrity
from service.core.moments import rfc3339
from service.ledger import chain
from service.ledger.reader import LedgerReader
from service.ledger.store import Ledger
from service.storage.files import replace_file


class Anchor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The head of the ledger at a moment. Digests, `public_key` and `signature` are hexadecimal digits.

    `signature` is the Ed25519 signature of `signed_bytes()`. `record` is the last one of quarantine's chain,
    None where an older version made the anchor.
    """

    position: int
    digest: str
    at: str
    public_key: str
    record: int | None = None
    record_digest: str | None = None
    signature: str = ""

    def signed_bytes(self) -> bytes:
        """The bytes that are signed."""
        lines = ["daybook anchor", self.position, self.digest, self.at, self.public_key]
        if self.record is not None:
            lines += [self.record, self.record_digest]
        return "\n".join(map(str, lines)).encode()


class Anchors:
    """A file of anchors, one JSON document a line, signed with the key made from `seed` (32 bytes)."""

    def __init__(self, path: Path, seed: bytes, clock: Callable[[], datetime]) -> None:
        self._path = path
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public_key = self._key.public_key().public_bytes_raw().hex()
        self._clock = clock

    async def check(self, ledger: Ledger) -> int:
        """Compare each anchor in the file with the ledger; return their number, 0 if there is no file.

        Raises Integrity at the first anchor that another key signed, or that differs from the ledger.
        """
        anchors = self._read()
        previous = 0
        async with ledger.reading() as reader:
            end, last_record = (await reader.head()).position, (await reader.quarantine_end())[0]
            for number, anchor in enumerate(anchors, 1):
                self._check_signature(number, anchor)
                if anchor.position > end:
                    raise Integrity(
                        f"the ledger ends before the anchor of line {number}: "
                        f"at position {end}, and it was at {anchor.position}"
                    )
                if await _digest_at(reader, anchor.position) != anchor.digest:
                    raise Integrity(
                        f"the ledger was rewritten before position {anchor.position} (and after {previous}): "
                        f"the anchor of line {number} holds another digest"
                    )
                previous = anchor.position
                await _check_record(reader, number, anchor, last_record)
        return len(anchors)

    async def extend(self, ledger: Ledger, position: int) -> None:
        """Add the head at a position to the file, whole or not at all."""
        async with ledger.reading() as reader:
            digest = await _digest_at(reader, position)
            record, record_digest = await reader.quarantine_end()
        unsigned = Anchor(
            position=position,
            digest=digest,
            at=rfc3339(self._clock()),
            public_key=self._public_key,
            record=record,
            record_digest=record_digest.hex(),
        )
        anchor = replace(unsigned, signature=self._key.sign(unsigned.signed_bytes()).hex())
        lines = self._path.read_bytes() if self._path.exists() else b""
        replace_file(self._path, lines + json.encode(anchor) + b"\n")

    def _read(self) -> list[Anchor]:
        if not self._path.exists():
            return []
        try:
            return [json.decode(line, type=Anchor) for line in self._path.read_bytes().splitlines()]
        except DecodeError as error:
            raise Integrity(f"{self._path} is no file of anchors: {error}") from None

    def _check_signature(self, number: int, anchor: Anchor) -> None:
        if anchor.public_key != self._public_key:
            raise Integrity(f"the anchor of line {number} was signed by another key, {anchor.public_key}")
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self._public_key))
        try:
            key.verify(bytes.fromhex(anchor.signature), anchor.signed_bytes())
        except (InvalidSignature, ValueError):
            raise Integrity(f"the anchor of line {number} was changed: its signature is wrong") from None


async def _check_record(reader: LedgerReader, line: int, anchor: Anchor, last: int) -> None:
    """Raise Integrity if quarantine's chain is not what an anchor holds."""
    if not anchor.record:
        return
    if anchor.record > last:
        raise Integrity(
            f"the chain of quarantine ends before the anchor of line {line}: "
            f"at record {last}, and it was at {anchor.record}"
        )
    (record,) = await reader.quarantine_records(anchor.record - 1, 1)
    if record["digest"].hex() != anchor.record_digest:
        raise Integrity(
            f"quarantine was rewritten before record {anchor.record}: "
            f"the anchor of line {line} holds another digest"
        )


async def _digest_at(reader: LedgerReader, position: int) -> str:
    if position == 0:
        return chain.GENESIS.hex()
    rows = await reader.stored_rows(position - 1, 1)
    return rows[0]["digest"].hex() if rows else ""
