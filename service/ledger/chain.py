"""The digest chain: each row's digest covers all its columns and the digest of the row before it."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from service.core.errors import Integrity

GENESIS = bytes(32)

# Every column but the digest itself. Another column makes another chain format: end the old chain first.
CHAINED = tuple(
    """position recorded_at_us processor account event_id type occurred_at_us rank trust
    data before content_digest delivery delivery_digest""".split()
)


def link(previous: bytes, row: dict[str, Any], columns: Sequence[str] = CHAINED) -> bytes:
    """The digest of `row` (values by column name): SHA-256 over `previous` and length-prefixed columns."""
    parts = [previous]
    for name in columns:
        value = row[name]
        column = value if isinstance(value, bytes) else b"" if value is None else str(value).encode()
        parts.append(b"%d:%b" % (-1 if value is None else len(column), column))
    return sha256(b"".join(parts)).digest()


def delivery_digest(headers: bytes, body: bytes, proof: bytes) -> bytes:
    """The digest of a raw delivery, as its events' rows hold it."""
    return sha256(b"%d:%b%d:%b%d:%b" % (len(headers), headers, len(body), body, len(proof), proof)).digest()


def check(previous: bytes, expected_position: int, row: dict[str, Any]) -> None:
    """Raise Integrity with the position if `row` is not the next link of the chain."""
    if row["position"] != expected_position:
        raise Integrity(
            f"position {expected_position} is missing; position {row['position']} stands in its place"
        )
    if link(previous, row) != row["digest"]:
        raise Integrity(f"the chain is broken at position {row['position']}")
