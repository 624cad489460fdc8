"""Stripe's events: what stands around an object, and their translation.

An Organization's endpoint gets an account's events with a `context`, a Connect platform's with an `account`,
and the account's own endpoint with neither.
Source: https://docs.stripe.com/api/events, https://docs.stripe.com/context.
"""

from datetime import UTC, datetime
from typing import Any

from msgspec import DecodeError, Raw, json

from handlers.stripe import payloads
from handlers.stripe.fields import NAME, customer_id, moment, parse, readable
from handlers.stripe.objects import data_before, data_of, rank_of
from handlers.stripe.thin_events import is_thin, parse_thin, thin_data
from handlers.stripe.translations import OBSERVED_TYPES, translation_of
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import Data, Event, Unused
from service.core.rfc8259 import NOT_JSON, parse_json

_MODES = {True: "live", False: "test"}  # by `livemode`


def translate(payload: Any, proof: Proof) -> list[Event]:
    """The event of one webhook. Raises Unreadable with the field's path and expected type.

    A type that is not in the tables is ordinary input: it becomes an `Unused` event. A thin event is not
    translated to what it names, but to a `ThinEvent`.
    """
    if is_thin(payload):
        thin = parse_thin(payload)
        return [_thin_event(payload, thin, proof, thin_data(thin))]
    envelope = _envelope_of(payload, proof)
    translation = translation_of(envelope.type)
    data = data_of(envelope.data.object, translation, envelope.type) if translation else _unused(envelope)
    return [
        Event(
            processor=NAME,
            account=envelope.account or _account_in_context(payload),
            event_id=envelope.id,
            occurred_at=_occurred_at(envelope, proof),
            rank=rank_of(data, envelope.type),
            trust=proof.trust,
            data=data,
            before=data_before(envelope, translation, type(data)),
        )
    ]


def _thin_event(payload: dict[str, Any], thin: payloads.ThinEvent, proof: Proof, data: Data) -> Event:
    return Event(
        processor=NAME,
        account=_account_in_context(payload),
        event_id=thin.id,
        occurred_at=thin.created.astimezone(UTC),
        trust=proof.trust,
        data=data,
    )


def _unused(envelope: payloads.Envelope) -> Unused:
    stated = readable(envelope.data.object, payloads.CustomerReference)
    return Unused(original_type=envelope.type, customer_id=customer_id(stated) if stated else None)


def ignore(payload: Any, proof: Proof, mode: str) -> Event | None:
    """An event of the other mode, which does not count, as unused; None for any other.

    Its object is not translated: an object that no figure needs may have any shape.
    """
    is_live = payload.get("livemode") if isinstance(payload, dict) else None
    if not isinstance(is_live, bool) or _MODES[is_live] == mode:
        return None
    ignored = f"{_MODES[is_live]} mode"
    try:
        if is_thin(payload):
            thin = parse_thin(payload)
            data = Unused(original_type=thin.type, ignored=ignored, event_id=thin.id)
            return _thin_event(payload, thin, proof, data)
        envelope = _envelope_of(payload, proof)
    except Unreadable:
        return None  # its translation says why
    return Event(
        processor=NAME,
        account=envelope.account or _account_in_context(payload),
        event_id=envelope.id,
        occurred_at=_occurred_at(envelope, proof),
        trust=proof.trust,
        data=Unused(
            original_type=envelope.type,
            customer_id=_customer_id(envelope.data.object),
            ignored=ignored,
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


def _envelope_of(payload: Any, proof: Proof) -> payloads.Envelope:
    """What stands around an event's object; around one that the API showed there is nothing, so it is made.

    Raises Unreadable.
    """
    if not proof.is_observation:
        return parse(payload, payloads.Envelope, "$")
    kind = parse(payload, payloads.ObjectReference, "$").object
    return payloads.Envelope(
        id=proof.message_id or "",
        type=f"{kind}.deleted" if payload.get("deleted") is True else OBSERVED_TYPES.get(kind, kind),
        created=int(proof.received_at.timestamp()),
        account=proof.account,
        data=payloads.EventData(object=payload),
    )


def _occurred_at(envelope: payloads.Envelope, proof: Proof) -> datetime:
    """When an event happened; of an object that the API showed, the moment at which it did."""
    return proof.received_at if proof.is_observation else moment(envelope.created)


_FIELDS = json.Decoder(dict[str, Raw])
_NULL = Raw(b"null")


def with_account(body: bytes, account: str) -> bytes:
    """An event as in a platform's webhooks: with the account in whose name it was listed, if it has none."""
    try:
        fields: dict[str, Any] = _FIELDS.decode(body)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        fields = _parse_fields(body)
    if not fields or fields.get("account", _NULL) not in (_NULL, None):
        return body
    return json.encode({**fields, "account": account})


def _parse_fields(body: bytes) -> dict[str, Any]:
    """The fields of JSON that msgspec refuses; none if it is no JSON object."""
    try:
        parsed = parse_json(body)
    except NOT_JSON:
        return {}
    return parsed if isinstance(parsed, dict) else {}
