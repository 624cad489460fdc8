"""Discounts by events of their own, beside those that a contract or a customer lists.

A rule of the set, whatever the order in which the events arrive. An object's own statement says which
discounts it has, and may name them by id alone; a discount's own event says what is off. So:

- the content of a listed discount is that of its own newest event, if that is later than the statement;
  else the statement's; else, where the statement has the id alone, that of its events, the first one even
  if it is yet to come;
- a discount that an event applies is off although it is not listed, until a later statement leaves it out;
- a discount that an event deletes is off no more, until a later statement lists it again.

Later means at a later moment: what a statement and an event of one moment say is true together.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from projections.pricing import is_readable
from service.core.events import AppliedDiscount, Discount, Event

EVER = datetime.min.replace(tzinfo=UTC)  # before every statement
Sourced = tuple[Discount, Event | None]  # a discount, and its own event if its content is from there


class AppliedDiscounts:
    """The events of a history that apply or delete a discount."""

    def __init__(self, history: Sequence[Event]) -> None:
        self._by_id: dict[str | None, list[tuple[Event, AppliedDiscount]]] = defaultdict(list)
        for event in history:
            if isinstance(event.data, AppliedDiscount):
                self._by_id[event.data.discount.discount_id].append((event, event.data))
        self._readable = defaultdict(
            list,
            {
                discount_id: [pair for pair in events if is_readable(pair[1].discount)]
                for discount_id, events in self._by_id.items()
            },
        )

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def listed(self, listed: Sequence[Discount], stated_at: datetime, now: datetime) -> Iterator[Sourced]:
        """The listed discounts of a statement made at `stated_at`, as they are off at `now`."""
        for discount in listed:
            if discount.discount_id not in self._by_id or discount.discount_id is None:
                yield discount, None
            elif not self._is_deleted(discount.discount_id, stated_at, now):
                yield self._content(discount, stated_at, now)

    def added(self, listed_ids: set[str | None], stated_at: datetime, now: datetime) -> list[Sourced]:
        """The discounts that events apply since a statement that does not list them, oldest first."""
        newest = [self._newest(discount_id, now) for discount_id in self._by_id.keys() - listed_ids]
        added = [
            (event, applied)
            for event, applied in filter(None, newest)
            if not applied.deleted and event.occurred_at >= stated_at
        ]
        added.sort(key=lambda pair: (pair[0].occurred_at, pair[0].event_id))
        return [(applied.discount, event) for event, applied in added]

    def _newest(self, discount_id: str | None, now: datetime) -> tuple[Event, AppliedDiscount] | None:
        events = self._by_id[discount_id]
        until_now = bisect_right(events, now, key=lambda pair: pair[0].occurred_at)
        return events[until_now - 1] if until_now else None

    def _is_deleted(self, discount_id: str, stated_at: datetime, now: datetime) -> bool:
        newest = self._newest(discount_id, now)
        return bool(newest and newest[1].deleted and newest[0].occurred_at >= stated_at)

    def _content(self, discount: Discount, stated_at: datetime, now: datetime) -> Sourced:
        events = self._readable[discount.discount_id]
        until_now = bisect_right(events, now, key=lambda pair: pair[0].occurred_at)
        event, applied = events[max(until_now - 1, 0)] if events else (None, None)
        if event is None or applied is None:
            return discount, None
        if is_readable(discount) and not (until_now and event.occurred_at > stated_at):
            return discount, None
        return applied.discount, event
