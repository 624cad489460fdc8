"""Limits on what an event may hold: sums stay within 64 bits, ids can be indexed, and no fold takes long."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cache
from typing import NamedTuple

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


_Parts = Sequence[Subscription | Phase]


class _Shape(NamedTuple):
    """The fields of one type of data that have limits."""

    lists: list[tuple[str, str, int]]  # each field, what it holds, and how many there may be
    texts: list[str]  # what else than names and comments may be text
    ids: list[str]
    amounts: list[str]


@cache
def _shape_of(kind: type[Data]) -> _Shape:
    names = kind.__struct_fields__
    return _Shape(
        lists=[(name, *_LISTS[name]) for name in names if name in _LISTS],
        texts=[name for name in names if name not in _FREE_TEXT_FIELDS],
        ids=[name for name in names if name.endswith("_id")],
        amounts=[name for name in names if name in _AMOUNT_FIELDS],
    )


def check_limits(event: Event) -> Event:
    """The event itself; raises Unreadable if an amount or id is out of the limits, or a list too long.

    Control characters are refused in ids and statuses: SQLite ends a text at the first NUL, and
    PostgreSQL stores no NUL at all.
    """
    data, names = event.data, subjects(event)
    shape, parts, discounts = _shape_of(type(data)), _priced_parts(data), list(_discounts(data))
    _check_counts(data, shape, parts, discounts)
    if len(names) > _MAX_HISTORIES:
        raise Unreadable("it belongs to more histories than any event")
    line_ids = _line_ids(data) if isinstance(data, Invoice) else []
    values = [getattr(data, name) for name in shape.texts]
    own_texts = [value for value in values if type(value) is str]
    if not "".join((event.event_id, event.account, *names, *own_texts, *line_ids)).isprintable():
        raise Unreadable("an id holds a character that no id may hold")
    own_ids = [getattr(data, name) or "" for name in shape.ids]
    ids = (event.event_id, event.account, *own_ids, *getattr(data, "payment_ids", ()), *line_ids)
    if any(len(text) > _MAX_ID_BYTES // 4 and len(text.encode()) > _MAX_ID_BYTES for text in ids):
        raise Unreadable("an id is longer than any that is real")
    _check_numbers(data, shape, parts, discounts)
    return event


def _check_counts(data: Data, shape: _Shape, parts: _Parts, discounts: Sequence[Discount]) -> None:
    """Raise Unreadable if the data holds too much of something."""
    for name, what, most in shape.lists:
        _check_count(what, len(getattr(data, name)), most)
    if isinstance(data, Invoice):
        ending = sum(len(item.ending_discounts) for item in data.billed)
        _check_count("ending discounts", ending, _MAX_DISCOUNTS)
    items = [item for part in parts for item in part.items]
    _check_count("items", len(items), _MAX_ITEMS)
    _check_count("price tiers", sum(len(item.tiers) for item in items), _MAX_TIERS)
    if discounts:
        lists = [(getattr(data, "discounts", None) or ()), *(each.discounts for each in (*parts, *items))]
        _check_count("discounts", len(discounts), _MAX_DISCOUNTS)
        _check_count("discounts in one place", max(map(len, lists)), _MAX_DISCOUNTS_OF_ONE)
        products = sum(len(each.product_ids) for each in discounts)
        _check_count("discounted products", products, _MAX_DISCOUNTED_PRODUCTS)


def _check_count(what: str, count: int, most: int) -> None:
    if count > most:
        raise Unreadable(f"it has {count} {what}, and none that is real has more than {most}")


_LISTS = {  # by field: what it holds, and how many there may be
    "phases": ("phases", _MAX_PHASES),
    "lines": ("lines", _MAX_LINES),
    "billed": ("billed items", _MAX_BILLED_ITEMS),
    "periods": ("periods", _MAX_PERIODS),
    "payment_ids": ("payments", _MAX_PAYMENTS),
    "payment_amounts": ("amounts of payments", _MAX_PAYMENTS),
}


def _check_numbers(data: Data, shape: _Shape, parts: _Parts, discounts: Sequence[Discount]) -> None:
    amounts: list[int | Decimal] = [getattr(data, name) or 0 for name in shape.amounts]
    if isinstance(data, Invoice):
        amounts += [amount or 0 for amount in data.payment_amounts]
        for billed in data.billed:
            amounts += [billed.amount, *(discount.amount for discount in billed.ending_discounts)]
    for part in parts:
        amounts.append(sum((_largest_amount(item) * _times_a_month(item) for item in part.items), Decimal(0)))
        if not all(item.quantity >= 0 for item in part.items):
            raise Unreadable("a quantity is negative")
        if not all(0 <= item.inclusive_tax <= 100 for item in part.items):
            raise Unreadable("a tax is not from 0 to 100 percent")
    if not all(0 <= (discount.percent_off or 0) <= 100 for discount in discounts):
        raise Unreadable("a discount is not from 0 to 100 percent")
    if not all(-MAX_AMOUNT <= amount <= MAX_AMOUNT for amount in amounts):
        raise Unreadable("an amount is beyond any that is real")


def _line_ids(data: Invoice) -> list[str]:
    """The ids in an invoice's lines."""
    ids = [text for line in data.lines for text in (line.product_id, line.price_id)]
    ids += [text for item in data.billed for text in (item.item_id, item.product_id, item.price_id)]
    return [text for text in ids if text]


def _priced_parts(data: Data) -> _Parts:
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
