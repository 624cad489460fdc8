"""Limits on the amounts and ids of events, so that sums stay within 64 bits and ids can be indexed."""

from collections.abc import Iterator
from decimal import Decimal

from service.core.errors import Unreadable
from service.core.events import (
    AppliedDiscount,
    Customer,
    Data,
    Discount,
    Event,
    Invoice,
    Item,
    Phase,
    Schedule,
    Subscription,
    subjects,
)

# In minor units: ten trillion dollars, or 600 million dollars in rupiah. Nine thousand such amounts fit into
# 64 bits; no real set of books adds up to so much.
MAX_AMOUNT = 10**15
_MAX_ID_BYTES = 600  # an index entry holds several ids, and PostgreSQL allows 2,704 bytes for it
_MAX_HISTORIES = 1_000  # per event
_FREE_TEXT_FIELDS = ("name", "email", "cancellation_comment")  # may hold any character
_AMOUNT_FIELDS = (
    "amount",
    "amount_due",
    "amount_paid",
    "amount_remaining",
    "amount_refunded",
    "amount_released",
    "amount_taken",
    "taxed_amount",
    "inclusive_tax",
)


def check_limits(event: Event) -> Event:
    """The event itself; raises Unreadable if an amount or id is out of the limits.

    Control characters are refused in ids and statuses: SQLite ends a text at the first NUL, and
    PostgreSQL stores no NUL at all.
    """
    data = event.data
    values = (getattr(data, name) for name in data.__struct_fields__ if name not in _FREE_TEXT_FIELDS)
    subject_names = subjects(event)
    if len(subject_names) > _MAX_HISTORIES:
        raise Unreadable("it belongs to more histories than any event")
    texts = (
        event.event_id,
        event.account,
        *subject_names,
        *(value for value in values if type(value) is str),
        *_line_ids(data),
    )
    if not all(text.isprintable() for text in texts):
        raise Unreadable("an id holds a character that no id may hold")
    if any(len(text.encode()) > _MAX_ID_BYTES for text in (*_own_ids(event), *_line_ids(data))):
        raise Unreadable("an id is longer than any that is real")
    _check_numbers(data)
    return event


def _check_numbers(data: Data) -> None:
    amounts: list[int | Decimal] = [getattr(data, name, None) or 0 for name in _AMOUNT_FIELDS]
    amounts += [amount or 0 for amount in getattr(data, "payment_amounts", ())]
    amounts += [item.amount for item in getattr(data, "billed", ())]
    for part in _priced_parts(data):
        amounts.append(sum((_largest_amount(item) for item in part.items), Decimal(0)))
        if not all(item.quantity >= 0 for item in part.items):
            raise Unreadable("a quantity is negative")
        if not all(0 <= item.inclusive_tax <= 100 for item in part.items):
            raise Unreadable("a tax is not from 0 to 100 percent")
    if not all(0 <= (discount.percent_off or 0) <= 100 for discount in _discounts(data)):
        raise Unreadable("a discount is not from 0 to 100 percent")
    if not all(-MAX_AMOUNT <= amount <= MAX_AMOUNT for amount in amounts):
        raise Unreadable("an amount is beyond any that is real")


def _line_ids(data: Data) -> Iterator[str]:
    """The ids in an invoice's lines."""
    if isinstance(data, Invoice):
        for line in data.lines:
            yield from filter(None, (line.product_id, line.price_id))
        for item in data.billed:
            yield from filter(None, (item.item_id, item.product_id, item.price_id))


def _own_ids(event: Event) -> Iterator[str]:
    yield from (event.event_id, event.account)
    for name in event.data.__struct_fields__:
        value = getattr(event.data, name)
        if name.endswith("_id") and value:
            yield value
        elif name == "payment_ids":
            yield from value


def _priced_parts(data: Data) -> tuple[Subscription | Phase, ...]:
    """The parts of an event's data that have items."""
    if isinstance(data, Schedule):
        return data.phases
    return (data,) if isinstance(data, Subscription) else ()


def _discounts(data: Data) -> Iterator[Discount]:
    if isinstance(data, AppliedDiscount):
        yield data.discount
    if isinstance(data, Customer):
        yield from data.discounts or ()
    for part in _priced_parts(data):
        yield from part.discounts
        for item in part.items:
            yield from item.discounts


def _largest_amount(item: Item) -> Decimal:
    minor_units = abs(item.unit_amount or Decimal(0))
    for tier in item.tiers:
        minor_units += abs(tier.unit_amount) + abs(tier.flat_amount)
    return minor_units * max(item.quantity, 1)
