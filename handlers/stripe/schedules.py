"""Subscription schedules: the changes of a contract that are to come."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from handlers.stripe import payloads
from handlers.stripe.discounts import coupon_discount, discount
from handlers.stripe.fields import customer_id, id_of, moment, optional_moment
from handlers.stripe.prices import inclusive_percent, priced_item, stated_price
from service.core import events
from service.core.events import Data


def schedule(payload: payloads.Schedule, _: str) -> Data:
    """A schedule with all its phases, those that are over among them.

    Once it is released, it names its subscription in another field.
    """
    return events.Schedule(
        schedule_id=payload.id,
        subscription_id=id_of(payload.subscription) or id_of(payload.released_subscription),
        customer_id=customer_id(payload),
        currency=next(filter(None, (phase.currency for phase in payload.phases)), None),
        status=payload.status,
        end_behavior=payload.end_behavior or "release",
        phases=tuple(map(_phase, payload.phases)),
    )


def _phase(phase: payloads.Phase) -> events.Phase:
    taxes = inclusive_percent(phase.default_tax_rates)
    coupons = [payloads.PhaseDiscount(coupon=phase.coupon)] if phase.coupon else []
    return events.Phase(
        starts_at=moment(phase.start_date),
        ends_at=optional_moment(phase.end_date),
        items=tuple(_item(item, phase, taxes) for item in phase.items or phase.plans or ()),
        discounts=_discounts(phase.discounts or coupons, phase),
        trial_end_at=optional_moment(phase.end_date if phase.trial else phase.trial_end),
    )


def _item(item: payloads.PhaseItem, phase: payloads.Phase, taxes: Decimal) -> events.Item:
    """An item of a phase; where its price is not expanded, its id alone. `taxes` are the phase's."""
    fields: dict[str, Any] = {
        "quantity": 1 if item.quantity is None else item.quantity,
        "discounts": _discounts(item.discounts or (), phase),
        "inclusive_tax": inclusive_percent(item.tax_rates) if item.tax_rates else taxes,
    }
    price = stated_price(item.price, item.plan)
    if price:
        return priced_item(price, phase.currency, **fields)
    return events.Item(interval="month", price_id=_price_id(item), **fields)


def _price_id(item: payloads.PhaseItem) -> str | None:
    for twin in (item.price, item.plan):
        key = twin.get("id") if isinstance(twin, dict) else twin
        if isinstance(key, str):
            return key
    return None


def _discounts(
    listed: Sequence[payloads.PhaseDiscount], phase: payloads.Phase
) -> tuple[events.Discount, ...]:
    return tuple(_discount(part, phase) for part in listed)


def _discount(stated: payloads.PhaseDiscount, phase: payloads.Phase) -> events.Discount:
    """A discount that is applied already, or one by a coupon that begins with the phase."""
    if stated.discount:
        return discount(stated.discount, phase.currency)
    if isinstance(stated.coupon, payloads.Coupon):
        return coupon_discount(stated.coupon, phase.currency, start=phase.start_date)
    return events.Discount()
