"""Quarantine: verified deliveries that could not be recorded are shown, read again, or dismissed."""

from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from msgspec import Raw, Struct, json
from msgspec.structs import replace

from service.core.delivery import ModeOf, Proof
from service.core.differences import FieldDifference, field_differences
from service.core.errors import Erased, Integrity, NotFound
from service.core.moments import from_us, rfc3339
from service.core.rfc8259 import NOT_JSON, parse_json
from service.intake.provenance import check_signature
from service.intake.translation import is_rendered, processor_of, read_delivery
from service.ledger.draft import Incoming
from service.ledger.reader import LedgerReader
from service.ledger.set_aside import SetAsideSubject
from service.ledger.store import Ledger
from service.ledger.vault import is_bound, is_sealed
from service.settings import Settings

CONFLICT = "conflict"
NO_API = "no_api"  # a thin event came while no API was set up from which to fetch what it names
REFUSED = "refused"
GONE = "gone"  # what a thin event names can't be fetched any more
_PAGE = 500
_MAX_ID = 2**62


class RetryResult(Struct, frozen=True, kw_only=True):
    """The result of reading a delivery again.

    `outcome`: "recorded", "duplicate" (the ledger has all its events), "partial" (the readable records of a
    list are recorded), "conflict", "unreadable", "erased", "refused" (it is not what was put into quarantine,
    or no signature shows who sent it), or "settled" (before this retry). `position` is that of its last
    event, None where it has none.
    """

    id: int
    outcome: str
    detail: str = ""
    position: int | None = None

    @property
    def settled(self) -> bool:
        """Whether the delivery needs no further action."""
        return self.outcome in ("recorded", "duplicate", "settled")


# Showing


def list_entry(row: dict[str, Any]) -> dict[str, Any]:
    """A row of quarantine as an entry of a list: why it is there, and whether it is still open."""
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


async def read_rows(reader: LedgerReader, **filters: Any) -> AsyncIterator[dict[str, Any]]:
    """All rows of quarantine, read page by page; `filters` are those of `LedgerReader.waiting`."""
    after = 0
    while rows := await reader.quarantine_entries(after, _PAGE, **filters):
        for row in rows:
            yield row
        after = rows[-1]["id"]


async def read_row(reader: LedgerReader, quarantine_id: int) -> dict[str, Any]:
    """One whole row of quarantine. Raises NotFound."""
    rows = await reader.quarantined_deliveries(quarantine_id - 1, 1) if 0 < quarantine_id < _MAX_ID else []
    if not rows or rows[0]["id"] != quarantine_id:
        raise NotFound(f"quarantine holds no {quarantine_id}")
    return rows[0]


async def read_document(reader: LedgerReader, quarantine_id: int) -> dict[str, Any]:
    """The document of one delivery: its body, how it was verified, and how it differs from the recorded one.

    Raises NotFound.
    """
    row = await read_row(reader, quarantine_id)
    body: bytes | None = row["body"]
    return {
        **list_entry(row),
        "headers": Raw(row["headers"]),
        "verification": Raw(row["proof"]),
        "raw_body": None if body is None else body.decode("utf-8", "replace"),
        "raw_body_base64": None if body is None else b64encode(body).decode(),
        "differences": await _differences_from_recorded(reader, row),
    }


async def _differences_from_recorded(
    reader: LedgerReader, row: dict[str, Any]
) -> list[FieldDifference] | None:
    """The differences from the recorded body to this one; None where there is no body to compare with."""
    recorded = await _recorded_body(reader, row["conflicts_with"]) if row["conflicts_with"] else None
    if recorded is None or row["body"] is None:
        return None
    try:
        return list(field_differences(parse_json(recorded), parse_json(row["body"])))
    except NOT_JSON:
        return None


async def _recorded_body(reader: LedgerReader, position: int) -> bytes | None:
    """The body of the delivery that brought an event; None where it was erased or moved away."""
    (event,) = await reader.rows(position - 1, 1)
    try:
        body: bytes = (await reader.delivery(event["delivery"]))["body"]
    except (Erased, Integrity):
        return None
    return body


def set_aside_entry(found: SetAsideSubject) -> dict[str, Any]:
    """A history that is set aside as an entry of a list."""
    return {
        "history": found.subject,
        "set_aside_at": rfc3339(found.at),
        "book": found.book,
        "error": found.error,
        "up_to": found.up_to,
        "position": found.position,
    }


async def lift(ledger: Ledger, names: Sequence[str], now: datetime) -> list[str]:
    """Have histories that are set aside read to their ends again; their names.

    Raises NotFound, and lifts none, if one of them is not set aside.
    """
    async with ledger.reading() as reader:
        known = {found.subject for found in await reader.set_aside_subjects()}
    if unknown := sorted(set(names) - known):
        raise NotFound(f"no history {unknown[0]} is set aside")
    return await ledger.lift(names, now)


# Reading again


def read_again(row: dict[str, Any], mode_of: ModeOf) -> Incoming:
    """A row of quarantine as today's translators read it. Its body must not have been erased.

    `mode_of` is that of `read_delivery`.
    """
    proof = json.decode(row["proof"], type=Proof)
    processor = processor_of(row["processor"])
    if processor is None:
        return Incoming(
            events=(),
            content_digest=row["content_digest"],
            headers=row["headers"],
            body=row["body"],
            proof=proof,
            reason="unreadable",
            detail=f"nothing translates {row['processor']}",
        )
    return read_delivery(processor, row["headers"], row["body"], proof, mode_of)


async def retryable_entries(ledger: Ledger) -> dict[int, str]:
    """The reasons of all open deliveries that may be read otherwise today, by id.

    A conflict may be another rendering by today's rules; not where events come in one rendering only.
    """
    async with ledger.reading() as reader:
        rows = [row async for row in read_rows(reader)]
    return {
        row["id"]: row["reason"] for row in rows if row["reason"] != CONFLICT or is_rendered(row["processor"])
    }


async def find_fault(
    reader: LedgerReader, row: dict[str, Any], settings: Settings, *, by_chain: bool = False
) -> str | None:
    """Why a row of quarantine may not be read again; None if nothing stands against it.

    It must be what the chain of quarantine says. Its signature is checked again, and must be by a secret that
    is set now, unless its body is sealed and `by_chain` takes the chain as its proof. Of what has no
    signature the body must be bound to its proof, unless `by_chain`.
    """
    (stored,) = await reader.stored_quarantine(row["id"] - 1, 1)
    try:
        await reader.check_quarantined(stored)
    except Integrity as error:
        return str(error)
    if not row["body"]:
        return None
    return _signature_fault(row, settings, stored["body"], by_chain=by_chain)


def _signature_fault(
    row: dict[str, Any], settings: Settings, stored_body: bytes, *, by_chain: bool
) -> str | None:
    proof = json.decode(row["proof"], type=Proof)
    if row["processor"] != proof.processor:
        return "its proof is another processor's"
    signature = check_signature(proof, json.decode(row["headers"]), row["body"], settings)
    if signature.verified is not None:
        return signature.why
    if not is_sealed(stored_body):
        return "its body is not sealed, and no signature over it can be checked"
    if proof.trust == "signed" and not signature.lacks_secret:
        return f"it says that it is signed, but {signature.why}"
    if by_chain or (is_bound(stored_body) and not signature.lacks_secret):
        return None
    remedy = (
        ": set the secret of that time beside the new one, or"
        if signature.lacks_secret
        else ", and an older version sealed its body without saying so:"
    )
    return f"{signature.why}{remedy} use --by-chain"


async def retry(
    ledger: Ledger, quarantine_id: int, now: datetime, settings: Settings, *, by_chain: bool = False
) -> RetryResult:
    """Read a delivery again, and append those of its events that the ledger lacks. Raises NotFound.

    A conflict is appended only if today it is another rendering of the event that it contradicted. Nothing is
    appended of what `find_fault` finds fault with; for `by_chain` see there.

    It is settled in the same transaction, unless a part of it still can't be read. A retry may be repeated.
    """
    async with ledger.reading() as reader:
        try:
            row = await read_row(reader, quarantine_id)
        except Integrity as error:
            return RetryResult(id=quarantine_id, outcome=REFUSED, detail=str(error))
        if row["settled_at_us"] is not None:
            return RetryResult(id=quarantine_id, outcome="settled", detail=f"{row['settled_as']} before")
        if fault := await find_fault(reader, row, settings, by_chain=by_chain):
            return RetryResult(id=quarantine_id, outcome=REFUSED, detail=fault)
        incoming = read_again(row, settings.mode_of) if row["body"] else None
        is_rendering = incoming is not None and await reader.is_rendering(incoming)
    if row["reason"] == CONFLICT and not is_rendering:
        position = row["conflicts_with"]
        detail = (
            f"position {position} has this id and other content, and stays: "
            "compare both, then dismiss this one"
        )
        return RetryResult(id=quarantine_id, outcome=CONFLICT, detail=detail, position=position)
    if incoming is None:
        return RetryResult(
            id=quarantine_id, outcome="erased", detail="it told of a customer who was erased: dismiss it"
        )
    return await _append(ledger, quarantine_id, incoming, now)


async def _append(ledger: Ledger, quarantine_id: int, incoming: Incoming, now: datetime) -> RetryResult:
    if incoming.reason and not incoming.events:
        return RetryResult(id=quarantine_id, outcome="unreadable", detail=incoming.detail)
    readable = replace(incoming, reason=None, detail="")
    if incoming.reason:
        (outcome,) = await ledger.append([readable], now)
        return RetryResult(
            id=quarantine_id, outcome="partial", detail=incoming.detail, position=outcome.position
        )
    outcome = await ledger.retry(quarantine_id, readable, now)
    if outcome.conflict:
        detail = f"position {outcome.position} has this id and other content; it waits as a conflict now"
        return RetryResult(id=quarantine_id, outcome=CONFLICT, detail=detail, position=outcome.position)
    name = "duplicate" if outcome.duplicate else "recorded"
    return RetryResult(id=quarantine_id, outcome=name, position=outcome.position)


async def dismiss(ledger: Ledger, quarantine_ids: list[int], because: str, now: datetime) -> set[int]:
    """Settle deliveries that will not be recorded, for the reason `because`; the ids of those that were open.

    They are kept. Raises NotFound, and settles none, if quarantine lacks one of them; Integrity, if one of
    them is not what the chain of quarantine says.
    """
    async with ledger.reading() as reader:
        for quarantine_id in quarantine_ids:
            await read_row(reader, quarantine_id)
    return await ledger.dismiss(quarantine_ids, because, now)
