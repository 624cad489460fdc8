"""Prices and plans, with the taxes that they include, as items of a contract."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from msgspec import UNSET

from handlers.stripe import payloads
from handlers.stripe.fields import exact_amount, id_of, parse, readable
from service.core import events
from service.core.errors import Unreadable

Price = payloads.Price | payloads.Plan

_NO_TAX = events.Item(interval="month").inclusive_tax  # the default itself, which is left out of JSON


def stated_price(price: Any, plan: Any) -> Price | None:
    """The price of an item from its twins: `price`, unless only `plan` states amounts or can be read."""
    found: Price | None = readable(price, payloads.Price)
    if found is None or not _states_amounts(found):
        twin = readable(plan, payloads.Plan)
        if twin and (found is None or _states_amounts(twin)):
            found = twin
    return found


def unreadable_price(price: Any, plan: Any, path: str) -> Unreadable:
    """The error that neither twin at `path` can be read, naming the first field that can't be."""
    twins = ((price, payloads.Price, "price"), (plan, payloads.Plan, "plan"))
    for twin, shape, name in twins:
        if twin is not None:
            try:
                parse(twin, shape, f"{path}.{name}")
            except Unreadable as error:
                return error
    return Unreadable(f"Object missing required field `price` - at `{path}`")


def _states_amounts(price: Price) -> bool:
    return bool(price.tiers) or price.unit_amount is not None or price.unit_amount_decimal is not None


def priced_item(price: Price, currency: str | None, **fields: Any) -> events.Item:
    """An item of `price` in a contract of `currency`; `fields` are those that the price does not tell."""
    recurring = price if isinstance(price, payloads.Plan) else price.recurring
    if recurring is UNSET and price.type != "one_time":  # a deleted price: its id only
        return events.Item(interval="month", price_id=price.id, **fields)
    if not recurring or price.type == "one_time":
        recurring = None
    # A price in several currencies shows the amounts of its first one, perhaps not the contract's.
    is_in_currency = price.currency is None or currency in {None, price.currency}
    is_tiered = price.billing_scheme == "tiered"
    transform = price.transform_quantity
    return events.Item(
        interval=recurring.interval if recurring else "once",
        every=recurring.interval_count if recurring else 1,
        unit_amount=exact_amount(price.unit_amount_decimal, price.unit_amount)
        if is_in_currency and not is_tiered
        else None,
        price_id=price.id,
        product_id=id_of(price.product),
        metered=recurring is not None and recurring.usage_type == "metered",
        tiers=tuple(map(_tier, price.tiers or ())) if is_in_currency else (),
        tiers_mode=price.tiers_mode,
        divide_by=transform.divide_by if transform else None,
        divide_round=transform.round if transform else "up",
        **fields,
    )


def _tier(tier: payloads.Tier) -> events.Tier:
    return events.Tier(
        up_to=tier.up_to if isinstance(tier.up_to, int) else None,
        unit_amount=exact_amount(tier.unit_amount_decimal, tier.unit_amount) or Decimal(0),
        flat_amount=exact_amount(tier.flat_amount_decimal, tier.flat_amount) or Decimal(0),
    )


def inclusive_percent(rates: Sequence[str | payloads.TaxRate] | None) -> Decimal:
    """The percentages of tax that a price includes, of these rates."""
    inclusive = [rate for rate in rates or () if not isinstance(rate, str) and rate.inclusive]
    return sum(map(_percentage, inclusive), _NO_TAX)


def _percentage(rate: payloads.TaxRate) -> Decimal:
    stated = rate.percentage if rate.effective_percentage is None else rate.effective_percentage
    return Decimal(str(stated or 0))
