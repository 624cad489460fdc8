"""Invoice lines: what each names, and the items of a contract that they bill for whole periods."""

from collections.abc import Iterable
from typing import Any

from handlers.stripe import payloads
from handlers.stripe.fields import id_of, moment, readable
from handlers.stripe.prices import Price, stated_price
from service.core import events


def is_recurring(line: payloads.InvoiceLine) -> bool:
    """Whether a line bills an item of a subscription for a period, and no part of one."""
    details = line.parent.subscription_item_details if line.parent else None
    if details:
        return not details.proration
    return line.type == "subscription" and not line.proration


def inclusive_taxes(line: payloads.InvoiceLine) -> list[int]:
    """The amounts of tax that a line's price includes."""
    taxes = line.taxes or line.tax_amounts or ()
    return [tax.amount for tax in taxes if tax.inclusive or tax.tax_behavior == "inclusive"]


def named_prices(line: payloads.InvoiceLine) -> list[payloads.Reference | None]:
    """The price of a line, wherever it names it."""
    details = line.pricing.price_details if line.pricing else None
    return [details.price if details else None, *_twins(line)]


def named_products(line: payloads.InvoiceLine) -> list[payloads.Reference | None]:
    """The product of a line, wherever it names it."""
    details = line.pricing.price_details if line.pricing else None
    return [details.product if details else None, *(price.product for price in _twins(line))]


def _twins(line: payloads.InvoiceLine) -> list[payloads.NamedPrice]:
    return [price for twin in (line.price, line.plan) if (price := readable(twin, payloads.NamedPrice))]


def first_id(references: Iterable[payloads.Reference | None]) -> str | None:
    """The id of the first of them that there is."""
    return next(filter(None, map(id_of, references)), None)


# Items that are billed for whole periods


def billed_items(payload: payloads.Invoice) -> tuple[events.BilledItem, ...]:
    """The contract's items that an invoice bills for whole periods, but for those that say they are metered.

    What a discount of the duration "once" took off is added again.
    """
    durations = _durations(payload)
    billed = (
        _billed_item(line, durations)
        for line in (payload.lines.data if payload.lines else ())
        if is_recurring(line)
    )
    return tuple(item for item in billed if item)


def _billed_item(line: payloads.InvoiceLine, durations: dict[str, str]) -> events.BilledItem | None:
    period, price = readable(line.period, payloads.LinePeriod), stated_price(line.price, line.plan)
    recurring = price if isinstance(price, payloads.Plan) else _recurring(price)
    if period is None or period.start >= period.end or (recurring and recurring.usage_type == "metered"):
        return None
    details = line.parent.subscription_item_details if line.parent else None
    return events.BilledItem(
        starts_at=moment(period.start),
        ends_at=moment(period.end),
        amount=line.amount - _lasting_discounts(line, durations) - sum(inclusive_taxes(line)),
        interval=recurring.interval if recurring else None,
        every=recurring.interval_count if recurring else 1,
        item_id=(details.subscription_item if details else None) or line.subscription_item or None,
        price_id=first_id(named_prices(line)),
        product_id=first_id(named_products(line)),
    )


def _recurring(price: Price | None) -> payloads.Recurring | None:
    return price.recurring if price and isinstance(price.recurring, payloads.Recurring) else None


def _lasting_discounts(line: payloads.InvoiceLine, durations: dict[str, str]) -> int:
    return sum(
        discount.amount
        for discount in line.discount_amounts or ()
        if durations.get(_discount_id(discount.discount) or "") != "once"
    )


def _durations(payload: payloads.Invoice) -> dict[str, str]:
    """How long each discount lasts of which the invoice shows more than the id."""
    listed = payload.discounts if isinstance(payload.discounts, list) else ()
    lines = payload.lines.data if payload.lines else ()
    shown = [
        payload.discount,
        *listed,
        *(part.discount for line in lines for part in line.discount_amounts or ()),
    ]
    durations: dict[str, str] = {}
    for twin in shown:
        discount = readable(twin, payloads.Discount)
        coupon = discount and (discount.coupon or (discount.source and discount.source.coupon))
        if discount and discount.id and isinstance(coupon, payloads.Coupon):
            durations[discount.id] = coupon.duration
    return durations


def _discount_id(twin: Any) -> str | None:
    return id_of(readable(twin, payloads.Reference))  # type: ignore[arg-type]
