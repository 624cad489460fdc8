"""What caused a row, down to its bytes: each event, and whether its delivery still proves what it proved."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import quote, urlencode

from msgspec import Struct, json

from service.core.delivery import Endpoint, Proof
from service.core.errors import Erased, Integrity, VerificationError
from service.core.moments import from_us, rfc3339
from service.intake.translation import endpoint_of
from service.ledger import chain
from service.ledger.store import LedgerReader
from service.settings import Settings

_SIGNED = frozenset({"stripe-signature", "standard-webhooks"})
_UNSIGNED = {  # why there is no signature to check
    "url-token": "it came by a URL token, which signs nothing",
    "fetch": "it was fetched from the processor's API",
    "import": "it was imported from a file",
}
Cause = tuple[str, str]  # its name, "stripe:evt_1", and the account


class Checked(Struct, frozen=True, kw_only=True):
    """Whether a signature proves its bytes now: `verified` None where that can't be said, and `why` not."""

    verified: bool | None
    why: str | None = None


async def trace(
    reader: LedgerReader,
    causes: Iterable[Cause],
    settings: Settings,
    done: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """The events of these names by position, each with its delivery, whose signature is checked again.

    `done` hears of each. Raises Integrity if the ledger lacks one.
    """
    wanted = set(causes)
    found = await reader.known_ids({name.partition(":")[2] for name, _ in wanted})
    positions = {(f"{row[1]}:{row[0]}", row[2]): row[3] for row in found}
    if missing := sorted(wanted - positions.keys()):
        raise Integrity(f"the ledger holds no event {missing[0][0]}, which a row names as its cause")
    deliveries: dict[int, dict[str, Any]] = {}
    events = []
    for row in await _rows(reader, sorted(positions[cause] for cause in wanted)):
        if row["delivery"] not in deliveries:
            deliveries[row["delivery"]] = await _delivery(reader, row, settings)
        events.append(_shown(row) | {"delivery": deliveries[row["delivery"]]})
        done(1)
    return events


def check(proof: Proof, headers: Mapping[str, str], body: bytes, settings: Settings) -> Checked:
    """Check a delivery's signature again, by its kept headers and the secrets that are configured now.

    The time is that at which it was signed: only then did it prove anything.
    """
    endpoint = endpoint_of(proof.processor)
    if proof.method not in _SIGNED or proof.signed_at is None or endpoint is None:
        return Checked(verified=None, why=_UNSIGNED.get(proof.method, "it came without a signature"))
    name = proof.processor.partition(".")[2]
    secrets = _secrets(endpoint, name, settings)
    try:
        endpoint.verify({**headers, ":name": name}, body, secrets, proof.signed_at)
    except VerificationError:
        return Checked(verified=None, why="no secret that is configured now made this signature")
    return Checked(verified=True)


def _secrets(endpoint: Endpoint, name: str, settings: Settings) -> Sequence[str]:
    configured = getattr(settings, endpoint.secrets)
    found: Sequence[str] = configured.get(name, ()) if isinstance(configured, dict) else configured
    return found


async def _rows(reader: LedgerReader, positions: Sequence[int]) -> list[dict[str, Any]]:
    """The ledger's rows at these positions, in order; those that follow one another are read together."""
    found = []
    for _, together in groupby(enumerate(positions), key=lambda item: item[1] - item[0]):
        run = [position for _, position in together]
        found += await reader.stored_rows(run[0] - 1, len(run))
    return found


async def _delivery(reader: LedgerReader, row: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """How the delivery of an event's row was verified, and whether it still is."""
    position = row["delivery"]
    try:
        kept = await reader.stored_delivery(position)
    except Integrity:  # an operator may have moved old ones away
        return _told(position, None, None, Checked(verified=None, why="its bytes are kept here no more"))
    if chain.delivery_digest(kept["headers"], kept["body"], kept["proof"]) != row["delivery_digest"]:
        fault = Checked(verified=False, why="what is kept is not what was recorded")
        return _told(position, None, None, fault)
    proof = json.decode(kept["proof"], type=Proof)
    try:
        body = (await reader.delivery(position))["body"]
    except (Erased, Integrity) as error:  # intact all the same: what is missing is a key
        return _told(position, proof, None, Checked(verified=None, why=str(error)))
    return _told(position, proof, body, check(proof, json.decode(kept["headers"]), body, settings))


def _told(position: int, proof: Proof | None, body: bytes | None, checked: Checked) -> dict[str, Any]:
    signed_at = proof.signed_at if proof else None
    return {
        "position": position,
        "method": proof.method if proof else None,
        "received_at": rfc3339(proof.received_at) if proof else None,
        "signed_at": rfc3339(signed_at) if signed_at else None,
        "body_bytes": None if body is None else len(body),
        "verified": checked.verified,
        "why": checked.why,
    }


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    cause = f"{row['processor']}:{row['event_id']}"
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
