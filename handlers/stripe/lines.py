"""Invoice lines: what each names, and the items of a contract that they bill for whole periods."""

from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction
from typing import Any

from handlers.stripe import payloads
from handlers.stripe.discounts import discount
from handlers.stripe.fields import id_of, moment, readable
from handlers.stripe.prices import Price, stated_price
from service.core import events
from service.core.money import round_fraction


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


def billed_items(payload: payloads.Invoice, made_at: int) -> tuple[events.BilledItem, ...]:
    """The contract's items that an invoice bills for whole periods, but for those that say they are metered.

    What a discount of the duration "once" took off is added again.
    """
    discounts = _shown_discounts(payload)
    billed = (
        _billed_item(line, discounts, made_at)
        for line in (payload.lines.data if payload.lines else ())
        if is_recurring(line)
    )
    return tuple(item for item in billed if item)


_Discounts = dict[str, events.Discount]


def _billed_item(line: payloads.InvoiceLine, discounts: _Discounts, made_at: int) -> events.BilledItem | None:
    period, price = readable(line.period, payloads.LinePeriod), stated_price(line.price, line.plan)
    recurring = price if isinstance(price, payloads.Plan) else _recurring(price)
    if period is None or period.start >= period.end or (recurring and recurring.usage_type == "metered"):
        return None
    details = line.parent.subscription_item_details if line.parent else None
    taken_off = sum(part.amount for part in line.discount_amounts or ())
    amount = line.amount - taken_off - sum(inclusive_taxes(line))
    once, ending = _passing_discounts(
        line, discounts, moment(period.end), untaxed=(amount, line.amount - taken_off)
    )
    return events.BilledItem(
        starts_at=moment(period.start),
        ends_at=moment(period.end),
        amount=amount + once,
        interval=recurring.interval if recurring else None,
        every=recurring.interval_count if recurring else 1,
        item_id=(details.subscription_item if details else None) or line.subscription_item or None,
        price_id=first_id(named_prices(line)),
        product_id=first_id(named_products(line)),
        ending_discounts=ending,
        in_arrears=recurring is None and period.end <= made_at,
    )


def _passing_discounts(
    line: payloads.InvoiceLine, discounts: _Discounts, end: datetime, untaxed: tuple[int, int]
) -> tuple[int, tuple[events.EndingDiscount, ...]]:
    """What discounts take off a line only once, and those that end before the end of its period.

    Without the tax that the price includes: `untaxed` is the line's amount without it, and with it.
    """
    once, ending = 0, []
    for part in line.discount_amounts or ():
        stated = discounts.get(_discount_id(part.discount) or "")
        cents = round_fraction(Fraction(part.amount * untaxed[0], untaxed[1])) if untaxed[1] else part.amount
        if stated and stated.duration == "once":
            once += cents
        elif stated and stated.ends_at and stated.ends_at < end:
            ending.append(events.EndingDiscount(ends_at=stated.ends_at, amount=cents))
    return once, tuple(ending)


def _recurring(price: Price | None) -> payloads.Recurring | None:
    return price.recurring if price and isinstance(price.recurring, payloads.Recurring) else None


def _shown_discounts(payload: payloads.Invoice) -> _Discounts:
    """The discounts of which the invoice shows more than the id, by their ids."""
    listed = payload.discounts if isinstance(payload.discounts, list) else ()
    lines = payload.lines.data if payload.lines else ()
    shown = [
        payload.discount,
        *listed,
        *(part.discount for line in lines for part in line.discount_amounts or ()),
    ]
    stated = [found for twin in shown if (found := readable(twin, payloads.Discount))]
    return {each.id: discount(each, None) for each in stated if each.id}


def _discount_id(twin: Any) -> str | None:
    return id_of(readable(twin, payloads.Reference))  # type: ignore[arg-type]
