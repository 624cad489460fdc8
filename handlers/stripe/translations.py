"""Stripe's objects as event data of the ledger. Pure; a rule that is not obvious names its source."""

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

# Statuses that have a next bill. A payload with one of them and no period end has an unknown shape.
_BILLED = {"active", "past_due", "trialing"}

# The descriptions that Stripe gives to the payments of its invoices. From basil on nothing else in a
# payment shows that it pays an invoice; the invoice names its payments, in an event of its own.
_FOR_INVOICE = {"Subscription creation", "Subscription update", "Payment for Invoice"}


class ObjectTranslation(NamedTuple):
    """The struct in which an event's object is parsed, and the function that translates it.

    `translate` takes the parsed object and the type of the event.
    """

    payload: type[payloads.Payload]
    translate: Callable[[Any, str], Data]


def customer(payload: payloads.Customer, event_type: str) -> Data:
    """A customer."""
    return events.Customer(
        customer_id=payload.id,
        name=payload.name,
        email=payload.email,
        deleted=event_type == "customer.deleted",
    )


def product(payload: payloads.Product, event_type: str) -> Data:
    """A product."""
    return events.Product(product_id=payload.id, name=payload.name, deleted=event_type == "product.deleted")


# Subscriptions


def subscription(payload: payloads.Subscription, _: str) -> Data:
    """A subscription. Its next bill is at the end of its period, or at the first period end of its items."""
    listed = payload.items.data if payload.items else ()
    ends = [item.current_period_end for item in listed if item.current_period_end is not None]
    next_bill = (
        payload.current_period_end if payload.current_period_end is not None else min(ends, default=None)
    )
    if next_bill is None and payload.status in _BILLED:
        raise Unreadable("Object missing required field `current_period_end` - at `$.data.object`")
    currency = _currency(payload)
    cancel_at = next_bill if payload.cancel_at is None and payload.cancel_at_period_end else payload.cancel_at
    return events.Subscription(
        subscription_id=payload.id,
        customer_id=_id(payload.customer),
        status=payload.status,
        currency=currency,
        items=_items(payload, currency),
        discounts=_discounts(payload.discounts or (), payload.discount, currency),
        next_bill_at=_moment(next_bill),
        trial_end_at=_moment(payload.trial_end),
        anchor_at=_moment(payload.billing_cycle_anchor),
        cancel_at=_moment(cancel_at),
        ended_at=_moment(payload.ended_at),
        collection_paused=payload.pause_collection is not None,
    )


def _currency(payload: payloads.Subscription) -> str:
    """The subscription's currency; that of its first price in old payloads, which have none."""
    items = payload.items.data if payload.items else ()
    prices = [payload.plan, *(item.price or item.plan for item in items)]
    currency = payload.currency or next((price.currency for price in prices if price), None)
    if currency is None:
        raise Unreadable("Object missing required field `currency` - at `$.data.object`")
    return currency


def _items(payload: payloads.Subscription, currency: str) -> tuple[events.Item, ...]:
    if payload.items and payload.items.data:
        items = tuple(_item(item, currency) for item in payload.items.data)
        return (*items, _UNLISTED_ITEM) if payload.items.has_more else items
    if payload.plan:  # an old payload: a subscription could have only one plan
        return (_item(payloads.SubscriptionItem(plan=payload.plan, quantity=payload.quantity), currency),)
    raise Unreadable("Object missing required field `items` - at `$.data.object`")


# Stands for the items beyond the first page of the list: it has no price, so the subscription shows as
# not fully priced.
_UNLISTED_ITEM = events.Item(interval="month")


def _item(item: payloads.SubscriptionItem, currency: str) -> events.Item:
    price = item.price or item.plan
    if price is None:
        raise Unreadable("Object missing required field `price` - at `$.data.object.items.data[...]`")
    recurring = price if isinstance(price, payloads.Plan) else price.recurring
    if price.type == "one_time":
        recurring = None
    # A price in several currencies shows the amounts of its first one, perhaps not the subscription's.
    is_in_currency = price.currency in {None, currency}
    is_tiered = price.billing_scheme == "tiered"
    transform = price.transform_quantity
    return events.Item(
        interval=recurring.interval if recurring else "once",
        every=recurring.interval_count if recurring else 1,
        quantity=1 if item.quantity is None else item.quantity,
        unit_amount=_exact_amount(price.unit_amount_decimal, price.unit_amount)
        if is_in_currency and not is_tiered
        else None,
        price_id=price.id,
        product_id=_id(price.product),
        metered=recurring is not None and recurring.usage_type == "metered",
        tiers=tuple(map(_tier, price.tiers or ())) if is_in_currency else (),
        tiers_mode=price.tiers_mode,
        divide_by=transform.divide_by if transform else None,
        divide_round=transform.round if transform else "up",
        discounts=_discounts(item.discounts or (), None, currency),
    )


def _tier(tier: payloads.Tier) -> events.Tier:
    return events.Tier(
        up_to=tier.up_to if isinstance(tier.up_to, int) else None,
        unit_amount=_exact_amount(tier.unit_amount_decimal, tier.unit_amount) or Decimal(0),
        flat_amount=_exact_amount(tier.flat_amount_decimal, tier.flat_amount) or Decimal(0),
    )


def _discounts(
    listed: Sequence[str | payloads.Discount], expanded: payloads.Discount | None, currency: str
) -> tuple[events.Discount, ...]:
    """The listed discounts; `expanded` replaces the one with its id, which may be listed by its id only."""
    discounts = list(listed)
    if expanded:
        ids = [discount if isinstance(discount, str) else discount.id for discount in discounts]
        index = ids.index(expanded.id) if expanded.id in ids else 0
        discounts[index : index + 1] = [expanded]
    return tuple(_discount(discount, currency) for discount in discounts)


def _discount(discount: str | payloads.Discount, currency: str) -> events.Discount:
    if isinstance(discount, str):
        return events.Discount()
    coupon = discount.coupon or (discount.source and discount.source.coupon)
    if not isinstance(coupon, payloads.Coupon):
        return events.Discount(ends_at=_moment(discount.end))
    is_in_currency = coupon.amount_off is None or coupon.currency == currency
    percent = coupon.percent_off
    return events.Discount(
        percent_off=None if percent is None else Decimal(str(percent)),
        amount_off=coupon.amount_off if is_in_currency else None,
        duration=coupon.duration,
        ends_at=_discount_end(discount, coupon),
    )


def _discount_end(discount: payloads.Discount, coupon: payloads.Coupon) -> datetime | None:
    start, months = _moment(discount.start), coupon.duration_in_months
    if discount.end is None and start and months and coupon.duration == "repeating":
        return datetime.combine(add_months(start.date(), months, start.day), start.timetz())
    return _moment(discount.end)


# Invoices


def invoice(payload: payloads.Invoice, event_type: str) -> Data:
    """An invoice with the payments that settle it."""
    payments = payload.payments.data if payload.payments else ()
    references = [payload, *(payment.payment for payment in payments if payment.status != "canceled")]
    transitions = payload.status_transitions
    details = payload.parent.subscription_details if payload.parent else None
    return events.Invoice(
        invoice_id=payload.id,
        status="deleted" if event_type == "invoice.deleted" else payload.status or "draft",
        currency=payload.currency,
        amount_due=payload.amount_due,
        amount_paid=payload.amount_paid,
        amount_remaining=payload.amount_remaining,
        customer_id=_id(payload.customer),
        subscription_id=_id(payload.subscription) or (_id(details.subscription) if details else None),
        created_at=moment(payload.created),
        finalized_at=_moment(transitions.finalized_at) if transitions else None,
        paid_at=_moment(transitions.paid_at) if transitions else None,
        payment_failed=event_type == "invoice.payment_failed",
        payment_ids=tuple(dict.fromkeys(filter(None, map(_payment_id, references)))),
        lines=_lines(payload.lines, payload.subtotal) if payload.lines else (),
    )


def _lines(lines: payloads.InvoiceLines, subtotal: int | None) -> tuple[events.InvoiceLine, ...]:
    """The lines. Those beyond the first page of the list become one line without a product.

    Otherwise their amount would be counted as revenue of the listed products.
    """
    listed = tuple(_line(line) for line in lines.data)
    if not lines.has_more:
        return listed
    listed_total = sum(line.amount for line in listed)
    return (*listed, events.InvoiceLine(amount=subtotal - listed_total)) if subtotal is not None else ()


def _line(line: payloads.InvoiceLine) -> events.InvoiceLine:
    details = line.pricing.price_details if line.pricing else None
    priced = [part for part in (line.price, line.plan) if part]
    prices = [details.price if details else None, *priced]
    products = [details.product if details else None, *(part.product for part in priced)]
    names = [
        *(product.name for product in products if isinstance(product, payloads.Product)),
        *(price.nickname for price in prices if isinstance(price, payloads.NamedPrice)),
    ]
    return events.InvoiceLine(
        amount=line.amount,
        product_id=next(filter(None, map(_id, products)), None),
        price_id=next(filter(None, map(_id, prices)), None),
        product_name=next(filter(None, names), None),
    )


def invoice_payment(payload: payloads.InvoicePayment, _: str) -> Data:
    """A payment of an invoice."""
    payment_id = _payment_id(payload.payment)
    if payment_id is None:
        raise Unreadable("Object missing required field `payment_intent` - at `$.data.object.payment`")
    return events.InvoicePayment(invoice_id=_id(payload.invoice), payment_id=payment_id)


def credit_note(payload: payloads.CreditNote, _: str) -> Data:
    """A credit note."""
    return events.CreditNote(
        credit_note_id=payload.id,
        invoice_id=_id(payload.invoice),
        currency=payload.currency,
        amount=payload.amount,
    )


# Payments


def charge(payload: payloads.Charge, event_type: str) -> Data:
    """The state of a payment from its charge. A `charge.refunded` event also tells when it was paid."""
    captured = payload.amount_captured if payload.captured else None
    is_only_authorized = payload.status == "succeeded" and payload.captured is False  # no money has moved
    return _payment(
        payload,
        payment_id=_id(payload.payment_intent) or payload.id,
        status="pending" if is_only_authorized else payload.status,
        amount=payload.amount if captured is None else captured,
        amount_refunded=payload.amount_refunded,
        paid_at=moment(payload.created) if event_type == "charge.refunded" else None,
    )


def payment_intent(payload: payloads.PaymentIntent, event_type: str) -> Data:
    """The state of a payment from its payment intent."""
    failed = event_type == "payment_intent.payment_failed"
    return _payment(
        payload,
        payment_id=payload.id,
        status="failed" if failed else "succeeded",
        amount=payload.amount if failed else payload.amount_received,
    )


def _payment(payload: payloads.Payment, **fields: Any) -> events.Payment:
    details = payload.payment_details
    order = details.order_reference if details else None
    if payload.invoice is not UNSET:
        invoice_id, for_invoice = _id(payload.invoice), False
    elif order and order.startswith("in_"):
        invoice_id, for_invoice = order, False
    else:
        invoice_id, for_invoice = None, payload.description in _FOR_INVOICE
    return events.Payment(
        currency=payload.currency,
        customer_id=_id(payload.customer),
        invoice_id=invoice_id,
        for_invoice=for_invoice,
        **fields,
    )


def refund(payload: payloads.Refund, _: str) -> Data:
    """A refund."""
    return events.Refund(
        refund_id=payload.id,
        status=payload.status,
        currency=payload.currency,
        amount=payload.amount,
        created_at=moment(payload.created),
        payment_id=_payment_id(payload),
        customer_id=_id(payload.customer),
    )


def dispute(payload: payloads.Dispute, _: str) -> Data:
    """A dispute."""
    return events.Dispute(
        dispute_id=payload.id,
        status=payload.status,
        currency=payload.currency,
        amount=payload.amount,
        payment_id=_payment_id(payload),
    )


# Fields


def moment(seconds: int) -> datetime:
    """The moment, in UTC, of Stripe's seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def _exact_amount(decimal: str | None, whole: int | None) -> Decimal | None:
    amount = whole if decimal is None else decimal
    return None if amount is None else Decimal(amount)


@overload
def _id(reference: str | payloads.Expanded) -> str: ...
@overload
def _id(reference: str | payloads.Expanded | None) -> str | None: ...
def _id(reference: str | payloads.Expanded | None) -> str | None:
    """The id in a field that holds either an id or the expanded object."""
    return reference.id if isinstance(reference, payloads.Expanded) else reference


def _payment_id(payload: payloads.PaymentReference) -> str | None:
    """The id that all events about one payment share: of its intent, else its charge, else its record."""
    return _id(payload.payment_intent) or _id(payload.charge) or _id(payload.payment_record)
