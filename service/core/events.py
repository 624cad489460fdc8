"""The ledger's vocabulary: event types and their data, the same for all processors.

A delivery is translated to events. An event has a type, the time at which it happened, and data:
the whole state of one thing (an invoice, a subscription) after the event. Amounts are integer minor
units of `currency`; only a unit price may have a fraction ("0.5" is half a cent). Times are RFC 3339
with an offset. The same structs validate the events of in-house billers and make the published JSON
Schema.
"""

from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Any, Literal, get_type_hints

from msgspec import Meta, Struct
from msgspec.structs import replace

Id = Annotated[str, Meta(min_length=1, max_length=255)]
Currency = Annotated[str, Meta(pattern="^[a-z]{3}$", max_length=3, description="ISO 4217, lower case")]
Interval = Literal["day", "week", "month", "year", "once"]
Every = Annotated[int, Meta(ge=1, le=1100)]  # three years of days
Count = Annotated[int, Meta(ge=0)]
Moment = Annotated[datetime, Meta(tz=True)]
MonthDay = Annotated[int, Meta(ge=1, le=31)]

# Marks a field that is sealed in the ledger, and shown to requests with the scope `people` only.
PERSONAL = Meta(extra={"personal": True})

# Lifecycle ranks order the events of one moment where no causal link orders them.
CREATED, UPDATED, DELETED = 0, 1, 2
INVOICE_RANK = {"draft": 0, "open": 1, "uncollectible": 2, "paid": 3, "void": 3, "deleted": 4}

# Statuses of a contract that has ended, in lower case; whether it may come back depends on the processor.
ENDED_STATUSES = frozenset({"canceled", "cancelled", "incomplete_expired", "completed", "deleted"})
# Of a contract whose end is all that can be read of it: its last customer and currency stay.
UNKNOWN_CUSTOMER = "(unknown)"
NO_CURRENCY = "xxx"  # ISO 4217: no currency is involved

READING = "set_aside"  # the kind of the histories of how far another one is read

# Stands only in ids that Daybook makes: ids from processors are ASCII, and any that holds it is refused.
REVISION_MARK = "·"
SUPERSEDED_SUFFIX = f"{REVISION_MARK}superseded"


class Data(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of all event data."""


class Discount(Data, frozen=True, kw_only=True):
    """A percentage or an amount off each interval's bill. Both unset: a discount that could not be read.

    With `product_ids` it is off the items of these products only. It holds from `starts_at` to `ends_at`, as
    far as they are known. An amount in a `currency` that is not the contract's is not off it; without one it
    is in the contract's.
    """

    discount_id: str | None = None
    percent_off: Annotated[Decimal, Meta(description="0 to 100")] | None = None
    amount_off: Annotated[int, Meta(ge=0, description="minor units off one interval's bill")] | None = None
    currency: Currency | None = None
    duration: Annotated[str, Meta(description="forever, repeating or once")] = "forever"
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    product_ids: tuple[str, ...] = ()


class Customer(Data, frozen=True, kw_only=True):
    """A customer. Names and e-mail addresses are stored here and in no other data.

    `discounts` are off all their contracts that have none of their own; None where nothing is said of them.
    """

    customer_id: Id
    name: Annotated[str | None, PERSONAL] = None
    email: Annotated[str | None, PERSONAL] = None
    deleted: bool = False
    discounts: tuple[Discount, ...] | None = None


class AppliedDiscount(Data, frozen=True, kw_only=True):
    """A discount by an event of its own: of one contract, or of all contracts of a customer."""

    customer_id: str | None = None
    subscription_id: str | None = None
    discount: Discount
    deleted: bool = False


class CustomerErased(Data, frozen=True, kw_only=True):
    """The customer's personal data is erased, and so is any that arrives later."""

    customer_id: Id


class Product(Data, frozen=True, kw_only=True):
    """A product; its name labels revenue by product."""

    product_id: Id
    name: str | None = None
    deleted: bool = False


class Tier(Data, frozen=True, kw_only=True):
    """One price tier. The last tier has no `up_to`."""

    up_to: Count | None = None
    unit_amount: Decimal = Decimal(0)
    flat_amount: Decimal = Decimal(0)


class Item(Data, frozen=True, kw_only=True):
    """One line of a subscription. With neither `unit_amount` nor `tiers` its price could not be read."""

    interval: Interval
    every: Every = 1
    quantity: Count | Annotated[Decimal, Meta(description="may have a fraction")] = 1
    unit_amount: Annotated[Decimal, Meta(description="minor units, may have a fraction")] | None = None
    item_id: str | None = None
    price_id: str | None = None
    product_id: str | None = None
    metered: Annotated[bool, Meta(description="billed by use: never counted in MRR")] = False
    tiers: tuple[Tier, ...] = ()
    tiers_mode: Annotated[str, Meta(description="graduated or volume")] | None = None
    divide_by: Annotated[int, Meta(ge=1, description="quantity is divided by this first")] | None = None
    divide_round: Annotated[str, Meta(description="up or down")] = "up"
    discounts: tuple[Discount, ...] = ()
    inclusive_tax: Annotated[Decimal, Meta(description="percent of tax that the price includes")] = Decimal(0)
    next_bill_at: Annotated[Moment, Meta(description="its own, where it is not the contract's")] | None = None
    trial_start_at: Moment | None = None
    trial_end_at: Annotated[Moment, Meta(description="it counts nothing before this moment")] | None = None


class Subscription(Data, frozen=True, kw_only=True):
    """The state of a subscription or contract.

    Its bills fall on `anchor_day`, else on the day of month of its anchor, whatever day its next bill is on.
    """

    subscription_id: Id
    customer_id: Id
    status: Annotated[str, Meta(description="active and past_due count; any word is accepted")]
    currency: Currency
    items: tuple[Item, ...]
    discounts: tuple[Discount, ...] = ()
    next_bill_at: Annotated[Moment, Meta(description="the biller's own next bill moment")] | None = None
    next_bill_on: Annotated[date, Meta(description="the same as a calendar date, in no zone")] | None = None
    started_at: Annotated[Moment, Meta(description="its start; nothing is inferred before")] | None = None
    trial_start_at: Moment | None = None
    trial_end_at: Moment | None = None
    anchor_at: Annotated[Moment, Meta(description="its day of month is kept when bills roll on")] | None = (
        None
    )
    anchor_on: Annotated[date, Meta(description="the same as a calendar date, in no zone")] | None = None
    anchor_day: Annotated[MonthDay, Meta(description="the day of month, where it is stated")] | None = None
    automatic_tax: Annotated[bool, Meta(description="its prices include the tax of its invoices")] = False
    last_invoice_on: Annotated[date, Meta(description="the day of its last bill, as observed")] | None = None
    cancel_at: Moment | None = None
    ended_at: Moment | None = None
    counts_from: (
        Annotated[
            Moment,
            Meta(description="the first known state holds from here, if that is earlier than the event"),
        ]
        | None
    ) = None
    counts_from_on: Annotated[date, Meta(description="the same as a calendar date, in no zone")] | None = None
    collection_paused: bool = False
    declined: Annotated[bool, Meta(description="the last payment was declined")] = False
    cancellation_reason: (
        Annotated[str, Meta(description="why it was cancelled: cancellation_requested, payment_failed")]
        | None
    ) = None
    cancellation_feedback: (
        Annotated[str, Meta(description="what the customer chose as the reason: too_expensive")] | None
    ) = None
    cancellation_comment: Annotated[
        str | None, PERSONAL, Meta(description="what the customer wrote about it; personal, and in no figure")
    ] = None


class Phase(Data, frozen=True, kw_only=True):
    """A part of a contract's schedule. An item may name its price by id alone, without amounts."""

    starts_at: Moment
    ends_at: Moment | None = None
    items: tuple[Item, ...] = ()
    discounts: tuple[Discount, ...] = ()
    trial_end_at: Moment | None = None


class Schedule(Data, frozen=True, kw_only=True):
    """The state of a schedule of changes to a contract, with its phases in order."""

    schedule_id: Id
    subscription_id: str | None = None
    customer_id: str | None = None
    currency: Currency | None = None
    status: Annotated[str, Meta(description="not_started and active will change the contract")]
    end_behavior: Annotated[str, Meta(description="release or cancel, after the last phase")] = "release"
    phases: tuple[Phase, ...] = ()


class InvoiceLine(Data, frozen=True, kw_only=True):
    """One line of an invoice, for revenue by product."""

    amount: int
    product_id: str | None = None
    price_id: str | None = None
    product_name: str | None = None


class Period(Data, frozen=True, kw_only=True):
    """A period of a contract: from one of its bills to the next one of the same interval."""

    starts_at: Moment
    ends_at: Moment


class EndingDiscount(Data, frozen=True, kw_only=True):
    """What a discount takes off an item that an invoice bills until it ends within the period."""

    ends_at: Moment
    amount: int


class BilledItem(Data, frozen=True, kw_only=True):
    """An item of a contract as an invoice bills it for a whole period.

    The amount is less lasting discounts and the tax that the price includes. Without an `interval`, that of
    the contract's item, else the period's length says how often it is billed.
    """

    starts_at: Moment
    ends_at: Moment
    amount: int
    interval: Interval | None = None
    every: Every = 1
    item_id: str | None = None
    price_id: str | None = None
    product_id: str | None = None
    ending_discounts: Annotated[
        tuple[EndingDiscount, ...], Meta(description="those of its discounts that end within the period")
    ] = ()
    in_arrears: Annotated[
        bool, Meta(description="billed once its period is over: by use, unless the contract says otherwise")
    ] = False


class Invoice(Data, frozen=True, kw_only=True):
    """The state of an invoice. Amounts include tax."""

    invoice_id: Id
    status: Annotated[str, Meta(description="draft, open, paid, uncollectible, void or deleted")]
    currency: Currency
    amount_due: int
    amount_paid: int = 0
    amount_remaining: int | None = None
    customer_id: str | None = None
    subscription_id: str | None = None
    created_at: Moment
    finalized_at: Moment | None = None
    paid_at: Moment | None = None
    payment_failed: Annotated[bool, Meta(description="an attempt to collect it has just failed")] = False
    payment_ids: Annotated[tuple[Id, ...], Meta(description="the payments that settle it")] = ()
    payment_amounts: Annotated[
        tuple[int | None, ...], Meta(description="what each of them paid of it; null if not known")
    ] = ()
    lines: tuple[InvoiceLine, ...] = ()
    paid_out_of_band: Annotated[bool, Meta(description="paid outside of the processor")] = False
    within_period: Annotated[bool, Meta(description="it bills changes, and no period of its contract")] = (
        False
    )
    periods: Annotated[
        tuple[Period, ...],
        Meta(description="the periods of its contract that it bills, where they are known"),
    ] = ()
    billed: Annotated[
        tuple[BilledItem, ...],
        Meta(description="the items of its contract that it bills for whole periods, metered ones left out"),
    ] = ()
    taxed_amount: (
        Annotated[int, Meta(description="subscription lines with their tax, less discounts")] | None
    ) = None
    inclusive_tax: Annotated[int, Meta(description="the tax that `taxed_amount` includes")] | None = None


class InvoicePayment(Data, frozen=True, kw_only=True):
    """A payment settles (part of) an invoice."""

    invoice_id: Id
    payment_id: Id
    status: Annotated[str, Meta(description="paid, open or canceled: settles nothing")] = "paid"
    amount_paid: int | None = None
    paid_at: Moment | None = None


class Payment(Data, frozen=True, kw_only=True):
    """The state of a payment. All events about one payment have the same `payment_id`."""

    payment_id: Id
    status: Annotated[
        str, Meta(description="succeeded, failed, pending, voided: never captured, or authorized: held")
    ]
    currency: Currency
    amount: Annotated[int, Meta(ge=0, description="what was captured; of a failed or held one all of it")]
    amount_refunded: Count = 0
    amount_released: Annotated[int, Meta(ge=0, description="held, never captured and given back")] = 0
    customer_id: str | None = None
    invoice_id: Annotated[str, Meta(description="the invoice that it pays")] | None = None
    for_invoice: Annotated[bool, Meta(description="it pays an invoice that is not named")] = False
    paid_at: Annotated[Moment, Meta(description="when it was paid, if a later event says so")] | None = None
    attempted_at: Annotated[Moment, Meta(description="when the attempt began")] | None = None
    failed_at: Annotated[Moment, Meta(description="when it failed, if a later event says so")] | None = None
    awaits_confirmation: Annotated[bool, Meta(description="counts once a fetch confirms it")] = False


class Refund(Data, frozen=True, kw_only=True):
    """The state of a refund."""

    refund_id: Id
    status: Annotated[str, Meta(description="succeeded counts; pending, failed, canceled do not")]
    currency: Currency
    amount: Count
    created_at: Moment
    payment_id: str | None = None
    customer_id: str | None = None
    captured: Annotated[bool, Meta(description="false: it gave back what was only held")] = True
    awaits_confirmation: bool = False


class Dispute(Data, frozen=True, kw_only=True):
    """The state of a dispute (chargeback)."""

    dispute_id: Id
    status: Annotated[str, Meta(description="lost counts, on the day it was lost, until it is won")]
    currency: Currency
    amount: Count
    amount_taken: Annotated[int, Meta(description="what its balance transactions took")] | None = None
    taken_at: Annotated[Moment, Meta(description="when they did, if a later event says so")] | None = None
    payment_id: str | None = None
    customer_id: str | None = None
    awaits_confirmation: bool = False


class CreditNote(Data, frozen=True, kw_only=True):
    """A credit note: it affects the books through its invoice and its refund, never by itself."""

    credit_note_id: Id
    invoice_id: Id
    currency: Currency
    amount: int


class Superseded(Data, frozen=True, kw_only=True):
    """The event `event_id` was translated wrongly and no longer counts, in any of its histories.

    `by` is the id of the event that replaces it, None if none does; `histories` are the (kind, key) of
    the histories that it belongs to. Ids may be longer here than a processor's own.
    """

    event_id: str
    by: str | None = None
    histories: tuple[tuple[str, str], ...] = ()
    customer_id: str | None = None


class Rendering(Data, frozen=True, kw_only=True):
    """The event `event_id` came once more, by another endpoint or a fetch, in another rendering.

    It only keeps these bytes; what the books read of the event is in its revisions. `account` is the one that
    this delivery names.
    """

    event_id: str
    account: str = ""
    api_version: str = ""
    customer_id: str | None = None


class ThinEvent(Data, frozen=True, kw_only=True):
    """An event that only names what changed. It has no effect itself: what it names is fetched.

    That is the event `snapshot_id`, which tells the change whole, if there is one; else the object.
    `context` says for whom the API is asked, in the processor's words.
    """

    original_type: str
    snapshot_id: Id | None = None
    object_type: str | None = None
    object_id: Id | None = None
    context: str | None = None


class Unused(Data, frozen=True, kw_only=True):
    """An event that the books don't use, with the customer that it names, if any.

    One that would count under another setting has its own `event_id`, by which it is counted.
    """

    original_type: str
    customer_id: str | None = None
    ignored: Annotated[str, Meta(description="why, if it would count elsewhere: test mode")] | None = None
    event_id: str | None = None


class SetAside(Data, frozen=True, kw_only=True):
    """A history is not read from its event `event_id` on: a book could not be made from it.

    It is the history of that kind and key in the event's processor and account. `error` is the type of what
    was raised.
    """

    kind: str
    key: str
    event_id: str
    book: str
    error: str


class Lifted(Data, frozen=True, kw_only=True):
    """A history that was set aside is read to its end again."""

    kind: str
    key: str


class LostHead(Data, frozen=True, kw_only=True):
    """A position that the ledger had, and the digest of its chain there, in hexadecimal."""

    position: int
    digest: str


class LossAccepted(Data, frozen=True, kw_only=True):
    """An operator accepted that the ledger lacks what was known of it: these heads, and all until then."""

    heads: tuple[LostHead, ...]


# The table of event types. A new type needs one line here and one in `_SUBJECTS`.
TYPES: dict[str, type[Data]] = {
    "customer.recorded": Customer,
    "customer.erased": CustomerErased,
    "product.recorded": Product,
    "subscription.recorded": Subscription,
    "discount.recorded": AppliedDiscount,
    "schedule.recorded": Schedule,
    "invoice.recorded": Invoice,
    "invoice_payment.recorded": InvoicePayment,
    "payment.recorded": Payment,
    "refund.recorded": Refund,
    "dispute.recorded": Dispute,
    "credit_note.recorded": CreditNote,
    "event.superseded": Superseded,
    "event.rendered": Rendering,
    "event.thin": ThinEvent,
    "subject.set_aside": SetAside,
    "subject.lifted": Lifted,
    "ledger.loss_accepted": LossAccepted,
    "unused": Unused,
}
NOT_POSTED = (
    CustomerErased,
    Superseded,
    Rendering,
    ThinEvent,
    SetAside,
    Lifted,
    LossAccepted,
    Unused,
)  # made by Daybook itself, never posted by a biller
TYPE_OF: dict[type[Data], str] = {data: name for name, data in TYPES.items()}


def personal_fields(data: type[Data]) -> list[str]:
    """The names of the fields of this data that are personal."""
    hints = get_type_hints(data, include_extras=True)
    return [name for name, hint in hints.items() if PERSONAL in getattr(hint, "__metadata__", ())]


class Event(Struct, frozen=True, kw_only=True):
    """One translated event: everything that a fold may know of it.

    `event_id` is unique within (processor, account). `before` is the JSON of `data` before the event,
    where the processor gives the previous values: it links the events of one moment. `trust` is
    "signed", "unsigned" or "fetched".
    """

    processor: str
    account: str = ""
    event_id: str
    occurred_at: datetime
    rank: int = UPDATED
    trust: str = "signed"
    data: Data
    before: bytes | None = None

    @property
    def type(self) -> str:
        """The event's type in the ledger's words: "invoice.recorded"."""
        return TYPE_OF[type(self.data)]

    @property
    def cause(self) -> str:
        """The event's name for people and reads, the same for all its revisions: "stripe:evt_1"."""
        return f"{self.processor}:{named_id(self.event_id)}"


def _reading_histories(data: SetAside | Lifted) -> list[tuple[str, str]]:
    """The history that is read otherwise from now on, and the one of how far it is read.

    The latter has a digest as its key: a name within a name could be longer than an index allows.
    """
    name = sha256(join_key(data.kind, data.key).encode()).hexdigest()[:32]
    return [(data.kind, data.key), (READING, name)]


_SUBJECTS: dict[type[Data], Any] = {
    Customer: lambda data: [
        ("customer", data.customer_id),
        *([] if data.discounts is None else [("customer_discount", data.customer_id)]),
    ],
    CustomerErased: lambda data: [("customer", data.customer_id)],
    Product: lambda data: [("product", data.product_id)],
    Subscription: lambda data: [("subscription", data.subscription_id)],
    AppliedDiscount: lambda data: _named(
        subscription=data.subscription_id,
        customer_discount=None if data.subscription_id else data.customer_id,
    ),
    Schedule: lambda data: _named(subscription=data.subscription_id),
    Invoice: lambda data: [
        ("invoice", data.invoice_id),
        *(("payment", payment_id) for payment_id in data.payment_ids),
        *_named(subscription=None if data.inclusive_tax is None else data.subscription_id),
    ],
    InvoicePayment: lambda data: [("payment", data.payment_id), ("invoice", data.invoice_id)],
    Payment: lambda data: [("payment", data.payment_id), *_named(invoice=data.invoice_id)],
    Refund: lambda data: [("payment", data.payment_id or data.refund_id)],
    Dispute: lambda data: [("payment", data.payment_id or data.dispute_id)],
    CreditNote: lambda _: [],
    Superseded: lambda data: list(data.histories),
    Rendering: lambda data: [("rendering", data.event_id)],
    ThinEvent: lambda _: [],
    SetAside: _reading_histories,
    Lifted: _reading_histories,
    LossAccepted: lambda _: [("loss", "ledger")],
    Unused: lambda data: _named(ignored=data.event_id),
}


def _named(**keys: str | None) -> list[tuple[str, str]]:
    """The (kind, key) of the keys that there are."""
    return [(kind, key) for kind, key in keys.items() if key]


def subjects(event: Event) -> list[str]:
    """The names of the histories that an event belongs to: "invoice|stripe||in_1", "payment|stripe||pi_1".

    A book is a function of one such history at a time. The processor and account are part of the
    name, since ids are unique only within them.
    """
    return [subject(kind, event, key) for kind, key in histories_of(event.data)]


def histories_of(data: Data) -> list[tuple[str, str]]:
    """The (kind, key) of the histories to which an event with this data belongs."""
    histories: list[tuple[str, str]] = _SUBJECTS[type(data)](data)
    return histories


def superseding_event(event: Event, by: str | None) -> Event:
    """The event which says that `event` no longer counts and is replaced by the event with the id `by`.

    Its id is made from the id of `event`, so that an event can be superseded only once.
    """
    data = Superseded(
        event_id=event.event_id,
        by=by,
        histories=tuple(histories_of(event.data)),
        customer_id=getattr(event.data, "customer_id", None),
    )
    return replace(event, event_id=event.event_id + SUPERSEDED_SUFFIX, rank=UPDATED, data=data, before=None)


def revision_id(event_id: str, number: int) -> str:
    """The id of an event's revision by its number: "evt_1·2" for 2. Number 1 is the event itself."""
    return f"{event_id}{REVISION_MARK}{number}" if number > 1 else event_id


def revision_number(event_id: str) -> int:
    """The number of a revision by its id: 2 for "evt_1·2", 1 for "evt_1"; 0 for the id of anything else."""
    number = event_id.partition(REVISION_MARK)[2]
    return int(number) if number.isdecimal() and len(number) < 10 else int(REVISION_MARK not in event_id)


def named_id(event_id: str) -> str:
    """The id by which people and reads name an event: of a revision that of the event itself."""
    return original_id(event_id) if revision_number(event_id) else event_id


def original_id(event_id: str) -> str:
    """The id that the processor gave: "evt_1" for "evt_1·2"."""
    return event_id.partition(REVISION_MARK)[0]


def subject(kind: str, event: Event, key: str) -> str:
    """The name of one history, in the scope of an event's processor and account."""
    return join_key(kind, event.processor, event.account, key)


def join_key(*parts: str) -> str:
    """The parts joined as one name, "a|b|c"; different lists of parts make different names."""
    joined = "|".join(parts)
    if "%" not in joined and joined.count("|") == len(parts) - 1:
        return joined  # as almost always, and much cheaper
    return "|".join(part.replace("%", "%25").replace("|", "%7C") for part in parts)


def split_key(name: str) -> list[str]:
    """The parts of a name that `join_key` made."""
    return [part.replace("%7C", "|").replace("%25", "%") for part in name.split("|")]
