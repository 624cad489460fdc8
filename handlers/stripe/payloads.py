"""The structs of Stripe's payloads, with the fields that are read.

Each field is declared in every place where any family of payload has it, whatever `api_version` says:
an object may be older than its endpoint's version. A field without a default exists in all known
versions. Stripe adds fields at any time; fields that are not named here are ignored, those of version
2026-10-28.endive by name and with a reason in `tests/handlers/stripe_ignored.toml`.
Source: docs/processors/stripe.md, https://docs.stripe.com/api, https://docs.stripe.com/changelog.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from service.core.events import Currency, Every, Id, Moment, MonthDay
from service.core.limits import MAX_AMOUNT as MAX_NUMBER

Amount = Annotated[int, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Total = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Seconds = Annotated[
    int, Meta(ge=0, le=32_503_680_000)
]  # until the year 3000, so that milliseconds are refused
DecimalText = Annotated[str, Meta(pattern=r"^-?[0-9]{1,16}(\.[0-9]{1,12})?$")]
Percent = Annotated[int, Meta(ge=0, le=100)] | Annotated[float, Meta(ge=0, le=100)]
Text = Annotated[str, Meta(min_length=1, max_length=255)]
Interval = Literal["day", "week", "month", "year"]
Twin = Any  # says the same as another field, which is enough: it is parsed only where it is needed


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


class CustomerReference(Payload, frozen=True, kw_only=True):
    """The fields that refer to a customer; an account stands for one where `customer` is null."""

    customer: Reference | None = None
    customer_account: Id | None = None


class ObjectReference(Payload, frozen=True, kw_only=True):
    """The fields by which an object says what it is."""

    object: Text


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


class RelatedObject(Payload, frozen=True, kw_only=True):
    """The object that a thin event names; one without an id is part of another."""

    type: Text
    id: Id | None = None


class ThinEvent(Payload, frozen=True, kw_only=True):
    """An event that only names what changed; `snapshot_event` is the id of the event that shows it."""

    id: Id
    type: Text
    created: Moment
    context: Annotated[str, Meta(pattern="^[!-~]{0,255}$")] | None = None  # it goes into a header
    related_object: RelatedObject | None = None
    snapshot_event: Id | None = None


class Customer(Payload, frozen=True, kw_only=True):
    """A customer. `discount` is off all their subscriptions; null, not missing, where they have none."""

    id: Id
    name: str | None = None
    email: str | None = None
    discount: Twin = UNSET


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
    """How often a price bills; null for a one-off price."""

    interval: Interval
    interval_count: Every = 1
    usage_type: str | None = None


class Price(Payload, frozen=True, kw_only=True):
    """A price. Stripe sends `tiers` only where they were expanded, and of a deleted one only the id."""

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
    tax_behavior: str | None = None
    recurring: Recurring | UnsetType | None = UNSET


class Plan(Price, frozen=True, kw_only=True):
    """The predecessor of prices: the same values under other names, and always recurring."""

    unit_amount: Amount | None = field(default=None, name="amount")
    unit_amount_decimal: DecimalText | None = field(default=None, name="amount_decimal")
    transform_quantity: QuantityTransform | None = field(default=None, name="transform_usage")
    interval: Interval
    interval_count: Every = 1
    usage_type: str | None = None


class TaxRate(Payload, frozen=True, kw_only=True):
    """A tax rate; the effective percentage is the one that was applied."""

    inclusive: bool = False
    percentage: Percent | None = None
    effective_percentage: Percent | None = None


TaxRates = tuple[str | TaxRate, ...]


class CouponScope(Payload, frozen=True, kw_only=True):
    """The products that a coupon is for."""

    products: tuple[Id, ...] = ()


class Coupon(Payload, frozen=True, kw_only=True):
    """The percentage or amount that a discount takes off, for how long, and off which products."""

    duration: Literal["forever", "repeating", "once"]
    duration_in_months: Annotated[int, Meta(ge=1, le=1200)] | None = None
    percent_off: Percent | None = None
    amount_off: Total | None = None
    currency: Currency | None = None
    applies_to: CouponScope | None = None


class DiscountSource(Payload, frozen=True, kw_only=True):
    """The source of a discount, from 2025-09-30.clover on."""

    coupon: str | Coupon | None = None


class Discount(CustomerReference, frozen=True, kw_only=True):
    """An applied coupon: in `coupon`, or in `source.coupon` from 2025-09-30.clover on.

    By an event of its own it names what it is off: of these fields the narrowest that is set.
    """

    id: Id | None = None
    coupon: str | Coupon | None = None
    source: DiscountSource | None = None
    start: Seconds | None = None
    end: Seconds | None = None
    subscription: Reference | None = None
    subscription_item: str | None = None
    invoice: str | None = None
    invoice_item: str | None = None
    checkout_session: str | None = None


Discounts = tuple[str | Discount, ...]


class ItemTrial(Payload, frozen=True, kw_only=True):
    """The trial of one item, from 2026-03-25.dahlia on. `trial_offer` is an id, or has the trial's price."""

    start_date: Seconds | None = None
    end_date: Seconds
    trial_offer: Any = None


class SubscriptionItem(Payload, frozen=True, kw_only=True):
    """One price of a subscription. From basil on each item has a period of its own.

    `billed_until` is later than the period's end where the item is billed ahead; it may be left out.
    """

    price: Twin = None
    plan: Twin = None
    quantity: Total | None = None
    quantity_decimal: DecimalText | None = None
    discounts: Discounts | None = None
    tax_rates: TaxRates | None = None
    current_period_end: Seconds | None = None
    billed_until: Seconds | None = None
    current_trial: ItemTrial | None = None


class SubscriptionItems(Payload, frozen=True, kw_only=True):
    """The first page of a subscription's items."""

    data: tuple[SubscriptionItem, ...]
    has_more: bool | None = None


class BillUntil(Payload, frozen=True, kw_only=True):
    """The moment until which items are billed ahead."""

    computed_timestamp: Seconds


class BilledPrice(Payload, frozen=True, kw_only=True):
    """A price whose items are billed ahead."""

    price: Reference | None = None


class BillingSchedule(Payload, frozen=True, kw_only=True):
    """How far a subscription is billed ahead, from 2026-05-27.dahlia on; without prices all its items."""

    bill_until: BillUntil
    applies_to: tuple[BilledPrice, ...] | None = None


class AnchorDay(Payload, frozen=True, kw_only=True):
    """The day of the month on which a subscription's periods begin."""

    day_of_month: MonthDay


class AutomaticTax(Payload, frozen=True, kw_only=True):
    """Whether Stripe computes the taxes; an invoice also says how the last computation went."""

    enabled: bool = False
    status: str | None = None


class CancellationDetails(Payload, frozen=True, kw_only=True):
    """Why a subscription was, or will be, cancelled: by what, and what the customer chose and wrote."""

    reason: Text | None = None
    feedback: Text | None = None
    comment: str | None = None


class EndedSubscription(CustomerReference, frozen=True, kw_only=True):
    """The fields of a subscription that has ended: they are enough whatever its items look like."""

    id: Id
    status: Text | None = None
    currency: Currency | None = None
    ended_at: Seconds | None = None
    cancellation_details: Twin = None


class Subscription(EndedSubscription, frozen=True, kw_only=True):
    """A subscription. Payloads until 2025-02 have `current_period_end` and `discount` here."""

    status: Text
    items: SubscriptionItems | None = None
    plan: Twin = None
    quantity: Total | None = None
    discount: Twin = None
    discounts: Discounts | None = None
    default_tax_rates: TaxRates | None = None
    automatic_tax: AutomaticTax | None = None
    billing_schedules: tuple[BillingSchedule, ...] | None = None
    current_period_end: Seconds | None = None
    billing_cycle_anchor: Seconds | None = None
    billing_cycle_anchor_config: Twin = None
    start_date: Seconds | None = None
    trial_start: Seconds | None = None
    trial_end: Seconds | None = None
    cancel_at: Seconds | None = None
    cancel_at_period_end: bool | None = None
    pause_collection: dict[str, Any] | None = None


# Schedules


class PhaseDiscount(Payload, frozen=True, kw_only=True):
    """A discount of a phase: one that is applied already, or a coupon that will be."""

    coupon: str | Coupon | None = None
    discount: str | Discount | None = None


class PhaseItem(Payload, frozen=True, kw_only=True):
    """One price of a phase, by its id or expanded; `plan` is its older name."""

    price: Twin = None
    plan: Twin = None
    quantity: Total | None = None
    discounts: tuple[PhaseDiscount, ...] | None = None
    tax_rates: TaxRates | None = None


class Phase(Payload, frozen=True, kw_only=True):
    """A part of a schedule. Its items were called `plans` until 2020-08-27, its discounts one `coupon`."""

    start_date: Seconds
    end_date: Seconds | None = None
    currency: Currency | None = None
    items: tuple[PhaseItem, ...] | None = None
    plans: tuple[PhaseItem, ...] | None = None
    coupon: str | Coupon | None = None
    discounts: tuple[PhaseDiscount, ...] | None = None
    default_tax_rates: TaxRates | None = None
    trial: bool | None = None
    trial_end: Seconds | None = None


class Schedule(CustomerReference, frozen=True, kw_only=True):
    """A schedule of changes to a subscription, which does not exist before the first phase has begun."""

    id: Id
    status: Text
    subscription: Reference | None = None
    released_subscription: Reference | None = None
    end_behavior: str | None = None
    phases: tuple[Phase, ...] = ()


# Invoices


class PriceDetails(Payload, frozen=True, kw_only=True):
    """The price and product of a line."""

    price: Id | NamedPrice | None = None
    product: Id | Product | None = None


class Pricing(Payload, frozen=True, kw_only=True):
    """How a line was priced."""

    price_details: PriceDetails | None = None


class LineTax(Payload, frozen=True, kw_only=True):
    """A tax of a line: with `inclusive` until 2025-02, `tax_behavior` from basil on."""

    amount: Amount
    inclusive: bool | None = None
    tax_behavior: str | None = None


class LineDiscount(Payload, frozen=True, kw_only=True):
    """The amount that a discount takes off a line. `discount` is its id, unless it was expanded."""

    amount: Amount
    discount: Twin = None


class LineOrigin(Payload, frozen=True, kw_only=True):
    """The subscription's item from which a line was made."""

    subscription_item: str | None = None
    proration: bool | None = None


class LineParent(Payload, frozen=True, kw_only=True):
    """The object from which a line was made, from basil on."""

    subscription_item_details: LineOrigin | None = None


class LinePeriod(Payload, frozen=True, kw_only=True):
    """The period that a line bills."""

    start: Seconds
    end: Seconds


class InvoiceLine(Payload, frozen=True, kw_only=True):
    """An invoice line.

    Until 2025-02 it has `price`, `plan`, `type`, `proration` and `tax_amounts`, from basil on `pricing`,
    `parent` and `taxes`. Its amount is before discounts and exclusive taxes.
    """

    amount: Amount
    period: Twin = None
    price: Twin = None
    plan: Twin = None
    pricing: Pricing | None = None
    type: str | None = None
    proration: bool | None = None
    parent: LineParent | None = None
    subscription_item: str | None = None
    tax_amounts: tuple[LineTax, ...] | None = None
    taxes: tuple[LineTax, ...] | None = None
    discount_amounts: tuple[LineDiscount, ...] | None = None


class InvoiceLines(Payload, frozen=True, kw_only=True):
    """The first page of an invoice's lines."""

    data: tuple[InvoiceLine, ...]
    has_more: bool | None = None


class PaymentReference(CustomerReference, frozen=True, kw_only=True):
    """The fields that refer to a payment: intent, charge, or the record of a payment outside of Stripe."""

    payment_intent: Reference | None = None
    charge: Reference | None = None
    payment_record: Reference | None = None


class PaymentTransitions(Payload, frozen=True, kw_only=True):
    """When a payment of an invoice was paid."""

    paid_at: Seconds | None = None


class InvoicePayment(Payload, frozen=True, kw_only=True):
    """A payment of an invoice."""

    invoice: Reference
    payment: PaymentReference
    status: str | None = None
    currency: Currency | None = None
    amount_paid: Amount | None = None
    status_transitions: PaymentTransitions | None = None


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
    """An invoice. Until 2025-02 it names its subscription and payment; then `parent` and `payments` do.

    Before 2018-11-08 it has `paid`, `forgiven` and `attempted` in place of `status`; before 2019-03-14
    `date` in place of `created`, and `finalized_at` here.
    """

    id: Id
    status: Literal["draft", "open", "paid", "uncollectible", "void"] | None = None
    billing_reason: str | None = None
    paid: bool | None = None
    forgiven: bool | None = None
    attempted: bool | None = None
    currency: Currency
    created: Seconds | None = None
    date: Seconds | None = None
    finalized_at: Seconds | None = None
    amount_due: Amount
    amount_paid: Amount | None = None
    amount_remaining: Amount | None = None
    amount_paid_off_stripe: Amount | None = None
    paid_out_of_band: bool | None = None
    subtotal: Amount | None = None
    discount: Twin = None
    discounts: Twin = None
    subscription: Reference | None = None
    parent: InvoiceParent | None = None
    payments: InvoicePayments | None = None
    status_transitions: StatusTransitions | None = None
    automatic_tax: AutomaticTax | None = None
    lines: InvoiceLines | None = None


class CreditNote(CustomerReference, frozen=True, kw_only=True):
    """A credit note. `out_of_band_amount` was given back outside of Stripe."""

    id: Id
    invoice: Reference
    currency: Currency
    amount: Amount
    created: Seconds | None = None
    status: str | None = None
    out_of_band_amount: Total | None = None


class CheckoutSession(CustomerReference, frozen=True, kw_only=True):
    """A Checkout session. It may make a receipt for its payment that is an invoice."""

    invoice: Reference | None = None
    payment_intent: Reference | None = None
    payment_status: str | None = None


# Payments


class PaymentDetails(Payload, frozen=True, kw_only=True):
    """Further details of a payment."""

    order_reference: str | None = None


class Payment(CustomerReference, frozen=True, kw_only=True):
    """A charge or a payment intent. It may have `invoice` until 2025-02."""

    id: Id
    currency: Currency
    amount: Total
    invoice: Reference | None = None
    payment_details: PaymentDetails | None = None


class PaymentIntent(Payment, frozen=True, kw_only=True):
    """A payment intent: one payment, over all its attempts."""

    amount_received: Total | None = None


class Charge(Payment, frozen=True, kw_only=True):
    """A charge: one attempt at a payment.

    `status` is "paid" for "succeeded" before 2015-02-18, and may be missing before; then `paid` says it.
    """

    status: Text | None = None
    paid: bool | None = None
    created: Seconds
    amount_refunded: Total = 0
    amount_captured: Total | None = None
    captured: bool | None = None
    payment_intent: Reference | None = None


class Refund(PaymentReference, frozen=True, kw_only=True):
    """A refund. Old ones, and those of some payment methods, have no status."""

    id: Id
    status: Text | None = None
    reason: str | None = None
    currency: Currency
    amount: Total
    created: Seconds
    destination_details: dict[str, Any] | None = None


class BalanceTransaction(Payload, frozen=True, kw_only=True):
    """A change of the account's balance: negative where money was taken, in the currency of the account."""

    amount: Amount
    currency: str | None = None
    created: Seconds | None = None


class Dispute(PaymentReference, frozen=True, kw_only=True):
    """A dispute, with what it took and gave back."""

    id: Id
    status: Text
    currency: Currency
    amount: Total
    balance_transactions: tuple[str | BalanceTransaction, ...] | None = None
