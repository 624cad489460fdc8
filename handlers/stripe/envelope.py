"""What stands around the object in Stripe's events: the account, the mode and the API version.

An Organization's endpoint gets an account's events with a `context`, a Connect platform's with an `account`,
and the account's own endpoint with neither.
Source: https://docs.stripe.com/api/events, https://docs.stripe.com/context.
"""

from typing import Any

from msgspec.structs import replace

from handlers import stripe
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import Event, Unused

_MODES = {True: "live", False: "test"}  # by `livemode`


def translate(payload: Any, proof: Proof) -> list[Event]:
    """The event of one webhook, in the account that it names. Raises Unreadable."""
    events = stripe.translate(payload, proof)
    return [replace(event, account=event.account or _account_in_context(payload)) for event in events]


def ignore(payload: Any, proof: Proof, mode: str) -> Event | None:
    """An event of the other mode, which does not count, as unused; None for any other.

    Its object is not translated: an object that no figure needs may have any shape.
    """
    is_live = payload.get("livemode") if isinstance(payload, dict) else None
    if not isinstance(is_live, bool) or _MODES[is_live] == mode:
        return None
    try:
        envelope = stripe.envelope_of(payload, proof)
    except Unreadable:
        return None  # its translation says why
    return Event(
        processor=stripe.PROCESSOR,
        account=envelope.account or _account_in_context(payload),
        event_id=envelope.id,
        occurred_at=stripe.occurred_at(envelope, proof),
        trust=proof.trust,
        data=Unused(
            original_type=envelope.type,
            customer_id=_customer_id(envelope.data.object),
            ignored=f"{_MODES[is_live]} mode",
            event_id=envelope.id,
        ),
    )


def api_version(payload: Any) -> str:
    """The API version in which an event is rendered. Versions sort by the dates with which they begin."""
    version = payload.get("api_version") if isinstance(payload, dict) else None
    return version if isinstance(version, str) else ""


def _account_in_context(payload: dict[str, Any]) -> str:
    """The account in a context such as "acct_1" or "org_1/acct_1"; empty if there is none."""
    context = payload.get("context")
    parts = context.split("/") if isinstance(context, str) else ()
    return min((part for part in parts if part.startswith("acct_")), default="")


def _customer_id(thing: dict[str, Any]) -> str | None:
    customer = thing.get("id" if thing.get("object") == "customer" else "customer")
    if isinstance(customer, dict):  # expanded
        customer = customer.get("id")
    return customer if isinstance(customer, str) and customer else None
