"""The discounts of a customer, which are off all contracts of theirs that have none of their own."""

from collections.abc import Sequence
from datetime import date, datetime

from msgspec import Struct, json

from projections.book import Row, Rules, weakest_trust
from projections.discounts import EVER, AppliedDiscounts
from projections.work import Work
from service.core.events import AppliedDiscount, Customer, Discount, Event, join_key
from service.core.moments import day_of


class DiscountPeriod(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A customer's discounts from the end of `day` on, until the next period, as known at the moment `at`."""

    day: date
    at: datetime
    causes: tuple[str, ...]
    trust: str
    discounts: tuple[Discount, ...] = ()


class CustomerDiscounts(Row, frozen=True, kw_only=True):
    """A customer's discounts. `periods` is JSON of all its `DiscountPeriod`s, in order.

    There is no row for a customer who never had one.
    """

    table = "customer_discounts"

    processor: str
    account: str
    customer_id: str
    periods: str


def customer_discount_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """The events of one customer's discounts to the row of their periods."""
    periods = _periods(history, rules)
    if not any(period.discounts for period in periods):
        return []
    first, customer_id = history[0], next(filter(None, (_customer_id(event) for event in history)))
    return [
        CustomerDiscounts(
            parent_key=join_key(first.processor, first.account, customer_id),
            causes=json.encode(periods[-1].causes).decode(),
            processor=first.processor,
            account=first.account,
            customer_id=customer_id,
            periods=json.encode(periods).decode(),
        )
    ]


def discount_periods(row: CustomerDiscounts | None) -> list[DiscountPeriod]:
    """The periods of a customer's discounts, in order."""
    return json.decode(row.periods, type=list[DiscountPeriod]) if row else []


def _customer_id(event: Event) -> str | None:
    return event.data.customer_id if isinstance(event.data, Customer | AppliedDiscount) else None


def _periods(history: Sequence[Event], rules: Rules) -> list[DiscountPeriod]:
    """A period for each day at whose end the customer's discounts are others than before."""
    applied = AppliedDiscounts(history)
    periods: list[DiscountPeriod] = []
    work = Work()
    stated: tuple[Discount, ...] = ()
    stated_at = EVER
    for event in history:
        if isinstance(event.data, Customer):
            stated, stated_at = event.data.discounts or (), event.occurred_at
        now, day = event.occurred_at, day_of(event.occurred_at, rules.zone)
        listed_ids = {discount.discount_id for discount in stated}
        sourced = [*applied.listed(stated, stated_at, now), *applied.added(listed_ids, stated_at, now)]
        work.add(1 + len(sourced))
        discounts = tuple(discount for discount, _ in sourced)
        sources = [event, *(source for _, source in sourced if source)]
        while periods and periods[-1].day >= day:
            periods.pop()
        if discounts != (periods[-1].discounts if periods else ()):
            periods.append(
                DiscountPeriod(
                    day=day,
                    at=now,
                    causes=tuple(sorted({source.cause for source in sources})),
                    trust=weakest_trust(source.trust for source in sources),
                    discounts=discounts,
                )
            )
    return periods
