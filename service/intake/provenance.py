"""Provenance: the events that caused a row, their deliveries, and whether the signatures still verify."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import quote, urlencode

from msgspec import Struct, json

from service.core.delivery import Proof
from service.core.errors import Erased, Integrity, VerificationError
from service.core.events import named_id
from service.core.moments import from_us, rfc3339
from service.core.progress import Advance, no_advance
from service.intake.translation import processor_of
from service.ledger import chain
from service.ledger.reader import LedgerReader
from service.settings import Settings

_UNSIGNED = {  # by method: why there is no signature to check
    "fetch": "it was fetched from the processor's API",
    "import": "it was imported from a file",
}
Cause = tuple[str, str]  # the event's name, "stripe:evt_1", and its account


_PROVED = ("processor", "method", "trust", "message_id", "signed_at")


class SignatureCheck(Struct, frozen=True, kw_only=True):
    """Whether a signature verifies now; `verified` is None where it can't be checked, and `why` says why.

    `lacks_secret` is set where there is a signature that no configured secret made.
    """

    verified: bool | None
    why: str | None = None
    lacks_secret: bool = False


async def trace(
    reader: LedgerReader,
    causes: Iterable[Cause],
    settings: Settings,
    advance: Advance = no_advance,
) -> list[dict[str, Any]]:
    """The events named by `causes`, by position, each with its delivery, whose signature is checked again.

    `advance` is called with 1 after each event. Raises Integrity if the ledger lacks one of them.
    """
    distinct_causes = set(causes)
    ids = {name.partition(":")[2] for name, _ in distinct_causes}
    # Books that are behind may still name an event by the account that it had.
    positions = {(f"{row[1]}:{row[0]}", row[2]): row[3] for row in await reader.known_ids(ids)}
    effective = await reader.effective_positions(ids)
    positions |= {(f"{key[0]}:{key[2]}", key[1]): position for key, position in effective.items()}
    if missing := sorted(distinct_causes - positions.keys()):
        raise Integrity(f"the ledger holds no event {missing[0][0]}, which a row names as its cause")
    deliveries: dict[int, dict[str, Any]] = {}
    events = []
    for row in await _read_rows(reader, sorted(positions[cause] for cause in distinct_causes)):
        if row["delivery"] not in deliveries:
            deliveries[row["delivery"]] = await _read_delivery_document(reader, row, settings)
        events.append(_event_document(row) | {"delivery": deliveries[row["delivery"]]})
        advance(1)
    return events


def check_signature(
    proof: Proof, headers: Mapping[str, str], body: bytes, settings: Settings
) -> SignatureCheck:
    """Check a delivery's signature again, with its stored headers and the secrets that are configured now.

    The signature is checked as of the time at which it was made, since it would be too old by now.
    """
    processor = processor_of(proof.processor)
    endpoint = processor.endpoint_by(proof.method) if processor else None
    if endpoint is None or endpoint.unsigned:
        why = endpoint.unsigned if endpoint else _UNSIGNED.get(proof.method)
        return SignatureCheck(verified=None, why=why or "it came without a signature")
    name = proof.processor.partition(".")[2]
    secrets = settings.secrets_of(endpoint, name)
    try:
        at = proof.signed_at or proof.received_at
        proved = endpoint.verify({**headers, ":name": name}, body, secrets, at)
    except VerificationError:
        why = "no secret that is configured now made this signature"
        return SignatureCheck(verified=None, why=why, lacks_secret=True)
    if any(getattr(proved, field) != getattr(proof, field) for field in _PROVED):
        return SignatureCheck(verified=False, why="its signature proves something else than its row says")
    return SignatureCheck(verified=True)


async def _read_rows(reader: LedgerReader, positions: Sequence[int]) -> list[dict[str, Any]]:
    """The ledger's rows at these positions, in order; rows at consecutive positions are read together."""
    rows = []
    for _, neighbours in groupby(enumerate(positions), key=lambda indexed: indexed[1] - indexed[0]):
        run = [position for _, position in neighbours]
        rows += await reader.stored_rows(run[0] - 1, len(run))
    return rows


async def _read_delivery_document(
    reader: LedgerReader, row: Mapping[str, Any], settings: Settings
) -> dict[str, Any]:
    """The document of an event's delivery: how it was verified, and whether it still verifies."""
    position = row["delivery"]
    try:
        stored = await reader.stored_delivery(position)
    except Integrity:  # an operator may have moved old deliveries away
        return _delivery_document(
            position, None, None, SignatureCheck(verified=None, why="its bytes are kept here no more")
        )
    if chain.delivery_digest(stored["headers"], stored["body"], stored["proof"]) != row["delivery_digest"]:
        fault = SignatureCheck(verified=False, why="what is kept is not what was recorded")
        return _delivery_document(position, None, None, fault)
    proof = json.decode(stored["proof"], type=Proof)
    try:
        body = (await reader.delivery(position))["body"]
    except (Erased, Integrity) as error:  # the stored bytes are intact; only the key is missing
        return _delivery_document(position, proof, None, SignatureCheck(verified=None, why=str(error)))
    return _delivery_document(
        position, proof, body, check_signature(proof, json.decode(stored["headers"]), body, settings)
    )


def _delivery_document(
    position: int, proof: Proof | None, body: bytes | None, signature: SignatureCheck
) -> dict[str, Any]:
    signed_at = proof.signed_at if proof else None
    return {
        "position": position,
        "method": proof.method if proof else None,
        "received_at": rfc3339(proof.received_at) if proof else None,
        "signed_at": rfc3339(signed_at) if signed_at else None,
        "body_bytes": None if body is None else len(body),
        "verified": signature.verified,
        "why": signature.why,
    }


def _event_document(row: Mapping[str, Any]) -> dict[str, Any]:
    cause = f"{row['processor']}:{named_id(row['event_id'])}"
    account = f"?{urlencode({'account': row['account']})}" if row["account"] else ""
    return {
        "cause": cause,
        "position": row["position"],
        "account": row["account"],
        "type": row["type"],
        "occurred_at": rfc3339(from_us(row["occurred_at_us"])),
        "recorded_at": rfc3339(from_us(row["recorded_at_us"])),
        "trust": row["trust"],
        "link": f"/api/v1/ledger/causes/{quote(cause, safe=':/')}{account}",
    }
