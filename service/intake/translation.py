"""Translation of a delivery's bytes to its events, the same for webhooks, imports and retranslations."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from hashlib import sha256
from typing import Any

from msgspec import json
from msgspec.structs import replace

from handlers import ENDPOINTS
from service.core.delivery import Endpoint, Proof, Rendered
from service.core.errors import Unreadable
from service.core.events import REVISION_MARK, Event
from service.core.limits import check_limits
from service.core.rfc8259 import NOT_JSON, parse_json
from service.ledger.draft import Incoming

NO_MODE = ""  # of deliveries whose processor has no test mode


def endpoint_of(processor: str) -> Endpoint | None:
    """The endpoint with the translator for this processor's deliveries; None if there is none."""
    name = processor.partition(".")[0]
    return next((endpoint for endpoint in ENDPOINTS if endpoint.processor == name), None)


@cache
def is_rendered(processor: str) -> bool:
    """Whether an event of this processor may come in several renderings, under one id over all accounts."""
    endpoint = endpoint_of(processor)
    return endpoint is not None and endpoint.render is not None


def read_delivery(endpoint: Endpoint, headers: bytes, body: bytes, proof: Proof, mode: str) -> Incoming:
    """A verified delivery with its events, or marked for quarantine if unreadable. `headers` is JSON.

    `mode`, "live" or "test", is the one whose events count.
    """
    try:
        payload = parse_json(body)
    except NOT_JSON:
        return _quarantined(proof, headers, body, "malformed", "the body is not JSON")
    try:
        events = [_check_event(event) for event in _events(endpoint, payload, proof, mode)]
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
        render=renderer(endpoint),
    )


def _events(endpoint: Endpoint, payload: Any, proof: Proof, mode: str) -> Sequence[Event]:
    ignored = endpoint.ignore and endpoint.ignore(payload, proof, mode)
    return [ignored] if ignored else endpoint.translate(payload, proof)


@cache
def renderer(endpoint: Endpoint) -> Callable[[bytes], Rendered | None] | None:
    """The function that says how a body renders its event; None where each event comes in one rendering."""
    return partial(_rendered, endpoint) if endpoint.render else None


def _rendered(endpoint: Endpoint, body: bytes) -> Rendered | None:
    """The rendering in a body; None if it is no JSON, as where the body was erased before an export."""
    try:
        payload = parse_json(body)
    except NOT_JSON:
        return None
    assert endpoint.render  # noqa: S101 - `renderer` sees to it
    return Rendered(api_version=endpoint.render(payload), content_digest=content_digest(payload, endpoint))


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
