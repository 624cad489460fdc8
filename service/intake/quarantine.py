"""Quarantine: what was proved and could not be recorded is looked at, read again, or dismissed."""

from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from msgspec import DecodeError, Raw, Struct, json
from msgspec.structs import replace

from service.core.delivery import Proof
from service.core.differences import Difference, differences
from service.core.errors import Erased, Integrity, NotFound
from service.core.moments import from_us, rfc3339
from service.intake.translation import endpoint_of, read_delivery
from service.ledger.draft import Incoming
from service.ledger.store import Ledger, LedgerReader

CONFLICT = "conflict"
_PAGE = 500
_MOST = 2**62  # no id is larger


class Retried(Struct, frozen=True, kw_only=True):
    """What became of a second reading.

    `outcome`: "recorded", "duplicate" (the ledger holds all of it), "partial" (what can be read of a list
    is recorded), "conflict", "unreadable", "erased", or "settled" before. `position` is that of its last
    event, None where it has none.
    """

    id: int
    outcome: str
    detail: str = ""
    position: int | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be done about it."""
        return self.outcome in ("recorded", "duplicate", "settled")


# Looking


def listed(row: dict[str, Any]) -> dict[str, Any]:
    """A row of quarantine as lists show it: why it is there, and whether it still waits."""
    settled_at = row["settled_at_us"]
    return {
        "id": row["id"],
        "received_at": rfc3339(from_us(row["received_at_us"])),
        "processor": row["processor"],
        "reason": row["reason"],
        "detail": row["detail"],
        "conflicts_with": row["conflicts_with"],
        "status": row["settled_as"] or "open",
        "settled_at": rfc3339(from_us(settled_at)) if settled_at is not None else None,
        "settled_because": row["settled_because"],
    }


async def rows_of(reader: LedgerReader, **chosen: Any) -> AsyncIterator[dict[str, Any]]:
    """All rows of quarantine that `LedgerReader.waiting` would give, page by page."""
    after = 0
    while rows := await reader.quarantine_entries(after, _PAGE, **chosen):
        for row in rows:
            yield row
        after = rows[-1]["id"]


async def found(reader: LedgerReader, waiting: int) -> dict[str, Any]:
    """One whole row. Raises NotFound."""
    rows = await reader.quarantined_deliveries(waiting - 1, 1) if 0 < waiting < _MOST else []
    if not rows or rows[0]["id"] != waiting:
        raise NotFound(f"quarantine holds no {waiting}")
    return rows[0]


async def shown(reader: LedgerReader, waiting: int) -> dict[str, Any]:
    """One delivery with its body, how it was verified, and how it differs from what it contradicts.

    Raises NotFound.
    """
    row = await found(reader, waiting)
    body: bytes | None = row["body"]
    return {
        **listed(row),
        "headers": Raw(row["headers"]),
        "verification": Raw(row["proof"]),
        "raw_body": None if body is None else body.decode("utf-8", "replace"),
        "raw_body_base64": None if body is None else b64encode(body).decode(),
        "differences": await _differences(reader, row),
    }


async def _differences(reader: LedgerReader, row: dict[str, Any]) -> list[Difference] | None:
    """What the body says otherwise than the recorded one; None where there is none to compare with."""
    recorded = await _recorded(reader, row["conflicts_with"]) if row["conflicts_with"] else None
    if recorded is None or row["body"] is None:
        return None
    try:
        return list(differences(json.decode(recorded), json.decode(row["body"])))
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None


async def _recorded(reader: LedgerReader, position: int) -> bytes | None:
    """The body in which an event came; None where it was erased or moved away."""
    (event,) = await reader.rows(position - 1, 1)
    try:
        body: bytes = (await reader.delivery(event["delivery"]))["body"]
    except (Erased, Integrity):
        return None
    return body


# Reading again


def read_again(row: dict[str, Any]) -> Incoming:
    """A row of quarantine, whose body is there, as today's translators read it."""
    proof = json.decode(row["proof"], type=Proof)
    endpoint = endpoint_of(row["processor"])
    if endpoint is None:
        return Incoming(
            events=(),
            content_digest=row["content_digest"],
            headers=row["headers"],
            body=row["body"],
            proof=proof,
            reason="unreadable",
            detail=f"nothing translates {row['processor']}",
        )
    return read_delivery(endpoint, row["headers"], row["body"], proof)


async def unread(ledger: Ledger) -> list[int]:
    """All that are open and can be read again: a conflict never can."""
    async with ledger.reading() as reader:
        return [row["id"] async for row in rows_of(reader) if row["reason"] != CONFLICT]


async def retry(ledger: Ledger, waiting: int, now: datetime) -> Retried:
    """Read a delivery again, and append what it says that the ledger lacks. Raises NotFound.

    It is settled in the same transaction, unless a part of it still can't be read. Again does no harm.
    """
    async with ledger.reading() as reader:
        row = await found(reader, waiting)
    if row["settled_at_us"] is not None:
        return Retried(id=waiting, outcome="settled", detail=f"{row['settled_as']} before")
    if row["reason"] == CONFLICT:
        at = row["conflicts_with"]
        detail = (
            f"position {at} has this id and other content, and stays: compare both, then dismiss this one"
        )
        return Retried(id=waiting, outcome=CONFLICT, detail=detail, position=at)
    if row["body"] is None:
        return Retried(
            id=waiting, outcome="erased", detail="it told of a customer who was erased: dismiss it"
        )
    return await _append(ledger, waiting, read_again(row), now)


async def _append(ledger: Ledger, waiting: int, incoming: Incoming, now: datetime) -> Retried:
    if incoming.reason and not incoming.events:
        return Retried(id=waiting, outcome="unreadable", detail=incoming.detail)
    whole = replace(incoming, reason=None, detail="")
    if incoming.reason:
        (kept,) = await ledger.append([whole], now)
        return Retried(id=waiting, outcome="partial", detail=incoming.detail, position=kept.position)
    kept = await ledger.retry(waiting, whole, now)
    if kept.conflict:
        detail = f"position {kept.position} has this id and other content; it waits as a conflict now"
        return Retried(id=waiting, outcome=CONFLICT, detail=detail, position=kept.position)
    outcome = "duplicate" if kept.duplicate else "recorded"
    return Retried(id=waiting, outcome=outcome, position=kept.position)


async def dismiss(ledger: Ledger, waiting: list[int], because: str, now: datetime) -> set[int]:
    """Settle what will not be read, and keep it, with the reason; which of these were open.

    Raises NotFound, and settles none, if quarantine lacks one of them.
    """
    async with ledger.reading() as reader:
        for each in waiting:
            await found(reader, each)
    return await ledger.dismiss(waiting, because, now)
