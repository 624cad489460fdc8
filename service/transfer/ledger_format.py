"""An exported ledger: a line for each delivery, in order, as JSON. Each line's digest follows the last's.

So what was changed in a file is noticed before it is taken, and that its end is missing, at its end.
"""

from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any, BinaryIO

from msgspec import Meta, Raw, Struct, json

from service.core.delivery import Proof
from service.core.errors import Integrity
from service.core.events import Moment
from service.core.moments import from_us
from service.ledger.draft import Head
from service.ledger.store import Ledger

VERSION = 1
GENESIS = bytes(32)
_PAGE = 1_000  # events read at once
_QUARANTINED = 256  # deliveries read at once

NULL = Raw(b"null")

_Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]


class Event(Struct, frozen=True, kw_only=True):
    """An event as it was translated."""

    position: int
    recorded_at: Moment
    processor: _Name
    account: str
    event_id: str
    type: str
    occurred_at: Moment
    rank: Annotated[int, Meta(ge=0, le=1000)]
    trust: _Name
    data: Raw
    before: Raw  # null where there is none


class Begin(Struct, frozen=True, kw_only=True, tag="daybook-ledger"):
    """The first line: which format this is."""

    version: int = VERSION


class Delivery(Struct, frozen=True, kw_only=True, tag="delivery"):
    """A delivery with its events. `headers` and `body` are base64; no body is one that was erased."""

    headers: bytes
    body: bytes | None
    proof: Proof
    events: Annotated[list[Event], Meta(min_length=1)]


class Quarantined(Struct, frozen=True, kw_only=True, tag="quarantine"):
    """A delivery in quarantine, and how it was settled, if it was."""

    received_at: Moment
    reason: _Name
    detail: str
    headers: bytes
    body: bytes
    proof: Proof
    settled_at: Moment | None = None
    settled_as: str | None = None
    settled_because: str | None = None


class End(Struct, frozen=True, kw_only=True, tag="end"):
    """The last line: how much there is before it, and where the ledger was."""

    deliveries: int = 0
    events: int = 0
    quarantined: int = 0
    position: int
    digest: str


Part = Begin | Delivery | Quarantined | End


class Line(Struct, frozen=True):
    """One line: a part, and the digest of it after the line before."""

    digest: str
    part: Raw


def digest_of(previous: bytes, part: bytes) -> bytes:
    """SHA-256 of a part's bytes after the digest before."""
    return sha256(previous + part).digest()


async def export(ledger: Ledger, out: BinaryIO, done: Callable[[int], None]) -> End:
    """Write the ledger as it is now; `done` is called with so many events.

    Raises Integrity if positions are missing. Pages are transactions of their own: what is in the ledger
    stays as it is, and a long one would keep SQLite from tidying up its journal.
    """
    async with ledger.reading() as reader:
        head = await reader.head()
    write = _writer(out)
    write(Begin())
    deliveries = quarantined = 0
    async for delivery in _deliveries(ledger, head):
        write(delivery)
        deliveries += 1
        done(len(delivery.events))
    async for row in _quarantined(ledger):
        write(row)
        quarantined += 1
    end = End(
        deliveries=deliveries,
        events=head.position,
        quarantined=quarantined,
        position=head.position,
        digest=head.digest.hex(),
    )
    write(end)
    return end


def _writer(out: BinaryIO) -> Callable[[Part], None]:
    previous = GENESIS

    def write(part: Part) -> None:
        nonlocal previous
        text = json.encode(part)
        previous = digest_of(previous, text)
        out.write(b'{"digest":"%b","part":%b}\n' % (previous.hex().encode(), text))

    return write


async def _deliveries(ledger: Ledger, head: Head) -> AsyncIterator[Delivery]:
    """Whole deliveries up to a head, which is never within one."""
    after, held = 0, list[dict[str, Any]]()
    while after < head.position:
        async with ledger.reading() as reader:
            rows = [row for row in await reader.rows(after, _PAGE) if row["position"] <= head.position]
            if not rows or rows[0]["position"] != after + 1:
                raise Integrity(f"position {after + 1} is missing")
            after, held = rows[-1]["position"], held + rows
            unfinished = held[-1]["delivery"] if after < head.position else None
            whole = [row for row in held if row["delivery"] != unfinished]
            held = held[len(whole) :]
            starts = sorted({row["delivery"] for row in whole})
            found = await reader.deliveries(starts[0] - 1, len(starts)) if starts else []
        raw = {delivery["position"]: delivery for delivery in found}
        for start, events in groupby(whole, itemgetter("delivery")):
            yield _delivery(raw.get(start), list(events))


def _delivery(raw: dict[str, Any] | None, rows: list[dict[str, Any]]) -> Delivery:
    """A delivery as it stands. An operator may have moved its bytes and its proof away."""
    first = rows[0]
    moved = Proof(
        processor=first["processor"],
        method="moved",
        received_at=from_us(first["recorded_at_us"]),
        trust=first["trust"],
    )
    return Delivery(
        headers=raw["headers"] if raw else b"{}",
        body=raw["body"] if raw else None,
        proof=json.decode(raw["proof"], type=Proof) if raw else moved,
        events=[_event(row) for row in rows],
    )


def _event(row: dict[str, Any]) -> Event:
    return Event(
        position=row["position"],
        recorded_at=from_us(row["recorded_at_us"]),
        processor=row["processor"],
        account=row["account"],
        event_id=row["event_id"],
        type=row["type"],
        occurred_at=from_us(row["occurred_at_us"]),
        rank=row["rank"],
        trust=row["trust"],
        data=Raw(row["data"]),
        before=Raw(row["before"]) if row["before"] else NULL,
    )


async def _quarantined(ledger: Ledger) -> AsyncIterator[Quarantined]:
    """What is in quarantine, but for what was erased there: there is nothing left of it."""
    after = 0
    while True:
        async with ledger.reading() as reader:
            rows = await reader.quarantined_deliveries(after, _QUARANTINED)
        if not rows:
            return
        after = rows[-1]["id"]
        for row in (row for row in rows if row["body"] is not None):
            settled_at = row["settled_at_us"]
            yield Quarantined(
                received_at=from_us(row["received_at_us"]),
                reason=row["reason"],
                detail=row["detail"],
                headers=row["headers"],
                body=row["body"],
                proof=json.decode(row["proof"], type=Proof),
                settled_at=None if settled_at is None else from_us(settled_at),
                settled_as=row["settled_as"],
                settled_because=row["settled_because"],
            )
