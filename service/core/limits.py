"""Limits on what an event may hold: sums stay within 64 bits, ids can be indexed, and no fold takes long."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from msgspec.structs import asdict

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

# In minor units: ten trillion dollars, or 600 million dollars in rupiah. Four thousand such amounts fit into
# a book; no real set of books adds up to so much.
MAX_AMOUNT = 10**15
_MAX_ID_BYTES = 600  # an index entry holds several ids, and PostgreSQL allows 2,704 bytes for it
_MAX_HISTORIES = 1_000  # per event
# How many parts one object may hold. Stripe allows a subscription 20 items and 20 discounts, each item 20
# discounts more, a schedule 10 phases that are not over, and an invoice 250 lines that are added by hand.
_MAX_ITEMS = 500  # of a contract, or of all phases of a schedule
_MAX_DISCOUNTS = 500  # of all items together with those of the contract
_MAX_DISCOUNTS_OF_ONE = 50  # of a contract, a customer, a phase or an item
_MAX_DISCOUNTED_PRODUCTS = 5_000  # of all discounts
_MAX_TIERS = 1_000  # of all items
_MAX_PHASES = 100
_MAX_LINES = 5_000  # of an invoice
_MAX_BILLED_ITEMS = 1_000  # of an invoice
_MAX_PERIODS = 1_000  # that an invoice bills
_MAX_PAYMENTS = 1_000  # that settle an invoice
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
    """The event itself; raises Unreadable if an amount or id is out of the limits, or a list too long.

    Control characters are refused in ids and statuses: SQLite ends a text at the first NUL, and
    PostgreSQL stores no NUL at all.
    """
    data = event.data
    fields = asdict(data)
    for what, count, most in _counts(data, fields):
        if count > most:
            raise Unreadable(f"it has {count} {what}, and none that is real has more than {most}")
    names = subjects(event)
    if len(names) > _MAX_HISTORIES:
        raise Unreadable("it belongs to more histories than any event")
    line_ids = list(_line_ids(data))
    own_texts = [text for name, text in fields.items() if type(text) is str and name not in _FREE_TEXT_FIELDS]
    if not "".join((event.event_id, event.account, *names, *own_texts, *line_ids)).isprintable():
        raise Unreadable("an id holds a character that no id may hold")
    own_ids = [text for name, text in fields.items() if name.endswith("_id") and text]
    ids = (event.event_id, event.account, *own_ids, *fields.get("payment_ids", ()), *line_ids)
    if any(len(text.encode()) > _MAX_ID_BYTES for text in ids):
        raise Unreadable("an id is longer than any that is real")
    _check_numbers(data, fields)
    return event


def _counts(data: Data, fields: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """What the data holds in lists: the name, how many, and how many there may be."""
    for name, (what, most) in _LISTS.items():
        yield what, len(fields.get(name, ())), most
    ending = sum(len(item.ending_discounts) for item in fields.get("billed", ()))
    yield "ending discounts", ending, _MAX_DISCOUNTS
    if not isinstance(data, _PRICED):
        return
    parts = _priced_parts(data)
    items = [item for part in parts for item in part.items]
    all_discounts = list(_discounts(data))
    lists = [(getattr(data, "discounts", None) or ()), *(each.discounts for each in (*parts, *items))]
    yield "items", len(items), _MAX_ITEMS
    yield "discounts", len(all_discounts), _MAX_DISCOUNTS
    yield "discounts in one place", max(map(len, lists)), _MAX_DISCOUNTS_OF_ONE
    yield (
        "discounted products",
        sum(len(each.product_ids) for each in all_discounts),
        _MAX_DISCOUNTED_PRODUCTS,
    )
    yield "price tiers", sum(len(item.tiers) for item in items), _MAX_TIERS


_PRICED = (AppliedDiscount, Customer, Schedule, Subscription)  # what may hold items or discounts
_LISTS = {  # by field: what it holds, and how many there may be
    "phases": ("phases", _MAX_PHASES),
    "lines": ("lines", _MAX_LINES),
    "billed": ("billed items", _MAX_BILLED_ITEMS),
    "periods": ("periods", _MAX_PERIODS),
    "payment_ids": ("payments", _MAX_PAYMENTS),
    "payment_amounts": ("amounts of payments", _MAX_PAYMENTS),
}


def _check_numbers(data: Data, fields: dict[str, Any]) -> None:
    amounts: list[int | Decimal] = [fields.get(name) or 0 for name in _AMOUNT_FIELDS]
    amounts += [amount or 0 for amount in fields.get("payment_amounts", ())]
    for item in fields.get("billed", ()):
        amounts += [item.amount, *(discount.amount for discount in item.ending_discounts)]
    for part in _priced_parts(data):
        amounts.append(sum((_largest_amount(item) * _times_a_month(item) for item in part.items), Decimal(0)))
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


def _times_a_month(item: Item) -> int:
    """How often an item is billed in a month at most, as a factor of what it adds to MRR."""
    return {"day": 31, "week": 5}.get(item.interval or "", 1)
