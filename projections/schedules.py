"""A contract's billing schedules: the items that one bill asks for, on their own dates, and rolled on.

Items of several intervals or period ends are billed each on its own date. A moment is rolled on in UTC, as
processors do, and only then falls on a day of the reporting zone; a date is rolled on as a date.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from msgspec import Struct, json
from msgspec.structs import replace

from projections.book import Rules
from projections.contract_life import ContractState
from projections.pricing import bill_cents, change_days, is_unpriced
from projections.work import Work, size_of
from service.core import cadence
from service.core.cadence import Anchor
from service.core.events import Discount, Item, Period, Subscription
from service.core.moments import day_of

_DAY = timedelta(days=1)
BILLED_STATUSES = frozenset({"active", "past_due", "trialing"})  # has a next bill

Amounts = tuple[tuple[str, int], ...]  # the amount of one bill, each from a day on


class BillingSchedule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The bills of a contract's items that have one interval and one next bill.

    The next bill is on the date `first`, in UTC where it has a time and else in no zone. Later bills are at
    `anchor_time` where the first is not on the anchor. Bills fall before the day `until` of the zone.
    `planned`: it begins with a phase that is to come, so the processor has not stated its next bill.
    """

    interval: str
    every: int
    first: date
    first_time: time | None = None
    anchor: Anchor | None = None
    anchor_time: time | None = None
    until: str | None = None
    planned: bool = False
    zone: str = "UTC"
    amounts: Amounts

    @property
    def next_bill_date(self) -> str:
        """The day of the next bill, "2025-11-13"."""
        return _local_day(self.first, self.first_time, ZoneInfo(self.zone))

    def bill_days(self, since: str | None = None) -> Iterator[str]:
        """The days of the next bill and all that follow. Days before `since` may be left out."""
        ahead = date.fromisoformat(since) - timedelta(days=2) if since else None
        for number in cadence.bill_dates(self.first, self.interval, self.every, self.anchor, ahead):
            try:
                day = self._day_of(number)
            except OverflowError:  # past the year 9999
                return
            if self.until and day >= self.until:
                return
            yield day

    def bills_before(self, day: str) -> int:
        """How many of the bills lie before a day; a distant one costs no more than a near one."""
        limit = date.fromisoformat(min(day, self.until) if self.until else day)
        rule = self.first, self.interval, self.every, self.anchor
        if self.first_time is None and self.anchor_time is None:
            return cadence.bills_before(limit, *rule)
        # A day of the zone is that of UTC, or the one before or after it.
        surely = cadence.bills_before(limit - _DAY, *rule)
        if cadence.bills_before(limit + 2 * _DAY, *rule) == surely:
            return surely
        near = takewhile(lambda number: number <= limit + _DAY, cadence.bill_dates(*rule, limit - 2 * _DAY))
        return surely + sum(
            self._day_of(number) < limit.isoformat() for number in near if number >= limit - _DAY
        )

    def without_times(self) -> "BillingSchedule":
        """The schedule with the same days in UTC, where times make none other."""
        return replace(self, first_time=None, anchor_time=None) if self.zone == "UTC" else self

    def has_period(self, period: "BilledPeriod") -> bool:
        """Whether the bill after one at a period's start is at the period's end."""
        bills = cadence.bill_dates(period.start, self.interval, self.every, self.anchor)
        return next(islice(bills, 1, None), None) == period.end

    def _day_of(self, number: date) -> str:
        """The day of the zone of the bill on a date in UTC."""
        at = self.first_time if number == self.first else self.anchor_time or self.first_time
        return _local_day(number, at, ZoneInfo(self.zone))

    def bill_before(self) -> str:
        """The day of the bill before the next one."""
        days = {"day": 1, "week": 7}.get(self.interval)
        months = cadence.months_of(self.interval, self.every)
        day = self.anchor.day if self.anchor else self.first.day
        before = (
            self.first - timedelta(days=days * self.every)
            if days
            else cadence.add_months(self.first, -months, day)
        )
        return _local_day(before, self.first_time, ZoneInfo(self.zone))

    def without_amounts(self) -> "BillingSchedule":
        """The schedule's days alone: many contracts have the same."""
        return replace(self, amounts=())

    def amount_on(self, day: str) -> int:
        """What a bill on this day asks for, in minor units."""
        return next((cents for start, cents in reversed(self.amounts) if start <= day), 0)


class BilledPeriod(Struct, frozen=True, kw_only=True, array_like=True):
    """A period that an invoice bills: its dates in UTC, and the day of the zone on which it starts."""

    day: str
    start: date
    end: date

    def billed(self, schedules: Sequence[BillingSchedule]) -> Sequence[BillingSchedule]:
        """The schedules whose period it may be: all of them where it is that of none."""
        return [each for each in schedules if each.has_period(self)] or schedules


def encode(schedules: Sequence[BillingSchedule]) -> str:
    """Schedules as the text of a column."""
    return json.encode(schedules).decode()


def decode(column: str) -> list[BillingSchedule]:
    """Schedules from the text of a column."""
    return json.decode(column, type=list[BillingSchedule])


def encode_periods(periods: Sequence[Period], rules: Rules) -> str:
    """The periods that an invoice bills as the text of a column."""
    return json.encode(
        [
            BilledPeriod(
                day=day_of(period.starts_at, rules.zone).isoformat(),
                start=period.starts_at.astimezone(UTC).date(),
                end=period.ends_at.astimezone(UTC).date(),
            )
            for period in periods
        ]
    ).decode()


def decode_periods(column: str) -> list[BilledPeriod]:
    """Periods from the text of a column."""
    return json.decode(column, type=list[BilledPeriod])


def _local_day(day: date, at: time | None, zone: ZoneInfo) -> str:
    return (day if at is None else day_of(datetime.combine(day, at, UTC), zone)).isoformat()


# From a contract's state


def billing_schedules(state: ContractState, ends_date: str | None, rules: Rules) -> list[BillingSchedule]:
    """The schedules of a contract that will bill: those that are not planned first, by next bill.

    A phase that is to come changes the amounts of its intervals, ends the schedules of intervals that it
    does not have, and begins those of new intervals with a bill on its first day.
    """
    data = state.data
    if state.ended or data.status not in BILLED_STATUSES or data.collection_paused:
        return []
    schedules = [
        _schedule(data, key, items, rules, with_amounts_off=number == 0)
        for number, (key, items) in enumerate(sorted(_groups(data).items(), key=_by_frequency))
    ]
    for phase in state.phases:
        planned = replace(data, items=phase.items, discounts=phase.discounts, trial_end_at=phase.trial_end_at)
        if not is_unpriced(planned):
            schedules = list(_in_phase(schedules, planned, phase.starts_at, rules))
    bounded = [replace(each, until=_earlier(each.until, ends_date)) for each in schedules]
    return sorted(
        (each for each in bounded if next(each.bill_days(), None)),
        key=lambda each: (each.planned, each.next_bill_date, each.interval, each.every),
    )


def are_bills_split(data: Subscription, schedules: Sequence[BillingSchedule]) -> bool:
    """Whether credits or amounts off may exceed a schedule's bill, and be off another one's of the same day.

    Bills of several schedules are worked out apart, so such a contract is flagged.
    """
    credits_exist = any((item.unit_amount or 0) < 0 for item in data.items)
    amounts_off_exist = any(discount.amount_off for discount in data.discounts)
    bills_nothing = any(cents == 0 for schedule in schedules for _, cents in schedule.amounts)
    return len(schedules) > 1 and bills_nothing and (credits_exist or amounts_off_exist)


_Key = tuple[str, int, datetime | date]  # interval, every, next bill


def _groups(data: Subscription) -> dict[_Key, list[Item]]:
    """The items that are billed together. One-off items are left out where others recur."""
    recurring = [item for item in data.items if item.interval != cadence.ONCE]
    groups: dict[_Key, list[Item]] = {}
    for item in recurring or data.items:
        next_bill = _next_bill(data, item)
        if next_bill:
            groups.setdefault((item.interval, item.every, next_bill), []).append(item)
    return groups


def _next_bill(data: Subscription, item: Item) -> datetime | date | None:
    if data.status == "trialing" and data.trial_end_at:
        return data.trial_end_at
    return item.next_bill_at or data.next_bill_at or data.next_bill_on


def _by_frequency(group: tuple[_Key, list[Item]]) -> tuple[object, ...]:
    """The most frequent schedule first: a discount of an amount is off its bills, as in MRR."""
    interval, every, next_bill = group[0]
    return -cadence.per_month(interval, cadence.WEEKS_PER_MONTH) / every, str(next_bill)


def _schedule(
    data: Subscription, key: _Key, items: Sequence[Item], rules: Rules, *, with_amounts_off: bool
) -> BillingSchedule:
    interval, every, next_bill = key
    first, first_time = _split(next_bill)
    data = _at_bill_times(replace(data, items=tuple(items)), first_time)
    anchor, anchor_time = _anchor(data, is_moment=first_time is not None)
    on_anchor = cadence.first_on_anchor(first, interval, every, anchor) is None
    day = _local_day(first, first_time, ZoneInfo(rules.reporting_tz))
    return BillingSchedule(
        interval=interval,
        every=every,
        first=first,
        first_time=first_time,
        anchor=anchor,
        anchor_time=None if on_anchor else anchor_time,
        zone=rules.reporting_tz,
        amounts=_amounts(data, day, rules, with_amounts_off=with_amounts_off),
    )


def _at_bill_times(data: Subscription, at: time | None) -> Subscription:
    """The data with its changes moved to the first bill after them, since days compare no times.

    A bill at 10:00 still has the discount that ends at 15:00 of its day.
    """
    discounts = tuple(_discount_at_bill_times(discount, at) for discount in data.discounts)
    return replace(data, discounts=discounts, items=tuple(_item_at_bill_times(i, at) for i in data.items))


def _item_at_bill_times(item: Item, at: time | None) -> Item:
    if not (item.discounts or item.trial_end_at):
        return item
    return replace(
        item,
        discounts=tuple(_discount_at_bill_times(discount, at) for discount in item.discounts),
        trial_start_at=_bill_time_after(item.trial_start_at, at),
        trial_end_at=_bill_time_after(item.trial_end_at, at),
    )


def _discount_at_bill_times(discount: Discount, at: time | None) -> Discount:
    return replace(
        discount,
        starts_at=_bill_time_after(discount.starts_at, at),
        ends_at=_bill_time_after(discount.ends_at, at),
    )


def _bill_time_after(moment: datetime | None, at: time | None) -> datetime | None:
    """The first moment at a time of day in UTC that is not before a moment; bills without a time keep it."""
    if moment is None or at is None:
        return moment
    bill_time = datetime.combine(moment.astimezone(UTC).date(), at, UTC)
    return bill_time if bill_time >= moment else bill_time + timedelta(days=1)


def _bill_day_after(moment: datetime, at: time | None, rules: Rules) -> str:
    """The day of the first bill that is not before a moment, of bills at a time of day."""
    return day_of(_bill_time_after(moment, at) or moment, rules.zone).isoformat()


def _split(next_bill: datetime | date) -> tuple[date, time | None]:
    """The date, and the time in UTC of a moment."""
    if isinstance(next_bill, datetime):
        in_utc = next_bill.astimezone(UTC)
        return in_utc.date(), in_utc.time()
    return next_bill, None


def _anchor(data: Subscription, *, is_moment: bool) -> tuple[Anchor | None, time | None]:
    """The biller's anchor, with its time in UTC where bills have times."""
    stated = data.anchor_at or data.anchor_on
    on, at = _split(stated) if stated else (None, None)
    day = data.anchor_day or (on.day if on else None)
    return (Anchor(day=day, on=on) if day else None), at if is_moment else None


def _amounts(data: Subscription, first: str, rules: Rules, *, with_amounts_off: bool) -> Amounts:
    """The amounts of one bill of these items from the day `first` on.

    They change where a discount or a trial ends.
    """
    changes = (day.isoformat() for day in change_days(data, rules.zone))
    days = sorted({first, *(day for day in changes if day > first)})
    Work().add(len(days) * size_of(data))
    cents = (
        bill_cents(data, data.items, date.fromisoformat(day), rules, with_amounts_off=with_amounts_off)
        for day in days
    )
    return _without_repeats(zip(days, cents, strict=True))


def _without_repeats(amounts: Iterable[tuple[str, int]]) -> Amounts:
    kept: list[tuple[str, int]] = []
    for day, cents in amounts:
        if not kept or kept[-1][1] != cents:
            kept.append((day, cents))
    return tuple(kept)


def _in_phase(
    schedules: Sequence[BillingSchedule], planned: Subscription, starts_at: datetime, rules: Rules
) -> Iterator[BillingSchedule]:
    """The schedules with a phase that begins at a moment, in which the contract is as `planned`.

    In a phase that begins with a trial, bills begin at the trial's end.
    """
    bills_from = planned.trial_end_at or starts_at
    groups: dict[tuple[str, int], list[Item]] = {}
    for item in planned.items:
        if item.interval != cadence.ONCE:
            groups.setdefault((item.interval, item.every), []).append(item)
    most_frequent = min(groups, key=lambda key: _by_frequency(((*key, bills_from), [])), default=None)
    for schedule in schedules:
        key = schedule.interval, schedule.every
        at = schedule.first_time
        start, first = (_bill_day_after(moment, at, rules) for moment in (starts_at, bills_from))
        items = None if schedule.until else groups.pop(key, None)
        if items is None:
            yield replace(schedule, until=schedule.until or start)
            continue
        known = _at_bill_times(replace(planned, items=tuple(items)), at)
        later = _amounts(known, first, rules, with_amounts_off=key == most_frequent)
        before = [amount for amount in schedule.amounts if amount[0] < start]
        trial = [(start, 0)] if start < first else []
        yield replace(schedule, amounts=_without_repeats((*before, *trial, *later)))
    anchored = replace(planned, anchor_at=bills_from, anchor_on=None, anchor_day=None)
    for key, items in groups.items():
        added = _schedule(anchored, (*key, bills_from), items, rules, with_amounts_off=key == most_frequent)
        yield replace(added, planned=True)


def _earlier(first: str | None, second: str | None) -> str | None:
    return min(filter(None, (first, second)), default=None)
