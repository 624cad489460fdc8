"""Thin events: each names an object that changed, and perhaps the event that shows it, a snapshot event.

After "v1." the type is that of the snapshot event. A delivery may leave out the snapshot event's id; then the
thin event has it at the API. Stripe keeps both for 30 days.
Source: https://docs.stripe.com/webhooks/migrate-snapshot-to-thin-events,
https://docs.stripe.com/api/v2/core/events/object, and the types of the package `stripe`.
"""

from typing import Any
from urllib.parse import quote

from handlers.stripe import payloads
from handlers.stripe.fields import parse
from handlers.stripe.translations import OBSERVED_TYPES, is_used
from handlers.times import cut_time
from service.core import events
from service.core.delivery import ThinEvents
from service.core.errors import Unreadable
from service.core.processor_api import Request
from service.core.rfc8259 import NOT_JSON, parse_json

OBJECT = "v2.core.event"
_VERSION = (
    "2026-10-28.endive"  # the API version of thin events; from 2026-09-30.endive on they name snapshots
)
_SNAPSHOT_PREFIX = "v1."

# What else Stripe tells of the changes that the books read of other events: these have no snapshot event.
SEMANTIC_TYPES = frozenset(
    {
        "v1.customer.discount.source_changed",
        "v1.customer.subscription.active",
        "v1.customer.subscription.cancel_at_changed",
        "v1.customer.subscription.default_payment_method_changed",
        "v1.customer.subscription.incomplete",
        "v1.customer.subscription.incomplete_expired",
        "v1.customer.subscription.item_added",
        "v1.customer.subscription.item_price_changed",
        "v1.customer.subscription.item_quantity_changed",
        "v1.customer.subscription.item_removed",
        "v1.customer.subscription.item_tax_rates_changed",
        "v1.customer.subscription.past_due",
        "v1.customer.subscription.trialing",
        "v1.customer.subscription.unpaid",
        "v1.invoice.discount_added",
        "v1.invoice.discount_removed",
        "v1.invoice.line_item_added",
        "v1.invoice.line_item_pricing_changed",
        "v1.invoice.line_item_quantity_changed",
        "v1.invoice.line_item_removed",
        "v1.invoice_payment.canceled",
        "v1.invoice_payment.open",
        "v1.subscription_schedule.phase_added",
        "v1.subscription_schedule.phase_default_tax_rates_changed",
        "v1.subscription_schedule.phase_end_date_changed",
        "v1.subscription_schedule.phase_removed",
        "v1.subscription_schedule.phase_trial_end_changed",
    }
)


def is_thin(payload: Any) -> bool:
    """Whether a body is a thin event."""
    return isinstance(payload, dict) and payload.get("object") == OBJECT


def parse_thin(payload: dict[str, Any]) -> payloads.ThinEvent:
    """A thin event; its time is cut to what the ledger holds. Raises Unreadable."""
    created = payload.get("created")
    return parse(
        {**payload, "created": cut_time(created)} if isinstance(created, str) else payload,
        payloads.ThinEvent,
        "$",
    )


def thin_data(thin: payloads.ThinEvent) -> events.ThinEvent | events.Unused:
    """What is to be fetched for a thin event; unused if the books don't use its type."""
    snapshot_type = thin.type.removeprefix(_SNAPSHOT_PREFIX)
    if snapshot_type == thin.type or thin.type in SEMANTIC_TYPES or not is_used(snapshot_type):
        return events.Unused(original_type=thin.type)
    related = thin.related_object
    return events.ThinEvent(
        original_type=thin.type,
        snapshot_id=thin.snapshot_event,
        object_type=related.type if related else None,
        object_id=related.id if related else None,
        context=thin.context,
    )


# Fetching


def _event(event_id: str, thin: events.ThinEvent) -> Request:
    request = _request(f"/v2/core/events/{quote(event_id, safe='')}", thin)
    return Request(path=request.path, headers={**request.headers, "Stripe-Version": _VERSION})


def _snapshot_id(body: bytes) -> str | None:
    try:
        payload = parse_json(body)
    except NOT_JSON:
        raise Unreadable("it is not JSON") from None
    return parse_thin(parse(payload, dict[str, Any], "$")).snapshot_event


def _snapshot(snapshot_id: str, thin: events.ThinEvent) -> Request:
    return _request(f"/v1/events/{quote(snapshot_id, safe='')}", thin)


def _shown(thin: events.ThinEvent) -> Request | None:
    """The request for the object: the paths of all that are observed are the plurals of their names."""
    if thin.object_type not in OBSERVED_TYPES or not thin.object_id:
        return None
    return _request(f"/v1/{thin.object_type}s/{quote(thin.object_id, safe='')}", thin)


def _request(path: str, thin: events.ThinEvent) -> Request:
    """A request in the context that the thin event states. Source: https://docs.stripe.com/context."""
    return Request(path=path, headers={"Stripe-Context": thin.context} if thin.context else {})


THIN_EVENTS = ThinEvents(
    is_thin=is_thin, event=_event, snapshot_id=_snapshot_id, snapshot=_snapshot, shown=_shown
)
