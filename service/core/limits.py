"""Limits on what the books can hold: sums must stay inside 64 bits, whatever a payload claims."""

from decimal import Decimal

from service.core.errors import Unreadable
from service.core.events import Event, Item, Subscription

AMOUNT = 10**13  # minor units: a hundred billion dollars on one line
_FIELDS = ("amount", "amount_due", "amount_paid", "amount_remaining", "amount_refunded", "amount_off")


def check_amounts(event: Event) -> Event:
    """The event itself; raises Unreadable if one of its amounts is beyond any that is real."""
    data = event.data
    stated: list[int | Decimal] = [getattr(data, name, None) or 0 for name in _FIELDS]
    if isinstance(data, Subscription):
        stated += [_most(item) for item in data.items]
    if any(not -AMOUNT <= amount <= AMOUNT for amount in stated):
        raise Unreadable("an amount is beyond any that is real")
    return event


def _most(item: Item) -> Decimal:
    units = abs(item.unit_amount or Decimal(0))
    for tier in item.tiers:
        units += abs(tier.unit_amount) + abs(tier.flat_amount)
    return units * max(item.quantity, 1)
