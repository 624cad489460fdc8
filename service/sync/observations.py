"""Observations: objects as a processor's API shows them, for where the books have them otherwise."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from msgspec import json

from service.core.delivery import Proof
from service.core.events import Event, original_id
from service.ledger.draft import Incoming


def observation_proof(
    processor: str, account: str, object_id: str, digest: bytes, history: Iterable[Event], now: datetime
) -> Proof | None:
    """The proof with which to record an object as observed now; None if it was last observed like that.

    `digest` is that of its content, and `history` are its events in the ledger. What comes back is recorded
    again.
    """
    moments = {
        original_id(event.event_id): event.occurred_at
        for event in history
        if event.event_id.startswith(f"{object_id}@")
    }
    alike = [name for name in moments if name.startswith(f"{object_id}@{_name(digest)}:")]
    if moments and max(moments, key=lambda name: (moments[name], name)) in alike:
        return None
    return nth_observation(processor, account, object_id, digest, len(alike) + 1, now)


def nth_observation(
    processor: str, account: str, object_id: str, digest: bytes, number: int, now: datetime
) -> Proof:
    """The proof of an object that is seen for the nth time with this content, by its digest.

    The id is made of the object's own, the content and that number.
    """
    return Proof(
        processor=processor,
        method="fetch",
        received_at=now,
        trust="fetched",
        message_id=f"{object_id}@{_name(digest)}:{number}",
        account=account,
    )


def _name(digest: bytes) -> str:
    return digest.hex()[:32]


def fetched_delivery(processor: str, fetched: Any, events: Sequence[Event], now: datetime) -> Incoming:
    """The delivery by which events are recorded that `fetched`, a JSON value from the API, brought."""
    body = json.encode(fetched, order="deterministic")
    proof = Proof(processor=processor, method="fetch", received_at=now, trust="fetched")
    return Incoming(
        events=events, content_digest=sha256(body).digest(), headers=b"{}", body=body, proof=proof
    )
