"""What Stripe sends, as far as it is read.

Each field stands wherever either family of payload has it, whatever `api_version` says: an endpoint's
version and the shape of an object need not be of one age. A field without a default is one that no
known version lacks. Stripe adds fields at any time; those that are not named here are passed over.
Source: https://docs.stripe.com/api, https://docs.stripe.com/changelog.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from service.core.events import Currency, Every, Id

MOST = 10**12  # no amount or count is larger: books add up in 64 bits

Amount = Annotated[int, Meta(ge=-MOST, le=MOST)]
Total = Annotated[int, Meta(ge=0, le=MOST)]
Seconds = Annotated[int, Meta(ge=0, le=32_503_680_000)]  # to the year 3000: milliseconds don't pass
Exact = Annotated[str, Meta(pattern=r"^-?[0-9]{1,12}(\.[0-9]{1,12})?$")]
Percent = Annotated[int, Meta(ge=0, le=100)] | Annotated[float, Meta(ge=0, le=100)]
Word = Annotated[str, Meta(min_length=1, max_length=255)]
Interval = Literal["day", "week", "month", "year"]


class Payload(Struct, frozen=True, kw_only=True):
    """A part of what Stripe sends."""


class Expanded(Payload, frozen=True, kw_only=True):
    """An object where its id may stand instead."""

    id: Id


class Product(Expanded, frozen=True, kw_only=True):
    """A product, of which the name is read."""

    name: str | None = None


class Named(Expanded, frozen=True, kw_only=True):
    """A price or plan, of which only the names are read."""

    product: Id | Product | None = None
    nickname: str | None = None


Ref = Id | Expanded


class Changed(Payload, frozen=True, kw_only=True):
    """An event's object, and what its fields held until then."""

    object: dict[str, Any]
    previous_attributes: dict[str, Any] | None = None


class Envelope(Payload, frozen=True, kw_only=True):
    """An event. `account` is the connected account that it belongs to."""

    id: Id
    type: Word
    created: Seconds
    account: Annotated[str, Meta(max_length=255)] | None = None
    data: Changed


class Customer(Payload, frozen=True, kw_only=True):
    """A customer."""

    id: Id
    name: str | None = None
    email: str | None = None


# Subscriptions


class Tier(Payload, frozen=True, kw_only=True):
    """One tier of a price; null or "inf" is the last one's bound."""

    up_to: Total | Literal["inf"] | None
    unit_amount: Amount | None = None
    unit_amount_decimal: Exact | None = None
    flat_amount: Amount | None = None
    flat_amount_decimal: Exact | None = None


class Transform(Payload, frozen=True, kw_only=True):
    """What is done to a quantity before it is multiplied."""

    divide_by: Annotated[int, Meta(ge=1, le=MOST)]
    round: Literal["up", "down"]


class Recurring(Payload, frozen=True, kw_only=True):
    """How often a price bills; a one-off price has none."""

    interval: Interval
    interval_count: Every = 1
    usage_type: str | None = None


class Price(Payload, frozen=True, kw_only=True):
    """A price. `tiers` are there only where they were expanded."""

    id: Id
    type: str | None = None
    product: Ref | None = None
    currency: Currency | None = None
    billing_scheme: str | None = None
    unit_amount: Amount | None = None
    unit_amount_decimal: Exact | None = None
    tiers: tuple[Tier, ...] | None = None
    tiers_mode: str | None = None
    transform_quantity: Transform | None = None
    recurring: Recurring | None = None


class Plan(Price, frozen=True, kw_only=True):
    """What came before prices: the same, under other names, and always recurring."""

    unit_amount: Amount | None = field(default=None, name="amount")
    unit_amount_decimal: Exact | None = field(default=None, name="amount_decimal")
    transform_quantity: Transform | None = field(default=None, name="transform_usage")
    interval: Interval
    interval_count: Every = 1
    usage_type: str | None = None


class Coupon(Payload, frozen=True, kw_only=True):
    """What a discount takes off."""

    duration: Literal["forever", "repeating", "once"]
    duration_in_months: Annotated[int, Meta(ge=1, le=1200)] | None = None
    percent_off: Percent | None = None
    amount_off: Total | None = None
    currency: Currency | None = None


class Source(Payload, frozen=True, kw_only=True):
    """Where a discount comes from."""

    coupon: str | Coupon | None = None


class Discount(Payload, frozen=True, kw_only=True):
    """A coupon in use: in `coupon`, or in `source.coupon` from 2025-09-30.clover on."""

    id: str | None = None
    coupon: str | Coupon | None = None
    source: Source | None = None
    start: Seconds | None = None
    end: Seconds | None = None


class Item(Payload, frozen=True, kw_only=True):
    """One price of a subscription. Its period is its own from basil on."""

    price: Price | None = None
    plan: Plan | None = None
    quantity: Total | None = None
    discounts: tuple[str | Discount, ...] | None = None
    current_period_end: Seconds | None = None


class Items(Payload, frozen=True, kw_only=True):
    """A list of items, perhaps not whole."""

    data: tuple[Item, ...]
    has_more: bool | None = None


class Subscription(Payload, frozen=True, kw_only=True):
    """A subscription. Until 2025-02 the period and a first `discount` stand here."""

    id: Id
    customer: Ref
    status: Word
    currency: Currency | None = None
    items: Items | None = None
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
    """The price of a line, and what it is for."""

    price: Id | Named | None = None
    product: Id | Product | None = None


class Pricing(Payload, frozen=True, kw_only=True):
    """How a line was priced."""

    price_details: PriceDetails | None = None


class Line(Payload, frozen=True, kw_only=True):
    """A line. `price` and `plan` until 2025-02, `pricing` from basil on."""

    amount: Amount
    price: Named | None = None
    plan: Named | None = None
    pricing: Pricing | None = None


class Lines(Payload, frozen=True, kw_only=True):
    """A list of lines, perhaps not whole."""

    data: tuple[Line, ...]
    has_more: bool | None = None


class Paying(Payload, frozen=True, kw_only=True):
    """What pays: a payment intent, else a charge, else the record of a payment made elsewhere."""

    payment_intent: Ref | None = None
    charge: Ref | None = None
    payment_record: Ref | None = None


class InvoicePayment(Payload, frozen=True, kw_only=True):
    """A payment of an invoice."""

    invoice: Ref
    payment: Paying
    status: str | None = None


class InvoicePayments(Payload, frozen=True, kw_only=True):
    """A list of payments of an invoice."""

    data: tuple[InvoicePayment, ...]


class SubscriptionDetails(Payload, frozen=True, kw_only=True):
    """The subscription that an invoice is for."""

    subscription: Ref | None = None


class Parent(Payload, frozen=True, kw_only=True):
    """What an invoice is for."""

    subscription_details: SubscriptionDetails | None = None


class StatusTransitions(Payload, frozen=True, kw_only=True):
    """When an invoice became what it is."""

    finalized_at: Seconds | None = None
    paid_at: Seconds | None = None


class Invoice(Paying, frozen=True, kw_only=True):
    """An invoice. `subscription` and what pays it stand here until 2025-02, then in `parent`, `payments`."""

    id: Id
    status: Literal["draft", "open", "paid", "uncollectible", "void"] | None
    currency: Currency
    created: Seconds
    amount_due: Amount
    amount_paid: Amount
    amount_remaining: Amount | None = None
    subtotal: Amount | None = None
    customer: Ref | None = None
    subscription: Ref | None = None
    parent: Parent | None = None
    payments: InvoicePayments | None = None
    status_transitions: StatusTransitions | None = None
    lines: Lines | None = None


class CreditNote(Payload, frozen=True, kw_only=True):
    """A credit note."""

    id: Id
    invoice: Ref
    currency: Currency
    amount: Amount


# Payments


class PaymentDetails(Payload, frozen=True, kw_only=True):
    """What else is known of a payment."""

    order_reference: str | None = None


class Payment(Payload, frozen=True, kw_only=True):
    """A charge or a payment intent. `invoice` until 2025-02: null says that it pays none."""

    id: Id
    currency: Currency
    amount: Total
    customer: Ref | None = None
    invoice: Ref | UnsetType | None = UNSET
    description: str | None = None
    payment_details: PaymentDetails | None = None


class PaymentIntent(Payment, frozen=True, kw_only=True):
    """A payment intent: one payment, whatever it takes."""

    amount_received: Total


class Charge(Payment, frozen=True, kw_only=True):
    """A charge: one attempt at a payment."""

    status: Word
    created: Seconds
    amount_refunded: Total
    amount_captured: Total | None = None
    captured: bool | None = None
    payment_intent: Ref | None = None


class Refund(Paying, frozen=True, kw_only=True):
    """A refund."""

    id: Id
    status: Word
    currency: Currency
    amount: Total
    created: Seconds
    customer: Ref | None = None


class Dispute(Paying, frozen=True, kw_only=True):
    """A dispute."""

    id: Id
    status: Word
    currency: Currency
    amount: Total
