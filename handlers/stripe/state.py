"""Stripe's objects in the ledger's words. Pure; where a rule is not obvious, it says from where it is."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, overload

from msgspec import UNSET

from handlers.stripe import payloads
from service.core import events
from service.core.cadence import add_months
from service.core.errors import Unreadable
from service.core.events import Data

# Statuses that have a next bill. Without a period's end they are of a shape that we don't know.
_BILLED = {"active", "past_due", "trialing"}

# The descriptions that Stripe gives to the payments of its invoices. From basil on nothing else on a
# payment says so; the invoice names its payments, in an event of its own.
_FOR_INVOICE = {"Subscription creation", "Subscription update", "Payment for Invoice"}


class Reading(NamedTuple):
    """How the object of a type of event is read, and what then says it (the type is told, too)."""

    payload: type[payloads.Payload]
    say: Callable[[Any, str], Data]


def customer(told: payloads.Customer, kind: str) -> Data:
    """A customer."""
    return events.Customer(
        customer_id=told.id, name=told.name, email=told.email, deleted=kind == "customer.deleted"
    )


def product(told: payloads.Product, kind: str) -> Data:
    """A product."""
    return events.Product(product_id=told.id, name=told.name, deleted=kind == "product.deleted")


# Subscriptions


def subscription(told: payloads.Subscription, _: str) -> Data:
    """A subscription. Its next bill is the end of its period, or of its first item's to end."""
    listed = told.items.data if told.items else ()
    ends = [item.current_period_end for item in listed if item.current_period_end is not None]
    next_bill = told.current_period_end if told.current_period_end is not None else min(ends, default=None)
    if next_bill is None and told.status in _BILLED:
        raise Unreadable("Object missing required field `current_period_end` - at `$.data.object`")
    currency = _currency(told)
    cancel_at = next_bill if told.cancel_at is None and told.cancel_at_period_end else told.cancel_at
    return events.Subscription(
        subscription_id=told.id,
        customer_id=_id(told.customer),
        status=told.status,
        currency=currency,
        items=_items(told, currency),
        discounts=_discounts(told.discounts or (), told.discount, currency),
        next_bill_at=_moment(next_bill),
        trial_end_at=_moment(told.trial_end),
        anchor_at=_moment(told.billing_cycle_anchor),
        cancel_at=_moment(cancel_at),
        ended_at=_moment(told.ended_at),
        collection_paused=told.pause_collection is not None,
    )


def _currency(told: payloads.Subscription) -> str:
    """Its own, or in payloads from before it had one, its first price's."""
    items = told.items.data if told.items else ()
    prices = [told.plan, *(item.price or item.plan for item in items)]
    currency = told.currency or next((price.currency for price in prices if price), None)
    if currency is None:
        raise Unreadable("Object missing required field `currency` - at `$.data.object`")
    return currency


def _items(told: payloads.Subscription, currency: str) -> tuple[events.Item, ...]:
    if told.items and told.items.data:
        items = tuple(_item(item, currency) for item in told.items.data)
        return (*items, _UNSEEN) if told.items.has_more else items
    if told.plan:  # from before a subscription could have several
        return (_item(payloads.Item(plan=told.plan, quantity=told.quantity), currency),)
    raise Unreadable("Object missing required field `items` - at `$.data.object`")


# Stands for the items that a list leaves out, so that a subscription of more shows as not fully priced.
_UNSEEN = events.Item(interval="month")


def _item(told: payloads.Item, currency: str) -> events.Item:
    price = told.price or told.plan
    if price is None:
        raise Unreadable("Object missing required field `price` - at `$.data.object.items.data[...]`")
    recurring = price if isinstance(price, payloads.Plan) else price.recurring
    if price.type == "one_time":
        recurring = None
    # A price in several currencies shows the amounts of its first, which need not be the subscription's.
    shown = price.currency in {None, currency}
    tiered = price.billing_scheme == "tiered"
    transform = price.transform_quantity
    return events.Item(
        interval=recurring.interval if recurring else "once",
        every=recurring.interval_count if recurring else 1,
        quantity=1 if told.quantity is None else told.quantity,
        unit_amount=_exact(price.unit_amount_decimal, price.unit_amount) if shown and not tiered else None,
        price_id=price.id,
        product_id=_id(price.product),
        metered=recurring is not None and recurring.usage_type == "metered",
        tiers=tuple(map(_tier, price.tiers or ())) if shown else (),
        tiers_mode=price.tiers_mode,
        divide_by=transform.divide_by if transform else None,
        divide_round=transform.round if transform else "up",
        discounts=_discounts(told.discounts or (), None, currency),
    )


def _tier(told: payloads.Tier) -> events.Tier:
    return events.Tier(
        up_to=told.up_to if isinstance(told.up_to, int) else None,
        unit_amount=_exact(told.unit_amount_decimal, told.unit_amount) or Decimal(0),
        flat_amount=_exact(told.flat_amount_decimal, told.flat_amount) or Decimal(0),
    )


def _discounts(
    listed: Sequence[str | payloads.Discount], single: payloads.Discount | None, currency: str
) -> tuple[events.Discount, ...]:
    """The discounts in a list, where `single` is one of them that is told in full beside it."""
    told = list(listed)
    if single:
        ids = [discount if isinstance(discount, str) else discount.id for discount in told]
        place = ids.index(single.id) if single.id in ids else 0
        told[place : place + 1] = [single]
    return tuple(_discount(discount, currency) for discount in told)


def _discount(told: str | payloads.Discount, currency: str) -> events.Discount:
    if isinstance(told, str):
        return events.Discount()
    coupon = told.coupon or (told.source and told.source.coupon)
    if not isinstance(coupon, payloads.Coupon):
        return events.Discount(ends_at=_moment(told.end))
    shown = coupon.amount_off is None or coupon.currency == currency
    percent = coupon.percent_off
    return events.Discount(
        percent_off=None if percent is None else Decimal(str(percent)),
        amount_off=coupon.amount_off if shown else None,
        duration=coupon.duration,
        ends_at=_discount_end(told, coupon),
    )


def _discount_end(told: payloads.Discount, coupon: payloads.Coupon) -> datetime | None:
    start, months = _moment(told.start), coupon.duration_in_months
    if told.end is None and start and months and coupon.duration == "repeating":
        return datetime.combine(add_months(start.date(), months, start.day), start.timetz())
    return _moment(told.end)


# Invoices


def invoice(told: payloads.Invoice, kind: str) -> Data:
    """An invoice, and what settles it."""
    payments = told.payments.data if told.payments else ()
    paying = [told, *(payment.payment for payment in payments if payment.status != "canceled")]
    changed = told.status_transitions
    details = told.parent.subscription_details if told.parent else None
    return events.Invoice(
        invoice_id=told.id,
        status="deleted" if kind == "invoice.deleted" else told.status or "draft",
        currency=told.currency,
        amount_due=told.amount_due,
        amount_paid=told.amount_paid,
        amount_remaining=told.amount_remaining,
        customer_id=_id(told.customer),
        subscription_id=_id(told.subscription) or (_id(details.subscription) if details else None),
        created_at=moment(told.created),
        finalized_at=_moment(changed.finalized_at) if changed else None,
        paid_at=_moment(changed.paid_at) if changed else None,
        payment_failed=kind == "invoice.payment_failed",
        payment_ids=tuple(dict.fromkeys(key for key in map(_payment_key, paying) if key)),
        lines=_lines(told.lines, told.subtotal) if told.lines else (),
    )


def _lines(told: payloads.Lines, subtotal: int | None) -> tuple[events.InvoiceLine, ...]:
    """The lines; those that a list leaves out are one without a product, so that no other stands for them."""
    lines = tuple(_line(line) for line in told.data)
    if not told.has_more:
        return lines
    seen = sum(line.amount for line in lines)
    return (*lines, events.InvoiceLine(amount=subtotal - seen)) if subtotal is not None else ()


def _line(told: payloads.Line) -> events.InvoiceLine:
    details = told.pricing.price_details if told.pricing else None
    priced = [part for part in (told.price, told.plan) if part]
    prices = [details.price if details else None, *priced]
    products = [details.product if details else None, *(part.product for part in priced)]
    names = [
        *(product.name for product in products if isinstance(product, payloads.Product)),
        *(price.nickname for price in prices if isinstance(price, payloads.Named)),
    ]
    return events.InvoiceLine(
        amount=told.amount,
        product_id=next(filter(None, map(_id, products)), None),
        price_id=next(filter(None, map(_id, prices)), None),
        product_name=next(filter(None, names), None),
    )


def invoice_payment(told: payloads.InvoicePayment, _: str) -> Data:
    """A payment of an invoice."""
    key = _payment_key(told.payment)
    if key is None:
        raise Unreadable("Object missing required field `payment_intent` - at `$.data.object.payment`")
    return events.InvoicePayment(invoice_id=_id(told.invoice), payment_id=key)


def credit_note(told: payloads.CreditNote, _: str) -> Data:
    """A credit note."""
    return events.CreditNote(
        credit_note_id=told.id, invoice_id=_id(told.invoice), currency=told.currency, amount=told.amount
    )


# Payments


def charge(told: payloads.Charge, kind: str) -> Data:
    """A payment as its charge tells. A refund comes later than the payment, and says when that was."""
    captured = told.amount_captured if told.captured else None
    held = told.status == "succeeded" and told.captured is False  # authorised: no money has moved
    return _payment(
        told,
        payment_id=_id(told.payment_intent) or told.id,
        status="pending" if held else told.status,
        amount=told.amount if captured is None else captured,
        amount_refunded=told.amount_refunded,
        paid_at=moment(told.created) if kind == "charge.refunded" else None,
    )


def payment_intent(told: payloads.PaymentIntent, kind: str) -> Data:
    """A payment as its intent tells."""
    failed = kind == "payment_intent.payment_failed"
    return _payment(
        told,
        payment_id=told.id,
        status="failed" if failed else "succeeded",
        amount=told.amount if failed else told.amount_received,
    )


def _payment(told: payloads.Payment, **its: Any) -> events.Payment:
    details = told.payment_details
    order = details.order_reference if details else None
    if told.invoice is not UNSET:
        named, own = _id(told.invoice), False
    elif order and order.startswith("in_"):
        named, own = order, False
    else:
        named, own = None, told.description in _FOR_INVOICE
    return events.Payment(
        currency=told.currency, customer_id=_id(told.customer), invoice_id=named, for_invoice=own, **its
    )


def refund(told: payloads.Refund, _: str) -> Data:
    """A refund."""
    return events.Refund(
        refund_id=told.id,
        status=told.status,
        currency=told.currency,
        amount=told.amount,
        created_at=moment(told.created),
        payment_id=_payment_key(told),
        customer_id=_id(told.customer),
    )


def dispute(told: payloads.Dispute, _: str) -> Data:
    """A dispute."""
    return events.Dispute(
        dispute_id=told.id,
        status=told.status,
        currency=told.currency,
        amount=told.amount,
        payment_id=_payment_key(told),
    )


# Fields


def moment(seconds: int) -> datetime:
    """Stripe's seconds since 1970 in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def _exact(decimal: str | None, whole: int | None) -> Decimal | None:
    told = whole if decimal is None else decimal
    return None if told is None else Decimal(told)


@overload
def _id(told: str | payloads.Expanded) -> str: ...
@overload
def _id(told: str | payloads.Expanded | None) -> str | None: ...
def _id(told: str | payloads.Expanded | None) -> str | None:
    """The id of what a field names, whether by its id or as an object."""
    return told.id if isinstance(told, payloads.Expanded) else told


def _payment_key(told: payloads.Paying) -> str | None:
    """The one id under which all tellings of a payment meet."""
    return _id(told.payment_intent) or _id(told.charge) or _id(told.payment_record)
