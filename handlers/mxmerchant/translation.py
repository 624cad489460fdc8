"""The events of a body: of a notification, of contract records, or of what the API showed."""

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from handlers.mxmerchant.contracts import contract_events, missing_contract_event
from handlers.mxmerchant.fields import delivered_event, iso_utc
from handlers.mxmerchant.notifications import notification_events
from handlers.mxmerchant.payments import observed_payment_events
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import Event, Subscription, Unused


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
