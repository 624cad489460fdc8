"""MX Merchant: contract records and notifications, through a relay that signs or directly by URL token.

MX Merchant signs nothing and gives its events no id. A contract record is the state of a contract when
it is observed; a notification reports what happened to one payment. `payloads` has the structs of its
objects; the modules beside it put each kind of object into our words.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from handlers.mxmerchant.contracts import (
    MISSING_STATUS,
    changed_events,
    contract_events,
    missing_contract,
    missing_contract_event,
)
from handlers.mxmerchant.fields import PROCESSOR, delivered_event, iso_utc
from handlers.mxmerchant.notifications import notification_events
from handlers.mxmerchant.payloads import KEY_PATTERN
from handlers.mxmerchant.payments import (
    UNSETTLED,
    api_payment_id,
    confirmation,
    is_charged_back,
    listed_payment_event,
    observed_payment_events,
    payment_event_ids,
)
from handlers.standard import verify_signature
from service.core.delivery import Proof
from service.core.errors import Unreadable, VerificationError
from service.core.events import Event, Subscription, Unused

__all__ = [
    "KEY_PATTERN",
    "MISSING_STATUS",
    "PROCESSOR",
    "UNSETTLED",
    "api_payment_id",
    "changed_events",
    "confirmation",
    "contract_events",
    "is_charged_back",
    "listed_payment_event",
    "missing_contract",
    "payment_event_ids",
    "translate",
    "verify_relay",
    "verify_token",
]

TRANSLATION_VERSION = 1  # raised whenever the same bytes are translated otherwise


# Verification


def verify_relay(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Prove a delivery that a relay signed with Standard Webhooks."""
    return verify_signature(headers, body, secrets, now, processor=PROCESSOR)


def verify_token(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:  # noqa: ARG001
    """Accept a delivery by the token in its path. That proves nothing about its body: trust is "unsigned"."""
    presented = headers.get(":token", "").encode(errors="replace")
    matches = [hmac.compare_digest(presented, token.encode()) for token in secrets if token]
    if True not in matches:
        raise VerificationError("the URL token is not known")
    return Proof(
        processor=PROCESSOR,
        method="url-token",
        received_at=now,
        trust="unsigned",
        secret=matches.index(True) + 1,
    )


# Translation


def translate(payload: Any, proof: Proof) -> list[Event]:
    """The events of a body: of one notification, one contract record, or a list of contract records.

    Raises Unreadable with the events of the readable records, or with none if the body states one
    contract in two ways. Contracts that a poll will confirm have no effect until then.
    """
    if not isinstance(payload, dict):
        raise Unreadable("the body is no object")
    if proof.is_observation:
        return observed_payment_events(payload, proof)
    if proof.method == "fetch" and "missing" in payload:
        return [missing_contract_event(payload, proof.received_at)]
    if "eventType" in payload:
        return notification_events(payload, proof)
    records = payload.get("records", [payload])
    if not isinstance(records, list):
        raise Unreadable("`$.records` is no list")
    return _record_events(records, proof)


def _record_events(records: list[Any], proof: Proof) -> list[Event]:
    """The events of contract records, as `translate` gives them."""
    observed_at = proof.signed_at or proof.received_at
    if not records:
        event_id = proof.message_id or f"contracts@{iso_utc(observed_at)}"
        return [delivered_event(proof, event_id=event_id, data=Unused(original_type="contracts"))]
    events_by_id: dict[tuple[str, str], Event] = {}
    errors = []
    for index, record in enumerate(records):
        try:
            record_events = contract_events(record, observed_at, proof.trust, proof.message_id)
        except Unreadable as error:
            errors.append(f"records[{index}]: {error}")
            continue
        for event in record_events:
            if events_by_id.setdefault((event.account, event.event_id), event) != event:
                raise Unreadable(f"records[{index}]: a contract is stated twice, in two ways")
    readable = (
        _withhold_until_polled(events_by_id.values()) if proof.confirmable else list(events_by_id.values())
    )
    if errors:
        suffix = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise Unreadable(errors[0] + suffix, readable)
    return readable


def _withhold_until_polled(events: Iterable[Event]) -> list[Event]:
    """Unproved contracts as `Unused` events: the books get the contracts from the next poll of the API."""
    return [
        replace(event, data=Unused(original_type="contract", customer_id=event.data.customer_id))
        for event in events
        if isinstance(event.data, Subscription)
    ]
