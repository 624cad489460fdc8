"""Discounts and their coupons: of contracts, of items, of customers, and by events of their own."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from handlers.stripe import payloads
from handlers.stripe.fields import customer_id, id_of, optional_moment, readable
from service.core import events
from service.core.cadence import add_months
from service.core.events import Data


def discounts(
    listed: Sequence[str | payloads.Discount] | None, twin: Any, currency: str
) -> tuple[events.Discount, ...]:
    """The discounts of a contract or item in `currency`: those listed, and the one in the older field.

    `twin` is that one; it may be listed by its id only.
    """
    stated = list(listed or ())
    expanded = readable(twin, str | payloads.Discount)  # type: ignore[arg-type]
    key = getattr(expanded, "id", expanded)
    keys = [part if isinstance(part, str) else part.id for part in stated]
    if expanded and stated and (key is None or key in keys):  # one of old has no id
        index = keys.index(key) if key in keys else 0
        stated[index] = expanded if isinstance(stated[index], str) else stated[index]
    elif expanded:
        stated.insert(0, expanded)
    elif twin is not None and not stated:
        stated = [payloads.Discount()]
    return tuple(discount(part, currency) for part in stated)


def customer_discounts(twin: Any) -> tuple[events.Discount, ...]:
    """The discounts in the field of a customer, which has one or null."""
    if twin is None:
        return ()
    return (discount(readable(twin, payloads.Discount) or payloads.Discount(), None),)


def applied_discount(payload: payloads.Discount, event_type: str) -> Data:
    """A discount by an event of its own.

    One off a single invoice or Checkout payment is off no contract. Where only an item is named its
    contract is not known; the contract lists the discount itself.
    """
    subscription_id, payer = id_of(payload.subscription), customer_id(payload)
    narrower = (payload.subscription_item, payload.invoice, payload.invoice_item, payload.checkout_session)
    if subscription_id is None and (payer is None or any(narrower)):
        return events.Unused(original_type=event_type, customer_id=payer)
    return events.AppliedDiscount(
        customer_id=payer,
        subscription_id=subscription_id,
        discount=discount(payload, None),
        deleted=event_type == "customer.discount.deleted",
    )


def discount(stated: str | payloads.Discount, currency: str | None) -> events.Discount:
    """One discount, with neither percentage nor amount where its coupon is an id or in another currency.

    Without `currency` its amount is in the coupon's own, and says so.
    """
    if isinstance(stated, str):
        return events.Discount(discount_id=stated)
    coupon = stated.coupon or (stated.source and stated.source.coupon)
    if not isinstance(coupon, payloads.Coupon):
        return events.Discount(
            discount_id=stated.id,
            starts_at=optional_moment(stated.start),
            ends_at=optional_moment(stated.end),
        )
    return coupon_discount(coupon, currency, discount_id=stated.id, start=stated.start, end=stated.end)


def coupon_discount(
    coupon: payloads.Coupon,
    currency: str | None,
    *,
    discount_id: str | None = None,
    start: int | None = None,
    end: int | None = None,
) -> events.Discount:
    """The discount by `coupon` from `start` on; times are Stripe's seconds."""
    percent, amount = coupon.percent_off, coupon.amount_off
    return events.Discount(
        discount_id=discount_id,
        percent_off=None if percent is None else Decimal(str(percent)),
        amount_off=amount if currency in {None, coupon.currency} else None,
        currency=coupon.currency if currency is None and amount is not None else None,
        duration=coupon.duration,
        starts_at=optional_moment(start),
        ends_at=_end(coupon, start, end),
        product_ids=coupon.applies_to.products if coupon.applies_to else (),
    )


def _end(coupon: payloads.Coupon, start: int | None, end: int | None) -> datetime | None:
    begun, months = optional_moment(start), coupon.duration_in_months
    if end is None and begun and months and coupon.duration == "repeating":
        return datetime.combine(add_months(begun.date(), months, begun.day), begun.timetz())
    return optional_moment(end)
