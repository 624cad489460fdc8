"""Translation of a delivery's bytes to its events, the same for webhooks, imports and retranslations."""

from hashlib import sha256
from typing import Any

from msgspec import DecodeError, json
from msgspec.structs import replace

from handlers import ENDPOINTS
from service.core.delivery import Endpoint, Proof
from service.core.errors import Unreadable
from service.core.events import REVISION_MARK, Event
from service.core.limits import check_limits
from service.ledger.draft import Incoming


def endpoint_of(processor: str) -> Endpoint | None:
    """The endpoint with the translator for this processor's deliveries; None if there is none."""
    name = processor.partition(".")[0]
    return next((endpoint for endpoint in ENDPOINTS if endpoint.path.split("/")[2] == name), None)


def read_delivery(endpoint: Endpoint, headers: bytes, body: bytes, proof: Proof) -> Incoming:
    """A verified delivery with its events, or marked for quarantine if unreadable. `headers` is JSON."""
    try:
        payload = json.decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return _quarantined(proof, headers, body, "malformed", "the body is not JSON")
    try:
        events = [_check_event(event) for event in endpoint.translate(payload, proof)]
    except Unreadable as error:
        incoming = _quarantined(proof, headers, body, "unreadable", str(error))
        if not error.events:
            return incoming
        # With the digest of a readable body, so that reading it again later makes no conflict.
        return replace(incoming, events=error.events, content_digest=content_digest(payload, endpoint))
    return Incoming(
        events=events,
        content_digest=content_digest(payload, endpoint),
        headers=headers,
        body=body,
        proof=proof,
    )


def _check_event(event: Event) -> Event:
    """The event itself; raises Unreadable if it is beyond the limits, or has the id of a revision."""
    if REVISION_MARK in event.event_id:
        raise Unreadable(f"an event's id holds {REVISION_MARK}, which only revisions hold")
    return check_limits(event)


def content_digest(payload: Any, endpoint: Endpoint) -> bytes:
    """SHA-256 of the parsed body, without the endpoint's volatile fields and whatever the key order."""
    if isinstance(payload, dict) and endpoint.volatile:
        payload = {key: value for key, value in payload.items() if key not in endpoint.volatile}
    return sha256(json.encode(payload, order="deterministic")).digest()


def _quarantined(proof: Proof, headers: bytes, body: bytes, reason: str, detail: str) -> Incoming:
    return Incoming(
        events=(),
        content_digest=sha256(body).digest(),
        headers=headers,
        body=body,
        proof=proof,
        reason=reason,
        detail=detail,
    )
