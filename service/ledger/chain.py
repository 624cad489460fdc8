"""The digest chain: each event's row, column by column, bound to the row before it."""

from hashlib import sha256
from typing import Any

from service.core.errors import Integrity

GENESIS = bytes(32)

# Every column but the digest itself. Adding one is a new chain format: end the old chain first.
CHAINED = tuple(
    """position recorded_at_us processor account event_id type occurred_at_us rank trust
    data before content_digest delivery delivery_digest""".split()
)


def link(previous: bytes, row: dict[str, Any]) -> bytes:
    """The digest of `row` (by column name) after `previous`: SHA-256 over length-prefixed columns."""
    digest = sha256(previous)
    for name in CHAINED:
        value = row[name]
        column = value if isinstance(value, bytes) else b"" if value is None else str(value).encode()
        digest.update(b"%d:" % (-1 if value is None else len(column)))
        digest.update(column)
    return digest.digest()


def delivery_digest(headers: bytes, body: bytes, proof: bytes) -> bytes:
    """The digest of a raw delivery, which an event's row holds."""
    return sha256(b"%d:%b%d:%b%d:%b" % (len(headers), headers, len(body), body, len(proof), proof)).digest()


def check(previous: bytes, expected_position: int, row: dict[str, Any]) -> None:
    """Raise Integrity naming the position if `row` is not the next link."""
    if row["position"] != expected_position:
        raise Integrity(
            f"position {expected_position} is missing; position {row['position']} stands in its place"
        )
    if link(previous, row) != row["digest"]:
        raise Integrity(f"the chain is broken at position {row['position']}")
