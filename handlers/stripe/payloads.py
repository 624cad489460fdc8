"""The structs of Stripe's payloads, with the fields that are read.

Each field is declared in every place where either family of payload has it, whatever `api_version` says:
an object may be older than its endpoint's version. A field without a default exists in all known
versions. Stripe adds fields at any time; fields that are not named here are ignored.
Source: https://docs.stripe.com/api, https://docs.stripe.com/changelog.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from service.core.events import Currency, Every, Id

MAX_NUMBER = 10**12  # the largest amount or count: books add up in 64 bits

Amount = Annotated[int, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Total = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Seconds = Annotated[
    int, Meta(ge=0, le=32_503_680_000)
]  # until the year 3000, so that milliseconds are refused
DecimalText = Annotated[str, Meta(pattern=r"^-?[0-9]{1,12}(\.[0-9]{1,12})?$")]
Percent = Annotated[int, Meta(ge=0, le=100)] | Annotated[float, Meta(ge=0, le=100)]
Text = Annotated[str, Meta(min_length=1, max_length=255)]
Interval = Literal["day", "week", "month", "year"]


class Payload(Struct, frozen=True, kw_only=True):
    """The base of all structs of Stripe's payloads."""


class Expanded(Payload, frozen=True, kw_only=True):
    """An object in a field that may hold just its id instead."""

    id: Id


class Product(Expanded, frozen=True, kw_only=True):
    """A product; only its name is read."""

    name: str | None = None


class NamedPrice(Expanded, frozen=True, kw_only=True):
    """A price or plan in an invoice line; only the names are read."""

    product: Id | Product | None = None
    nickname: str | None = None


Reference = Id | Expanded


class EventData(Payload, frozen=True, kw_only=True):
    """An event's object, and the previous values of the fields that changed."""

    object: dict[str, Any]
    previous_attributes: dict[str, Any] | None = None


class Envelope(Payload, frozen=True, kw_only=True):
    """An event. `account` is the connected account that it belongs to."""

    id: Id
    type: Text
    created: Seconds
    account: Annotated[str, Meta(max_length=255)] | None = None
    data: EventData


class Customer(Payload, frozen=True, kw_only=True):
    """A customer."""

    id: Id
    name: str | None = None
    email: str | None = None


# Subscriptions


class Tier(Payload, frozen=True, kw_only=True):
    """One tier of a price; the last one's `up_to` is null or "inf"."""

    up_to: Total | Literal["inf"] | None
    unit_amount: Amount | None = None
    unit_amount_decimal: DecimalText | None = None
    flat_amount: Amount | None = None
    flat_amount_decimal: DecimalText | None = None


class QuantityTransform(Payload, frozen=True, kw_only=True):
    """How a quantity is divided before it is multiplied by the price."""

    divide_by: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    round: Literal["up", "down"]


class Recurring(Payload, frozen=True, kw_only=True):
    """How often a price bills; a one-off price has no such object."""

    interval: Interval
    interval_count: Every = 1
    usage_type: str | None = None


class Price(Payload, frozen=True, kw_only=True):
    """A price. Stripe sends `tiers` only where they were expanded."""

    id: Id
    type: str | None = None
    product: Reference | None = None
    currency: Currency | None = None
    billing_scheme: str | None = None
    unit_amount: Amount | None = None
    unit_amount_decimal: DecimalText | None = None
    tiers: tuple[Tier, ...] | None = None
    tiers_mode: str | None = None
    transform_quantity: QuantityTransform | None = None
    recurring: Recurring | None = None


class Plan(Price, frozen=True, kw_only=True):
    """The predecessor of prices: the same values under other names, and always recurring."""

    unit_amount: Amount | None = field(default=None, name="amount")
    unit_amount_decimal: DecimalText | None = field(default=None, name="amount_decimal")
    transform_quantity: QuantityTransform | None = field(default=None, name="transform_usage")
    interval: Interval
    interval_count: Every = 1
    usage_type: str | None = None


class Coupon(Payload, frozen=True, kw_only=True):
    """The percentage or amount that a discount takes off, and for how long."""

    duration: Literal["forever", "repeating", "once"]
    duration_in_months: Annotated[int, Meta(ge=1, le=1200)] | None = None
    percent_off: Percent | None = None
    amount_off: Total | None = None
    currency: Currency | None = None


class DiscountSource(Payload, frozen=True, kw_only=True):
    """The source of a discount, from 2025-09-30.clover on."""

    coupon: str | Coupon | None = None


class Discount(Payload, frozen=True, kw_only=True):
    """An applied coupon: in `coupon`, or in `source.coupon` from 2025-09-30.clover on."""

    id: str | None = None
    coupon: str | Coupon | None = None
    source: DiscountSource | None = None
    start: Seconds | None = None
    end: Seconds | None = None


class SubscriptionItem(Payload, frozen=True, kw_only=True):
    """One price of a subscription. From basil on each item has a period of its own."""

    price: Price | None = None
    plan: Plan | None = None
    quantity: Total | None = None
    discounts: tuple[str | Discount, ...] | None = None
    current_period_end: Seconds | None = None


class SubscriptionItems(Payload, frozen=True, kw_only=True):
    """The first page of a subscription's items."""

    data: tuple[SubscriptionItem, ...]
    has_more: bool | None = None


class Subscription(Payload, frozen=True, kw_only=True):
    """A subscription. Payloads until 2025-02 have `current_period_end` and `discount` here."""

    id: Id
    customer: Reference
    status: Text
    currency: Currency | None = None
    items: SubscriptionItems | None = None
    plan: Plan | None = None
    quantity: Total | None = None
    discount: Discount | None = None
    discounts: tuple[str | Discount, ...] | None = None
    current_period_end: Seconds | None = None
    billing_cycle_anchor: Seconds | None = None
    trial_end: Seconds | None = None
    cancel_at: Seconds | None = None
    cancel_at_period_end: bool | None = None
    ended_at: Seconds | None = None
    pause_collection: dict[str, Any] | None = None


# Invoices


class PriceDetails(Payload, frozen=True, kw_only=True):
    """The price and product of a line."""

    price: Id | NamedPrice | None = None
    product: Id | Product | None = None


class Pricing(Payload, frozen=True, kw_only=True):
    """How a line was priced."""

    price_details: PriceDetails | None = None


class InvoiceLine(Payload, frozen=True, kw_only=True):
    """An invoice line. It has `price` and `plan` until 2025-02, `pricing` from basil on."""

    amount: Amount
    price: NamedPrice | None = None
    plan: NamedPrice | None = None
    pricing: Pricing | None = None


class InvoiceLines(Payload, frozen=True, kw_only=True):
    """The first page of an invoice's lines."""

    data: tuple[InvoiceLine, ...]
    has_more: bool | None = None


class PaymentReference(Payload, frozen=True, kw_only=True):
    """The fields that refer to a payment: intent, charge, or the record of a payment outside of Stripe."""

    payment_intent: Reference | None = None
    charge: Reference | None = None
    payment_record: Reference | None = None


class InvoicePayment(Payload, frozen=True, kw_only=True):
    """A payment of an invoice."""

    invoice: Reference
    payment: PaymentReference
    status: str | None = None


class InvoicePayments(Payload, frozen=True, kw_only=True):
    """A list of payments of an invoice."""

    data: tuple[InvoicePayment, ...]


class SubscriptionDetails(Payload, frozen=True, kw_only=True):
    """The subscription that an invoice is for."""

    subscription: Reference | None = None


class InvoiceParent(Payload, frozen=True, kw_only=True):
    """The object from which an invoice was made."""

    subscription_details: SubscriptionDetails | None = None


class StatusTransitions(Payload, frozen=True, kw_only=True):
    """When an invoice was finalized and paid."""

    finalized_at: Seconds | None = None
    paid_at: Seconds | None = None


class Invoice(PaymentReference, frozen=True, kw_only=True):
    """An invoice. Until 2025-02 it names its subscription and payment; then `parent` and `payments` do."""

    id: Id
    status: Literal["draft", "open", "paid", "uncollectible", "void"] | None
    currency: Currency
    created: Seconds
    amount_due: Amount
    amount_paid: Amount
    amount_remaining: Amount | None = None
    subtotal: Amount | None = None
    customer: Reference | None = None
    subscription: Reference | None = None
    parent: InvoiceParent | None = None
    payments: InvoicePayments | None = None
    status_transitions: StatusTransitions | None = None
    lines: InvoiceLines | None = None


class CreditNote(Payload, frozen=True, kw_only=True):
    """A credit note."""

    id: Id
    invoice: Reference
    currency: Currency
    amount: Amount


# Payments


class PaymentDetails(Payload, frozen=True, kw_only=True):
    """Further details of a payment."""

    order_reference: str | None = None


class Payment(Payload, frozen=True, kw_only=True):
    """A charge or a payment intent. It has `invoice` until 2025-02, null if it pays none."""

    id: Id
    currency: Currency
    amount: Total
    customer: Reference | None = None
    invoice: Reference | UnsetType | None = UNSET
    description: str | None = None
    payment_details: PaymentDetails | None = None


class PaymentIntent(Payment, frozen=True, kw_only=True):
    """A payment intent: one payment, over all its attempts."""

    amount_received: Total


class Charge(Payment, frozen=True, kw_only=True):
    """A charge: one attempt at a payment."""

    status: Text
    created: Seconds
    amount_refunded: Total
    amount_captured: Total | None = None
    captured: bool | None = None
    payment_intent: Reference | None = None


class Refund(PaymentReference, frozen=True, kw_only=True):
    """A refund."""

    id: Id
    status: Text
    currency: Currency
    amount: Total
    created: Seconds
    customer: Reference | None = None


class Dispute(PaymentReference, frozen=True, kw_only=True):
    """A dispute."""

    id: Id
    status: Text
    currency: Currency
    amount: Total
