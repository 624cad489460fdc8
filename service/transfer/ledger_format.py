"""The format of an exported ledger: a line of JSON for each delivery, in order, with chained digests.

Each line's digest covers the digest before it, so an import notices a changed line before it is appended.
The last line has its own type, so a file that was cut is noticed, too.
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
from service.core.progress import Advance
from service.ledger.draft import Head
from service.ledger.store import Ledger

VERSION = 1
GENESIS = bytes(32)
_EVENT_PAGE = 1_000  # events read at once
_QUARANTINE_PAGE = 256  # deliveries read at once

NULL = Raw(b"null")

_Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]


class ExportedEvent(Struct, frozen=True, kw_only=True):
    """An event as the exporting ledger has it."""

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
    before: Raw  # null if the event has none


class ExportBegin(Struct, frozen=True, kw_only=True, tag="daybook-ledger"):
    """The first line, with the version of the format."""

    version: int = VERSION


class ExportedDelivery(Struct, frozen=True, kw_only=True, tag="delivery"):
    """A delivery with its events. `headers` and `body` are base64, `body` null if erased or moved away."""

    headers: bytes
    body: bytes | None
    proof: Proof
    events: Annotated[list[ExportedEvent], Meta(min_length=1)]


class ExportedQuarantine(Struct, frozen=True, kw_only=True, tag="quarantine"):
    """A delivery in quarantine, with its settlement if it has one."""

    received_at: Moment
    reason: _Name
    detail: str
    headers: bytes
    body: bytes
    proof: Proof
    settled_at: Moment | None = None
    settled_as: str | None = None
    settled_because: str | None = None


class ExportEnd(Struct, frozen=True, kw_only=True, tag="end"):
    """The last line: the counts of what precedes it, and the ledger's head."""

    deliveries: int = 0
    events: int = 0
    quarantined: int = 0
    position: int
    digest: str


ExportPart = ExportBegin | ExportedDelivery | ExportedQuarantine | ExportEnd


class ExportLine(Struct, frozen=True):
    """One line: a part, and the digest of the previous line's digest and this part."""

    digest: str
    part: Raw


def chain_digest(previous: bytes, part: bytes) -> bytes:
    """SHA-256 of the previous digest followed by a part's bytes."""
    return sha256(previous + part).digest()


async def export_ledger(ledger: Ledger, out: BinaryIO, advance: Advance) -> ExportEnd:
    """Write the ledger as it is now; `advance` is called with the number of events of each delivery.

    Raises Integrity if positions are missing. Each page is read in a transaction of its own: the ledger is
    append-only, and one long transaction would keep SQLite from truncating its journal.
    """
    async with ledger.reading() as reader:
        head = await reader.head()
    write = _writer(out)
    write(ExportBegin())
    deliveries = quarantined = 0
    async for delivery in _read_deliveries(ledger, head):
        write(delivery)
        deliveries += 1
        advance(len(delivery.events))
    async for row in _read_quarantine(ledger):
        write(row)
        quarantined += 1
    end = ExportEnd(
        deliveries=deliveries,
        events=head.position,
        quarantined=quarantined,
        position=head.position,
        digest=head.digest.hex(),
    )
    write(end)
    return end


def _writer(out: BinaryIO) -> Callable[[ExportPart], None]:
    previous = GENESIS

    def write(part: ExportPart) -> None:
        nonlocal previous
        text = json.encode(part)
        previous = chain_digest(previous, text)
        out.write(b'{"digest":"%b","part":%b}\n' % (previous.hex().encode(), text))

    return write


async def _read_deliveries(ledger: Ledger, head: Head) -> AsyncIterator[ExportedDelivery]:
    """The complete deliveries up to a head; a head is never in the middle of a delivery."""
    after, pending_rows = 0, list[dict[str, Any]]()
    while after < head.position:
        async with ledger.reading() as reader:
            rows = [row for row in await reader.rows(after, _EVENT_PAGE) if row["position"] <= head.position]
            if not rows or rows[0]["position"] != after + 1:
                raise Integrity(f"position {after + 1} is missing")
            after, pending_rows = rows[-1]["position"], pending_rows + rows
            unfinished = pending_rows[-1]["delivery"] if after < head.position else None
            complete_rows = [row for row in pending_rows if row["delivery"] != unfinished]
            pending_rows = pending_rows[len(complete_rows) :]
            start_positions = sorted({row["delivery"] for row in complete_rows})
            raw_deliveries = (
                await reader.deliveries(start_positions[0] - 1, len(start_positions))
                if start_positions
                else []
            )
        raw = {delivery["position"]: delivery for delivery in raw_deliveries}
        for position, events in groupby(complete_rows, itemgetter("delivery")):
            yield _delivery(raw.get(position), list(events))


def _delivery(raw: dict[str, Any] | None, rows: list[dict[str, Any]]) -> ExportedDelivery:
    """A delivery of the ledger. `raw` is None if an operator moved its bytes and proof away."""
    first = rows[0]
    placeholder = Proof(
        processor=first["processor"],
        method="moved",
        received_at=from_us(first["recorded_at_us"]),
        trust=first["trust"],
    )
    return ExportedDelivery(
        headers=raw["headers"] if raw else b"{}",
        body=raw["body"] if raw else None,
        proof=json.decode(raw["proof"], type=Proof) if raw else placeholder,
        events=[_event(row) for row in rows],
    )


def _event(row: dict[str, Any]) -> ExportedEvent:
    return ExportedEvent(
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


async def _read_quarantine(ledger: Ledger) -> AsyncIterator[ExportedQuarantine]:
    """The deliveries in quarantine, except for erased ones, which have no content left.

    Raises Integrity if one is not what was put into quarantine.
    """
    after = 0
    while True:
        async with ledger.reading() as reader:
            for entry in await reader.stored_quarantine(after, _QUARANTINE_PAGE):
                await reader.check_quarantined(entry)
            rows = await reader.quarantined_deliveries(after, _QUARANTINE_PAGE)
        if not rows:
            return
        after = rows[-1]["id"]
        for row in (row for row in rows if row["body"] is not None):
            settled_at = row["settled_at_us"]
            yield ExportedQuarantine(
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
