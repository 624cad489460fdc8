"""Translation of a delivery's bytes to its events, the same for webhooks, imports and retranslations."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from hashlib import sha256
from typing import Any

from msgspec import json
from msgspec.structs import replace

from handlers import PROCESSORS
from service.core.delivery import ModeOf, Processor, Proof, Rendered
from service.core.errors import Unreadable
from service.core.events import REVISION_MARK, Event, ThinEvent
from service.core.limits import check_limits
from service.core.rfc8259 import NOT_JSON, parse_json
from service.ledger.draft import Incoming

_FILES_AND_FETCHES = ("import", "fetch")


def processor_of(name: str) -> Processor | None:
    """The processor of this name, "stripe" or "standard.acme"; None if there is none."""
    own_name = name.partition(".")[0]
    return next((processor for processor in PROCESSORS if processor.name == own_name), None)


def can_read_again(processor: Processor, proof: Proof) -> bool:
    """Whether a delivery with this proof is translated again from its bytes."""
    return proof.method in _FILES_AND_FETCHES or processor.endpoint_by(proof.method) is not None


@cache
def is_rendered(name: str) -> bool:
    """Whether an event of this processor may come in several renderings, under one id over all accounts."""
    processor = processor_of(name)
    return processor is not None and processor.render is not None


def read_delivery(
    processor: Processor, headers: bytes, body: bytes, proof: Proof, mode_of: ModeOf
) -> Incoming:
    """A verified delivery with its events, or marked for quarantine if unreadable. `headers` is JSON.

    `mode_of` says whose events count.
    """
    try:
        payload = parse_json(body)
    except NOT_JSON:
        return _quarantined(proof, headers, body, "malformed", "the body is not JSON")
    try:
        digest = content_digest(payload, processor)
    except RecursionError:  # nested almost as deep as the parser goes
        return _quarantined(proof, headers, body, "unreadable", "the body is nested too deep")
    return read_payload(processor, headers, body, proof, mode_of, payload, digest)


def read_payload(
    processor: Processor,
    headers: bytes,
    body: bytes,
    proof: Proof,
    mode_of: ModeOf,
    payload: Any,
    digest: bytes,
) -> Incoming:
    """As `read_delivery`, of a body that was parsed; `digest` is that of its content."""
    try:
        events = [_check_event(event) for event in _events(processor, payload, proof, mode_of)]
    except RecursionError:
        return _quarantined(proof, headers, body, "unreadable", "the body is nested too deep")
    except Unreadable as error:
        incoming = _quarantined(proof, headers, body, "unreadable", str(error))
        if not error.events:
            return incoming
        # With the digest of a readable body, so that reading it again later makes no conflict.
        return replace(incoming, events=error.events, content_digest=digest)
    return Incoming(
        events=events,
        content_digest=digest,
        headers=headers,
        body=body,
        proof=proof,
        render=renderer(processor),
    )


def has_thin_event(incoming: Incoming) -> bool:
    """Whether a delivery brought an event that only names what changed."""
    return any(isinstance(event.data, ThinEvent) for event in incoming.events)


def _events(processor: Processor, payload: Any, proof: Proof, mode_of: ModeOf) -> Sequence[Event]:
    ignored = processor.ignore and processor.ignore(payload, proof, mode_of(processor))
    return [ignored] if ignored else processor.translate(payload, proof)


@cache
def renderer(processor: Processor) -> Callable[[bytes], Rendered | None] | None:
    """The function that says how a body renders its event; None where each event comes in one rendering."""
    return partial(_rendered, processor) if processor.render else None


def _rendered(processor: Processor, body: bytes) -> Rendered | None:
    """The rendering in a body; None if it is no JSON, as where the body was erased before an export."""
    try:
        payload = parse_json(body)
    except NOT_JSON:
        return None
    assert processor.render  # noqa: S101 - `renderer` sees to it
    return Rendered(
        api_version=processor.render(payload),
        content_digest=content_digest(payload, processor),
        is_thin=processor.thin_events is not None and processor.thin_events.is_thin(payload),
    )


def _check_event(event: Event) -> Event:
    """The event itself; raises Unreadable if it is beyond the limits, or has the id of a revision."""
    if REVISION_MARK in event.event_id:
        raise Unreadable(f"an event's id holds {REVISION_MARK}, which only revisions hold")
    return check_limits(event)


def content_digest(payload: Any, processor: Processor) -> bytes:
    """SHA-256 of the parsed body, without the processor's volatile fields and whatever the key order."""
    if isinstance(payload, dict) and processor.volatile:
        payload = {key: value for key, value in payload.items() if key not in processor.volatile}
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
