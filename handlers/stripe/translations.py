"""The table of Stripe's event types: the struct of each type's object, and its translation to our words."""

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import UNSET

from handlers.stripe import payloads
from handlers.stripe.discounts import applied_discount, customer_discounts
from handlers.stripe.invoices import checkout_session, credit_note, invoice, invoice_payment
from handlers.stripe.payments import (
    OBSERVED_CHARGE,
    OBSERVED_DISPUTE,
    charge,
    dispute,
    payment_intent,
    refund,
)
from handlers.stripe.schedules import schedule
from handlers.stripe.subscriptions import ended_subscription, subscription
from service.core import events
from service.core.events import Data


class ObjectTranslation(NamedTuple):
    """The struct in which an event's object is parsed, and the function that translates it.

    `translate` takes the parsed object and the type of the event. `otherwise` is tried where it is
    unreadable.
    """

    payload: type[payloads.Payload]
    translate: Callable[[Any, str], Data]
    otherwise: "ObjectTranslation | None" = None


def customer(payload: payloads.Customer, event_type: str) -> Data:
    """A customer, with the discounts off all their contracts."""
    has_discounts = payload.discount is not UNSET
    return events.Customer(
        customer_id=payload.id,
        name=payload.name,
        email=payload.email,
        deleted=event_type == "customer.deleted",
        discounts=customer_discounts(payload.discount) if has_discounts else None,
    )


def product(payload: payloads.Product, event_type: str) -> Data:
    """A product."""
    return events.Product(product_id=payload.id, name=payload.name, deleted=event_type == "product.deleted")


CUSTOMER = ObjectTranslation(payloads.Customer, customer)
PRODUCT = ObjectTranslation(payloads.Product, product)
SUBSCRIPTION = ObjectTranslation(
    payloads.Subscription,
    subscription,
    otherwise=ObjectTranslation(payloads.EndedSubscription, ended_subscription),
)
INVOICE = ObjectTranslation(payloads.Invoice, invoice)
PAYMENT_INTENT = ObjectTranslation(payloads.PaymentIntent, payment_intent)
REFUND = ObjectTranslation(payloads.Refund, refund)
CHECKOUT_SESSION = ObjectTranslation(payloads.CheckoutSession, checkout_session)

# The type of event that would tell of an object as it is, for those that are observed.
OBSERVED_TYPES = {
    "charge": OBSERVED_CHARGE,
    "credit_note": "credit_note.updated",
    "customer": "customer.updated",
    "dispute": OBSERVED_DISPUTE,
    "invoice": "invoice.updated",
    "price": "price.updated",
    "product": "product.updated",
    "refund": "refund.updated",
    "subscription": "customer.subscription.updated",
    "subscription_schedule": "subscription_schedule.updated",
}

# The object in each type of event. The books don't use a type that is in neither table or has None.
TRANSLATIONS: dict[str, ObjectTranslation | None] = {
    "customer.created": CUSTOMER,
    "customer.updated": CUSTOMER,
    "customer.deleted": CUSTOMER,
    "product.created": PRODUCT,
    "product.updated": PRODUCT,
    "product.deleted": PRODUCT,
    "invoice.upcoming": None,  # an invoice that does not exist: it has no id
    "charge.refund.updated": REFUND,
    "payment_intent.succeeded": PAYMENT_INTENT,
    "payment_intent.payment_failed": PAYMENT_INTENT,
    "checkout.session.completed": CHECKOUT_SESSION,
    "checkout.session.async_payment_succeeded": CHECKOUT_SESSION,
}
TRANSLATIONS_BY_PREFIX: dict[str, ObjectTranslation] = {  # the first that fits
    "customer.subscription.": SUBSCRIPTION,
    "customer.discount.": ObjectTranslation(payloads.Discount, applied_discount),
    "subscription_schedule.": ObjectTranslation(payloads.Schedule, schedule),
    "invoice.": INVOICE,
    "invoice_payment.": ObjectTranslation(payloads.InvoicePayment, invoice_payment),
    "refund.": REFUND,
    "charge.dispute.": ObjectTranslation(payloads.Dispute, dispute),
    "charge.": ObjectTranslation(payloads.Charge, charge),
    "credit_note.": ObjectTranslation(payloads.CreditNote, credit_note),
}


def translation_of(event_type: str) -> ObjectTranslation | None:
    """The translation of the object in this type of event; None if the books don't use it."""
    if event_type in TRANSLATIONS:
        return TRANSLATIONS[event_type]
    by_prefix = TRANSLATIONS_BY_PREFIX.items()
    return next((found for prefix, found in by_prefix if event_type.startswith(prefix)), None)


def is_used(event_type: str) -> bool:
    """Whether the books use this type of event."""
    return translation_of(event_type) is not None
