"""Limits on what the books can hold, whatever a payload claims: sums stay inside 64 bits, ids are text."""

from collections.abc import Iterator
from decimal import Decimal

from service.core.errors import Unreadable
from service.core.events import Data, Event, Invoice, Item, Subscription, subjects

AMOUNT = 10**12  # minor units of one event: ten billion dollars, and room to add up millions of them
_ID_BYTES = 600  # several stand together in an index, and PostgreSQL's takes 2,704
_HISTORIES = 1_000  # that one event belongs to
_FREE = ("name", "email")  # what people are called may hold anything
_FIELDS = ("amount", "amount_due", "amount_paid", "amount_remaining", "amount_refunded")


def check_limits(event: Event) -> Event:
    """The event itself; raises Unreadable if an amount is beyond any that is real, or an id is no text.

    A control character in an id or a status has no use; SQLite ends a text at the first NUL, and
    PostgreSQL takes none.
    """
    data = event.data
    told = (getattr(data, name) for name in data.__struct_fields__ if name not in _FREE)
    names = subjects(event)
    if len(names) > _HISTORIES:
        raise Unreadable("it belongs to more histories than any event")
    words = (
        event.event_id,
        event.account,
        *names,
        *(text for text in told if type(text) is str),
        *_parts(data),
    )
    if not all(word.isprintable() for word in words):
        raise Unreadable("an id holds a character that no id may hold")
    if any(len(word.encode()) > _ID_BYTES for word in (*_ids(event), *_parts(data))):
        raise Unreadable("an id is longer than any that is real")
    stated: list[int | Decimal] = [getattr(data, name, None) or 0 for name in _FIELDS]
    if isinstance(data, Subscription):
        stated.append(sum((_most(item) for item in data.items), Decimal(0)))
        discounts = [*data.discounts, *(discount for item in data.items for discount in item.discounts)]
        if not all(0 <= (discount.percent_off or 0) <= 100 for discount in discounts):
            raise Unreadable("a discount is not from 0 to 100 percent")
    if not all(-AMOUNT <= amount <= AMOUNT for amount in stated):
        raise Unreadable("an amount is beyond any that is real")
    return event


def _parts(data: Data) -> Iterator[str]:
    """The ids of what an invoice bills."""
    for line in data.lines if isinstance(data, Invoice) else ():
        yield from filter(None, (line.product_id, line.price_id))


def _ids(event: Event) -> Iterator[str]:
    yield from (event.event_id, event.account)
    for name in event.data.__struct_fields__:
        value = getattr(event.data, name)
        if name.endswith("_id") and value:
            yield value
        elif name == "payment_ids":
            yield from value


def _most(item: Item) -> Decimal:
    units = abs(item.unit_amount or Decimal(0))
    for tier in item.tiers:
        units += abs(tier.unit_amount) + abs(tier.flat_amount)
    return units * max(item.quantity, 1)
