"""Subscriptions as contracts of the ledger."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from handlers.stripe import payloads
from handlers.stripe.discounts import discounts
from handlers.stripe.fields import customer_id, id_of, missing, optional_moment, readable
from handlers.stripe.prices import Price, inclusive_percent, priced_item, stated_price, unreadable_price
from service.core import events
from service.core.errors import Unreadable
from service.core.events import Data

# Statuses that have a next bill. A payload with one of them and no period end has an unknown shape.
_BILLED = {"active", "past_due", "trialing"}
_ENDED = {"canceled", "incomplete_expired"}

# Stands for the items beyond the first page of the list: it has no price, so the subscription shows as
# not fully priced.
_UNLISTED_ITEM = events.Item(interval="month")


class _Line(NamedTuple):
    """An item of a subscription with its price; its period's end and next bill in Stripe's seconds."""

    item: payloads.SubscriptionItem
    price: Price
    period_end: int | None
    next_bill: int | None


def subscription(payload: payloads.Subscription, _: str) -> Data:
    """A subscription. Its next bill is at the end of its period, or at the first period end of its items."""
    lines = _lines(payload)
    next_bill = min(filter(None, (line.next_bill for line in lines)), default=payload.current_period_end)
    if next_bill is None and payload.status in _BILLED:
        raise missing("current_period_end")
    period_end = payload.current_period_end or min(
        filter(None, (line.period_end for line in lines)), default=None
    )
    cancel_at = (
        period_end if payload.cancel_at is None and payload.cancel_at_period_end else payload.cancel_at
    )
    currency = _currency(payload, lines)
    anchor = readable(payload.billing_cycle_anchor_config, payloads.AnchorDay)
    return events.Subscription(
        subscription_id=payload.id,
        customer_id=_customer_id(payload),
        status=payload.status,
        currency=currency,
        items=_items(payload, lines, currency, next_bill),
        discounts=discounts(payload.discounts, payload.discount, currency),
        next_bill_at=optional_moment(next_bill),
        started_at=optional_moment(payload.start_date),
        trial_start_at=optional_moment(payload.trial_start),
        trial_end_at=optional_moment(payload.trial_end),
        anchor_at=optional_moment(payload.billing_cycle_anchor),
        anchor_day=anchor.day_of_month if anchor else None,
        automatic_tax=_has_automatic_tax(payload, lines),
        cancel_at=optional_moment(cancel_at),
        ended_at=optional_moment(payload.ended_at),
        collection_paused=payload.pause_collection is not None,
        **_cancellation(payload),
    )


def ended_subscription(payload: payloads.EndedSubscription, event_type: str) -> Data:
    """A subscription that has ended, whatever else it says. Raises Unreadable if it has not."""
    if payload.status not in _ENDED and event_type != "customer.subscription.deleted":
        raise Unreadable("the subscription has not ended")
    return events.Subscription(
        subscription_id=payload.id,
        customer_id=customer_id(payload) or events.UNKNOWN_CUSTOMER,
        status=payload.status if payload.status in _ENDED else "canceled",
        currency=payload.currency or events.NO_CURRENCY,
        items=(),
        ended_at=optional_moment(payload.ended_at),
        **_cancellation(payload),
    )


def _cancellation(payload: payloads.EndedSubscription) -> dict[str, Any]:
    """Why it was, or will be, cancelled. Details that can't be read are left out: no figure needs them."""
    details = readable(payload.cancellation_details, payloads.CancellationDetails)
    if details is None:
        return {}
    return {
        "cancellation_reason": details.reason,
        "cancellation_feedback": details.feedback,
        "cancellation_comment": details.comment or None,
    }


def _customer_id(payload: payloads.CustomerReference) -> str:
    found = customer_id(payload)
    if found is None:
        raise missing("customer")
    return found


def _lines(payload: payloads.Subscription) -> list[_Line]:
    lines, billed_until = [], _billed_until_by_price(payload)
    for index, item in enumerate(_listed(payload)):
        price = stated_price(item.price, item.plan)
        if price is None:
            raise unreadable_price(item.price, item.plan, f"$.data.object.items.data[{index}]")
        end = payload.current_period_end if item.current_period_end is None else item.current_period_end
        ahead = [item.billed_until] if item.billed_until is not None else _of_price(billed_until, price)
        next_bill = max(filter(None, (end, *ahead)), default=None)
        lines.append(_Line(item, price, end, next_bill))
    return lines


def _billed_until_by_price(payload: payloads.Subscription) -> dict[str | None, int]:
    """The moments until which billing schedules bill ahead, by the price; None for all prices."""
    until: dict[str | None, int] = {}
    for schedule in payload.billing_schedules or ():
        for name in {id_of(part.price) for part in schedule.applies_to or ()} or {None}:
            until[name] = max(schedule.bill_until.computed_timestamp, until.get(name, 0))
    return until


def _of_price(billed_until: dict[str | None, int], price: Price) -> list[int]:
    return [billed_until[name] for name in (None, price.id) if name in billed_until]


def _listed(payload: payloads.Subscription) -> Sequence[payloads.SubscriptionItem]:
    if payload.items and payload.items.data:
        return payload.items.data
    if payload.plan is not None:  # an old payload: a subscription could have only one plan
        return (payloads.SubscriptionItem(plan=payload.plan, quantity=payload.quantity),)
    raise missing("items")


def _currency(payload: payloads.Subscription, lines: Sequence[_Line]) -> str:
    """The subscription's currency; that of its first price in old payloads, which have none."""
    currency = payload.currency or next(filter(None, (line.price.currency for line in lines)), None)
    if currency is None:
        raise missing("currency")
    return currency


def _items(
    payload: payloads.Subscription, lines: Sequence[_Line], currency: str, next_bill: int | None
) -> tuple[events.Item, ...]:
    taxes = inclusive_percent(payload.default_tax_rates)
    items = tuple(
        priced_item(
            line.price,
            currency,
            quantity=_quantity(line.item),
            discounts=discounts(line.item.discounts, None, currency),
            inclusive_tax=inclusive_percent(line.item.tax_rates) if line.item.tax_rates else taxes,
            next_bill_at=None if line.next_bill == next_bill else optional_moment(line.next_bill),
            **_trial(line),
        )
        for line in lines
    )
    return (*items, _UNLISTED_ITEM) if payload.items and payload.items.has_more else items


def _quantity(item: payloads.SubscriptionItem) -> int | Decimal:
    exact = Decimal(item.quantity_decimal or 1)
    if exact != exact.to_integral_value():
        return exact
    return int(exact) if item.quantity is None else item.quantity


def _trial(line: _Line) -> dict[str, Any]:
    """The dates of an item's trial, unless its offer states that the item's price is the trial's."""
    trial = line.item.current_trial
    if trial is None:
        return {}
    offered = trial.trial_offer.get("price") if isinstance(trial.trial_offer, dict) else None
    if line.price.id in (offered, offered.get("id") if isinstance(offered, dict) else None):
        return {}
    return {
        "trial_start_at": optional_moment(trial.start_date),
        "trial_end_at": optional_moment(trial.end_date),
    }


def _has_automatic_tax(payload: payloads.Subscription, lines: Sequence[_Line]) -> bool:
    """Whether the invoices of the subscription tell a tax that its prices may include."""
    is_automatic = payload.automatic_tax is not None and payload.automatic_tax.enabled
    return is_automatic and any(line.price.tax_behavior != "exclusive" for line in lines)
