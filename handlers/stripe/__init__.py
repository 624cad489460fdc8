"""Stripe: its signed webhooks, and what each type of event says in the ledger's words.

Two families of payload are read: up to 2025-02 (acacia and before), and 2025-03-31.basil and later.
`payloads` holds what Stripe sends, `state` says it in our words; here are the proof and the table.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from msgspec import ValidationError, convert, json
from stripe import WebhookSignature

from handlers.stripe import payloads, state
from handlers.stripe.state import Reading
from service.core.delivery import TOLERANCE_SECONDS, Proof
from service.core.errors import Unreadable, VerificationError
from service.core.events import CREATED, DELETED, INVOICE_RANK, UPDATED, Data, Event, Invoice, Refund, Unused

__all__ = ["is_used", "observed", "translate", "verify"]

T = TypeVar("T")

PROCESSOR = "stripe"
TOLERANCE = timedelta(seconds=TOLERANCE_SECONDS)


# Verification


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Prove that Stripe signed `body`, within the tolerance of `now`, with one of `secrets`.

    Stripe's library knows one secret and lets any time in the future pass: both are done here.
    Source: https://docs.stripe.com/webhooks#verify-manually.
    """
    header = headers.get("stripe-signature", "")
    signed_at = _signed_at(header)
    if abs(now - signed_at) > TOLERANCE:
        raise VerificationError(f"Stripe-Signature was made more than {TOLERANCE_SECONDS} seconds from now")
    for count, secret in enumerate(secrets, start=1):
        if _signs(header, body, secret):
            return Proof(
                processor=PROCESSOR,
                method="stripe-signature",
                received_at=now,
                signed_at=signed_at,
                secret=count,
            )
    raise VerificationError("Stripe-Signature holds no signature that matches")


def _signed_at(header: str) -> datetime:
    """The header's first `t`: the one that the library takes as signed."""
    try:
        return state.moment(int(next(part[2:] for part in header.split(",") if part.startswith("t="))))
    except (StopIteration, ValueError, OverflowError, OSError):
        raise VerificationError("Stripe-Signature is missing, or its time can't be read") from None


def _signs(header: str, body: bytes, secret: str) -> bool:
    try:
        return bool(WebhookSignature.verify_header(body.decode(), header, secret))
    except Exception:  # noqa: BLE001 - whatever it is, nothing is proved
        return False


# Translation

CUSTOMER = Reading(payloads.Customer, state.customer)
PRODUCT = Reading(payloads.Product, state.product)
SUBSCRIPTION = Reading(payloads.Subscription, state.subscription)
INVOICE = Reading(payloads.Invoice, state.invoice)
CHARGE = Reading(payloads.Charge, state.charge)
PAYMENT_INTENT = Reading(payloads.PaymentIntent, state.payment_intent)
REFUND = Reading(payloads.Refund, state.refund)

# What each type of event tells of. A type in neither table, or with None, is not used by the books.
TRANSLATE: dict[str, Reading | None] = {
    "customer.created": CUSTOMER,
    "customer.updated": CUSTOMER,
    "customer.deleted": CUSTOMER,
    "product.created": PRODUCT,
    "product.updated": PRODUCT,
    "product.deleted": PRODUCT,
    "invoice.upcoming": None,  # an invoice that does not exist: it has no id
    "invoice_payment.paid": Reading(payloads.InvoicePayment, state.invoice_payment),
    "charge.succeeded": CHARGE,
    "charge.captured": CHARGE,
    "charge.failed": CHARGE,
    "charge.refunded": CHARGE,
    "charge.refund.updated": REFUND,
    "payment_intent.succeeded": PAYMENT_INTENT,
    "payment_intent.payment_failed": PAYMENT_INTENT,
}
FAMILIES: dict[str, Reading] = {
    "customer.subscription.": SUBSCRIPTION,
    "invoice.": INVOICE,
    "refund.": REFUND,
    "charge.dispute.": Reading(payloads.Dispute, state.dispute),
    "credit_note.": Reading(payloads.CreditNote, state.credit_note),
}


def translate(payload: Any, proof: Proof) -> list[Event]:
    """One webhook as one event. Raises Unreadable with the field's path and what it should be.

    A type that is not in the tables is ordinary input and has no effect.
    """
    told = _read(payload, payloads.Envelope, "$")
    reading = _reading(told.type)
    data = _data(told.data.object, reading, told.type) if reading else _unused(told)
    return [
        Event(
            processor=PROCESSOR,
            account=told.account or "",
            event_id=told.id,
            occurred_at=state.moment(told.created),
            rank=_rank(data, told.type),
            trust=proof.trust,
            data=data,
            before=_before(told, reading),
        )
    ]


def is_used(kind: str) -> bool:
    """Whether the books use this type of event."""
    return _reading(kind) is not None


def observed(told: Any, account: str, at: datetime) -> Event:
    """A subscription or an invoice as the API answers it, as if an event had told it at `at`.

    For comparisons, in the same words as its events: it is in no ledger. Raises Unreadable.
    """
    kind = told["object"]
    reading = {"subscription": SUBSCRIPTION, "invoice": INVOICE}[kind]
    return Event(
        processor=PROCESSOR,
        account=account,
        event_id=told["id"],
        occurred_at=at,
        trust="fetched",
        data=_data(told, reading, kind),
    )


def _unused(told: payloads.Envelope) -> Unused:
    customer = told.data.object.get("customer")
    if isinstance(customer, dict):  # expanded
        customer = customer.get("id")
    return Unused(original_type=told.type, customer_id=customer if isinstance(customer, str) else None)


def _reading(kind: str) -> Reading | None:
    if kind in TRANSLATE:
        return TRANSLATE[kind]
    return next((reading for prefix, reading in FAMILIES.items() if kind.startswith(prefix)), None)


def _data(told: dict[str, Any], reading: Reading, kind: str) -> Data:
    return reading.say(_read(told, reading.payload, "$.data.object"), kind)


def _read(told: Any, shape: type[T], path: str) -> T:
    try:
        return convert(told, shape)
    except ValidationError as error:
        text, _, field = str(error).partition(" - at `$")
        if text.startswith("Invalid enum value"):  # the value follows, and may hold anything
            text, field = "Invalid enum value", field.rpartition(" - at `$")[2]
        raise Unreadable(f"{text} - at `{path}{field or '`'}") from None


def _before(told: payloads.Envelope, reading: Reading | None) -> bytes | None:
    """What the data was until then: as if the object had been told with its previous attributes."""
    if reading is None or not told.data.previous_attributes:
        return None
    try:
        previous = _overlaid(told.data.object, told.data.previous_attributes)
        return json.encode(_data(previous, reading, told.type))
    except (Unreadable, RecursionError):  # a link less between the events of one second
        return None


def _overlaid(current: dict[str, Any], previous: dict[str, Any]) -> dict[str, Any]:
    """`current` with `previous` laid over it: objects field by field, lists and all else whole."""
    return current | {
        key: _overlaid(current[key], value)
        if isinstance(value, dict) and isinstance(current.get(key), dict)
        else value
        for key, value in previous.items()
    }


_STATUS_RANK: dict[type[Data], dict[str, int]] = {
    Invoice: INVOICE_RANK,
    Refund: {"pending": 0, "requires_action": 0, "succeeded": 1, "failed": 2, "canceled": 2},
}
_TYPE_RANK = {
    "created": CREATED,
    "deleted": DELETED,
    "closed": DELETED,
    "failed": CREATED,  # a payment may fail before it succeeds, and is refunded after
    "payment_failed": CREATED,
    "refunded": DELETED,
}


def _rank(data: Data, kind: str) -> int:
    """How far along its life a thing is: by its status where that only moves on, else by the type."""
    by_type = _TYPE_RANK.get(kind.rpartition(".")[2], UPDATED)
    return _STATUS_RANK.get(type(data), {}).get(getattr(data, "status", ""), by_type)
