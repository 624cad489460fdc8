"""A contract's life: the states of one subscription, folded from its events."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, tzinfo
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from projections.book import Rules, weakest_trust
from projections.discounts import EVER, AppliedDiscounts
from projections.pricing import all_discounts, price_on
from projections.work import Work, size_of
from service.core.events import (
    DELETED,
    ENDED_STATUSES,
    NO_CURRENCY,
    UNKNOWN_CUSTOMER,
    AppliedDiscount,
    Data,
    Discount,
    Event,
    Invoice,
    Item,
    Phase,
    Schedule,
    Subscription,
)
from service.core.moments import day_of
from service.core.order import canonical, undecided_moments

BILLING_STATUSES = frozenset({"active", "past_due", "trialing", "unpaid", "incomplete"})  # has a next bill
KNOWN_STATUSES = BILLING_STATUSES | ENDED_STATUSES | {"paused", "inactive"}
ENDS_FOR_GOOD = frozenset({"stripe"})  # the processors whose subscriptions never come back under their id
LIVE_SCHEDULES = frozenset({"not_started", "active"})

_PRICE_FIELDS = (
    "interval",
    "every",
    "unit_amount",
    "metered",
    "tiers",
    "tiers_mode",
    "divide_by",
    "divide_round",
    "product_id",
)


class ContractState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A contract's state from the end of `day` until the next state, as known at the moment `at`.

    `data` is what the subscription stated last, with the discounts and the tax that are in force, its status
    in lower case. `ends_on` is the day of a stated end that was still to come when it was stated. `tied`:
    another event of the same moment states something else, and only their ids order the two. `phases` are
    those to come of the contract's schedule.
    """

    day: date
    at: datetime
    processor: str
    account: str
    causes: tuple[str, ...]
    trust: str
    data: Subscription
    ended: bool = False
    ends_on: date | None = None
    tied: bool = False
    unknown_status: bool = False
    phases: tuple[Phase, ...] = ()


def _timeline(history: Sequence[Event]) -> list[tuple[datetime, Event]]:
    """A contract's events, each with the moment from which it holds; each taxed invoice once.

    In one moment statements come first, in their own canonical order: events of other types would stand
    between a statement and the one that it follows from.
    """
    statements = [event for event in history if isinstance(event.data, Subscription)]
    if len(statements) < len(history):
        statements = canonical(statements)
    others = [event for event in history if isinstance(event.data, AppliedDiscount | Schedule)]
    marks = [(event.occurred_at, event) for event in (*statements, *others)]
    return sorted([*marks, *_taxed_invoices(history)], key=lambda mark: mark[0])


def _taxed_invoices(history: Sequence[Event]) -> list[tuple[datetime, Event]]:
    """Each finalized invoice of which it is known how much tax its prices include, by its last event."""
    invoices: dict[str, tuple[datetime, Event]] = {}
    for event in history:
        if isinstance(event.data, Invoice) and _tax_percent(event.data) is not None:
            invoices[event.data.invoice_id] = (event.data.finalized_at or event.data.created_at, event)
    return sorted(invoices.values(), key=lambda mark: (mark[0], mark[1].event_id))


def _tells_no_tax(event: Event) -> bool:
    return isinstance(event.data, Invoice) and _tax_percent(event.data) is None


def _tax_percent(data: Data) -> Decimal | None:
    """The percentage of tax that an invoice's prices include; None if it can't be read from it."""
    if not isinstance(data, Invoice) or data.status in ("draft", "deleted"):
        return None
    gross, tax = data.taxed_amount, data.inclusive_tax
    return (
        None if gross is None or tax is None or not 0 <= tax < gross else Decimal(100 * tax) / (gross - tax)
    )


class ContractLife:
    """A contract's life as far as its events have been read: those of a history, in canonical order."""

    def __init__(self, history: Sequence[Event], rules: Rules) -> None:
        self._states: list[ContractState] = []
        self._work = Work()
        self._rules = rules
        self._applied = AppliedDiscounts(history)
        self._prices = _named_prices(history)
        self._tied_moments = undecided_moments(history, Subscription)
        self._alive_at = EVER  # the moment of the last statement of a contract that has not ended
        self._schedules: dict[str, Event] = {}
        self._tax = next((event for _, event in _taxed_invoices(history)), None)  # the invoice that tells it
        self._stated: Event | None = None  # the last statement
        self._until = EVER  # the last moment that was read
        self._read(_timeline(history))

    def goes_on(self, later: Sequence[Event]) -> bool:
        """Whether to `read_on` with these events gives what reading the whole history anew gives.

        So it is with statements at later moments, one at each, that price nothing of a schedule's phases; and
        with invoices that tell no tax.
        """
        statements = [event for event in later if isinstance(event.data, Subscription)]
        moments = {event.occurred_at for event in statements}
        return (
            len(moments) == len(statements)
            and all(moment > self._until for moment in moments)
            and all(isinstance(event.data, Subscription) or _tells_no_tax(event) for event in later)
            and not (self._schedules and _named_prices(statements).items() - self._prices.items())
        )

    def read_on(self, later: Sequence[Event]) -> None:
        """Read later events with which this life goes on, in order."""
        self._read((e.occurred_at, e) for e in later if isinstance(e.data, Subscription))

    def _read(self, timeline: Iterable[tuple[datetime, Event]]) -> None:
        for moment, event in timeline:
            _READ[type(event.data)](self, moment, event)
            self._until = moment

    def states(self) -> list[ContractState]:
        """The contract's state at the end of every day on which it changes or states itself, in order.

        The customer's own discounts are not in them. The first state holds from `counts_from_on`, or the day
        of `counts_from`, where that is earlier than its event. What is stated to end, and can't come back,
        has not ended where it lives on later. Of next bills only the last counts: a state that says nothing
        else than the one before it is left out.
        """
        states = [
            replace(state, ends_on=None)
            if state.ends_on and state.at < self._alive_at and state.processor in ENDS_FOR_GOOD
            else state
            for state in self._states
        ]
        lasting = [_without_next_bills(state) for state in states]
        last = len(states) - 1
        return [state for n, state in enumerate(states) if n in (0, last) or lasting[n] != lasting[n - 1]]

    @property
    def size(self) -> int:
        """How many states it holds in memory."""
        return len(self._states)

    def state(self, at: datetime, event: Event) -> None:
        """Read a statement of the subscription. A status of its end stays where nothing revives it."""
        data, zone = event.data, self._rules.zone
        assert isinstance(data, Subscription)  # noqa: S101 - by the table `_READ`
        if self._states and self._states[-1].ended and event.processor in ENDS_FOR_GOOD:
            self._explain_end(event, data)
            return
        is_first, self._stated = self._stated is None, self._completed(event, data)
        if event.rank == DELETED or data.status.lower() in ENDED_STATUSES:
            self._add(day_of(data.ended_at or at, zone), at, ended=True)
            return
        day, self._alive_at = day_of(at, zone), at
        if is_first and data.status.lower() in self._rules.policy.statuses:
            start = data.counts_from_on or (data.counts_from and day_of(data.counts_from, zone))
            day = min(day, start or day)
        self._add(day, at)

    def _explain_end(self, event: Event, data: Subscription) -> None:
        """Read what is said later of why the contract ended: customers are asked once it has."""
        last = self._states[-1]
        reason, feedback = data.cancellation_reason, data.cancellation_feedback
        known = last.data.cancellation_reason, last.data.cancellation_feedback
        if (reason or feedback) and (reason, feedback) != known:
            self._states[-1] = replace(
                last,
                data=replace(last.data, cancellation_reason=reason, cancellation_feedback=feedback),
                causes=tuple(sorted({*last.causes, event.cause})),
                trust=weakest_trust((last.trust, event.trust)),
            )

    def _completed(self, event: Event, data: Subscription) -> Event:
        """A statement, with the last customer and currency where its end is all that can be read of it."""
        last = self._states[-1].data if self._states else data
        customer_id = last.customer_id if data.customer_id == UNKNOWN_CUSTOMER else data.customer_id
        currency = last.currency if data.currency == NO_CURRENCY else data.currency
        completed = replace(data, customer_id=customer_id, currency=currency, cancellation_comment=None)
        return replace(event, data=completed)

    def change(self, at: datetime, event: Event) -> None:
        """Read a discount's or a schedule's event, which changes what the last statement says."""
        if isinstance(event.data, Schedule):
            self._schedules.pop(event.data.schedule_id, None)
            self._schedules[event.data.schedule_id] = event
        if self._is_live():
            self._add(day_of(at, self._rules.zone), at, event)

    def tax(self, at: datetime, event: Event) -> None:
        """Read an invoice. Its tax is rounded, so another one counts only where the figure shows it."""
        before, self._tax = self._tax, event
        if not (self._is_live() and self._states[-1].data.automatic_tax):
            return
        day, data = day_of(at, self._rules.zone), self._states[-1].data
        now = replace(data, items=self._taxed(data, data.items))
        if abs(price_on(now, day, self._rules).mrr_cents - price_on(data, day, self._rules).mrr_cents) > 1:
            self._add(day, at)
        else:
            self._tax = before

    def _is_live(self) -> bool:
        return bool(self._states) and not self._states[-1].ended

    def _add(self, day: date, at: datetime, change: Event | None = None, *, ended: bool = False) -> None:
        """Add the state of a day, and drop those of this day and of days that do not come any more."""
        state = self._state_at(day, at, change, ended=ended)
        if change and (self._states[-1].data, self._states[-1].phases) == (state.data, state.phases):
            return
        while self._states and self._states[-1].day >= day:
            self._states.pop()
        self._states.append(state)

    def _state_at(self, day: date, at: datetime, change: Event | None, *, ended: bool) -> ContractState:
        """The contract's state as known at a moment."""
        event = self._stated
        assert event is not None  # noqa: S101 - nothing is added before a statement
        assert isinstance(event.data, Subscription)  # noqa: S101
        sources = [event, *([change] if change else [])]
        data = self._discounted(event.data, event.occurred_at, at, sources)
        if data.automatic_tax and self._tax:
            data = replace(data, items=self._taxed(data, data.items))
            sources.append(self._tax)
        data = self._planned_to_end(data, sources)
        status, phases = data.status.lower(), self._phases(data, at)
        self._work.add(size_of(data) + sum(len(phase.items) for phase in phases))
        return ContractState(
            day=day,
            at=at,
            processor=event.processor,
            account=event.account,
            causes=tuple(sorted({source.cause for source in sources})),
            trust=weakest_trust(source.trust for source in sources),
            data=data if data.status == status else replace(data, status=status),
            ended=ended,
            ends_on=None if ended else _stated_end(data, event.occurred_at, self._rules.zone),
            tied=event.occurred_at in self._tied_moments,
            unknown_status=status not in KNOWN_STATUSES and status not in self._rules.policy.statuses,
            phases=phases,
        )

    def _taxed(self, data: Subscription, items: Iterable[Item]) -> tuple[Item, ...]:
        """The items with the tax of the contract's invoices in their prices, if it is automatic."""
        percent = _tax_percent(self._tax.data) if self._tax and data.automatic_tax else None
        return tuple(item if percent is None else replace(item, inclusive_tax=percent) for item in items)

    def _discounted(
        self, data: Subscription, stated_at: datetime, now: datetime, sources: list[Event]
    ) -> Subscription:
        """The data with the discounts that are off at `now`; adds the events that say so to `sources`."""
        if not self._applied:
            return data
        listed = {discount.discount_id for discount in all_discounts(data)}

        def known(discounts: Sequence[Discount]) -> tuple[Discount, ...]:
            sourced = list(self._applied.listed(discounts, stated_at, now))
            sources.extend(event for _, event in sourced if event)
            return tuple(discount for discount, _ in sourced)

        items = tuple(replace(item, discounts=known(item.discounts)) for item in data.items)
        added = self._applied.added(listed, stated_at, now)
        sources.extend(event for _, event in added if event)
        discounts = (*known(data.discounts), *(discount for discount, _ in added))
        return replace(data, items=items, discounts=discounts)

    def _phases(self, data: Subscription, now: datetime) -> tuple[Phase, ...]:
        """The phases of the live schedule that begin after `now`, with the prices that they only name."""
        _, schedule = self._live_schedule()
        return tuple(
            replace(phase, items=self._taxed(data, map(self._priced, phase.items)))
            for phase in (schedule.phases if schedule else ())
            if phase.starts_at > now
        )

    def _planned_to_end(self, data: Subscription, sources: list[Event]) -> Subscription:
        """The data with the end of the live schedule's last phase, if the schedule cancels the contract then.

        Adds the schedule's event to `sources` if it does.
        """
        event, schedule = self._live_schedule()
        last = schedule.phases[-1] if schedule and schedule.phases else None
        if event is None or schedule is None or schedule.end_behavior != "cancel" or data.cancel_at:
            return data
        sources.append(event)
        return replace(data, cancel_at=last.ends_at if last else None)

    def _live_schedule(self) -> tuple[Event | None, Schedule | None]:
        """The newest schedule that is in force, with its event."""
        for event in reversed(self._schedules.values()):
            if isinstance(event.data, Schedule) and event.data.status in LIVE_SCHEDULES:
                return event, event.data
        return None, None

    def _priced(self, item: Item) -> Item:
        named = self._prices.get(item.price_id)
        if named is None or item.unit_amount is not None or item.tiers:
            return item
        return replace(item, **{name: getattr(named, name) for name in _PRICE_FIELDS})


# How each type of event changes a contract's life. Its invoices are those that tell the tax in its prices.
_READ: dict[type[Data], Callable[[ContractLife, datetime, Event], None]] = {
    Subscription: ContractLife.state,
    AppliedDiscount: ContractLife.change,
    Schedule: ContractLife.change,
    Invoice: ContractLife.tax,
}


def _without_next_bills(state: ContractState) -> ContractState:
    """A state as it holds from any day on: equal to another one that says the same, but for next bills."""
    items = tuple(replace(item, next_bill_at=None) for item in state.data.items)
    data = replace(state.data, items=items, next_bill_at=None)
    return replace(state, day=date.min, at=EVER, causes=(), data=data)


def _named_prices(history: Sequence[Event]) -> dict[str | None, Item]:
    """The last item of each price id that the contract's events name with its price."""
    named = [event.data.items for event in history if isinstance(event.data, Subscription)]
    named += [p.items for event in history if isinstance(event.data, Schedule) for p in event.data.phases]
    return {
        item.price_id: item
        for items in named
        for item in items
        if item.price_id and (item.unit_amount is not None or item.tiers)
    }


def _stated_end(data: Subscription, stated_at: datetime, zone: tzinfo) -> date | None:
    """The day of an end that is yet to come when it is stated."""
    ends = [moment for moment in (data.cancel_at, data.ended_at) if moment and moment > stated_at]
    return day_of(min(ends), zone) if ends else None
